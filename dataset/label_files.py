"""Parses YOLO label files: one object per line, a class id and coordinates normalised to 0 to 1.

A box is `class x y w h` (centre and size), a polygon `class x1 y1 x2 y2 …`, a pose a box followed
by `x y` or `x y visibility` per keypoint. Deviating lines are read as far as their meaning is
certain, and reported.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from models_store.description import Task

BIGGEST = 16 * 2**20  # maximum bytes of one label file
EDGE = 0.01  # overhang, as a fraction of the image, that is clipped unreported as in Ultralytics
REACH = 0.5  # largest overhang, as a fraction of the image; beyond it the line is rejected
ABSENT = -0.005  # coordinate of an absent keypoint without visibility; Ultralytics allows -0.01
TRACKED = 7  # columns of a track in Ultralytics' save_txt; a triangle also has 7
TINY = 1e-6  # width or height below which an object has no area

LOST = frozenset({"malformed_line", "class_id", "wrong_form", "outside", "degenerate"})
SIXTH = "a sixth column of"  # beginning of the reason if it cannot be a confidence

Shape = Literal["box", "polygon", "pose"]


class LabelRow(NamedTuple):
    """One object: its class id and the normalised numbers that follow it."""

    cls: int
    values: tuple[float, ...]


class Issue(NamedTuple):
    """A problem or change of a line.

    `line` is 1-based, 0 for the whole file; `kind` is a key of `dataset.issues.HEADLINES`.
    """

    line: int
    kind: str
    reason: str


@dataclass(frozen=True)
class LabelFormat:
    """The format that label lines must have.

    Attributes:
        task: The task to train.
        classes: Number of classes.
        keypoints: Number of keypoints and numbers per keypoint (2 or 3); None without keypoints.
    """

    task: Task
    classes: int
    keypoints: tuple[int, int] | None = None


@dataclass(frozen=True)
class Parsed:
    """The parsed content of one label file.

    Attributes:
        rows: The usable objects, without duplicates.
        issues: Problems and changes.
        rewritten: The rows differ from the file's text, so training needs a new file.
        lines: Number of lines, without blank ones.
        shapes: Shape → number of usable lines.
    """

    rows: tuple[LabelRow, ...]
    issues: tuple[Issue, ...] = ()
    rewritten: bool = False
    lines: int = 0
    shapes: Counter[str] = field(default_factory=Counter)


class BadLine(ValueError):
    """A label line that cannot be used; `kind` is a key of `dataset.issues.HEADLINES`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def parse(data: bytes, label_format: LabelFormat) -> Parsed:
    """Parse the bytes of a label file. Lines that cannot be read become issues, not errors."""
    if len(data) > BIGGEST:
        return Parsed((), (Issue(0, "malformed_line", "the file is over 16 MiB"),), True, 1)
    text = data.decode("utf-8-sig", "replace")
    rows: list[LabelRow] = []
    issues: list[Issue] = []
    shapes: Counter[str] = Counter()
    changed = text.encode() != data or "\r" in text
    lines = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        lines += 1
        try:
            row, shape, notes = parse_line(line, label_format)
        except BadLine as error:
            issues.append(Issue(number, error.kind, str(error)))
            continue
        shapes[shape] += 1
        issues += [Issue(number, kind, reason) for kind, reason in notes]
        changed |= shape != _kept_shape(label_format.task)
        rows.append(row)
    unique = tuple(dict.fromkeys(rows))
    if len(unique) < len(rows):
        issues.append(Issue(0, "repeated_line", f"{len(rows) - len(unique)} repeated"))
    return Parsed(unique, tuple(issues), changed or bool(issues), lines, shapes)


def parse_line(
    line: str, label_format: LabelFormat
) -> tuple[LabelRow, Shape, list[tuple[str, str]]]:
    """Parse one line.

    Returns:
        The row in the shape of `label_format.task`; the shape that the line was written in;
        (kind, detail) of each change.

    Raises:
        BadLine: The line cannot be used.
    """
    values = _numbers(line)
    cls = values[0]
    if cls != int(cls):
        raise BadLine("malformed_line", f"class id {cls:g} is not a whole number")
    if not 0 <= cls < label_format.classes:
        raise BadLine(
            "class_id", f"class id {cls:g}, but the ids are 0 to {label_format.classes - 1}"
        )
    shape = _shape(len(values), values[-1], label_format)
    notes: list[tuple[str, str]] = []
    if shape == "box" and len(values) == 6:
        if not 0 <= values[5] <= 1:
            raise BadLine(
                "wrong_form",
                f"{SIXTH} {values[5]:g} is not a confidence (0 to 1); remove track ids from the "
                "lines, and write rotated boxes as their four corners",
            )
        notes.append(("confidence", f"{values[5]:g}"))
    if label_format.task == "detect" and shape != "box":
        notes.append((f"{shape}_as_box", f"{len(values)} columns"))
    if label_format.task == "pose":
        numbers = _pose(values, label_format, notes)
    elif label_format.task == "segment":
        numbers = _segment(values, shape, notes)
    elif shape == "polygon":
        numbers = _polygon_box(_clip_points(values[1:], notes))
    else:
        numbers = _clip_box(values[1:5], notes)
    return LabelRow(int(cls), tuple(numbers)), shape, notes


def as_text(rows: tuple[LabelRow, ...]) -> str:
    """The text of a label file with these rows."""
    return "".join(
        f"{row.cls} {' '.join(f'{value:.8g}' for value in row.values)}\n" for row in rows
    )


def shape_of(columns: int) -> Shape | None:
    """The shape of a line without keypoints from its number of columns; None if no shape fits."""
    if columns in (5, 6):
        return "box"
    return "polygon" if columns >= 7 and columns % 2 else None


def _kept_shape(task: Task) -> str:
    return {"detect": "box", "segment": "polygon", "pose": "pose"}.get(task, "")


def _numbers(line: str) -> list[float]:
    fields = line.split()
    try:
        values = [float(text) for text in fields]
    except ValueError:
        point = "; write numbers with a decimal point" if "," in line else ""
        reason = f"{line.strip()[:40]!r} does not consist of numbers only{point}"
        raise BadLine("malformed_line", reason) from None
    if "_" in line or not all(map(math.isfinite, values)):  # float() takes 1_0 and nan
        raise BadLine("malformed_line", f"{line.strip()[:40]!r} does not consist of numbers only")
    if len(values) < 5:
        raise BadLine("malformed_line", f"{len(values)} columns, but a box has 5")
    return values


def _shape(columns: int, last: float, label_format: LabelFormat) -> Shape:
    if (
        label_format.keypoints
        and columns == 5 + label_format.keypoints[0] * label_format.keypoints[1]
    ):
        return "pose"
    if label_format.task == "pose":
        count, size = label_format.keypoints or (0, 0)
        needed = 5 + count * size
        raise BadLine("wrong_form", f"{columns} columns, {count} keypoints need {needed}")
    shape = shape_of(columns)
    if columns == TRACKED and last >= 2 and last == int(last):
        raise BadLine(
            "wrong_form",
            f"7 columns that end in {last:g} seem to be a box with confidence and track id; "
            "remove these two columns",
        )
    if shape is None:
        raise BadLine("malformed_line", f"{columns} columns fit neither a box nor a polygon")
    return shape


def _segment(values: list[float], shape: Shape, notes: list[tuple[str, str]]) -> list[float]:
    if shape == "pose":
        raise BadLine("wrong_form", "a box with keypoints, not a polygon")
    if shape == "box":
        notes.append(("box_as_polygon", "a box"))
        x, y, w, h = _clip_box(values[1:5], notes)
        left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        return [left, top, right, top, right, bottom, left, bottom]
    points = _clip_points(values[1:], notes)
    _polygon_box(points)
    return points


def _pose(
    values: list[float], label_format: LabelFormat, notes: list[tuple[str, str]]
) -> list[float]:
    assert label_format.keypoints is not None
    numbers = _clip_box(values[1:5], notes)
    size = label_format.keypoints[1]
    for start in range(5, len(values), size):
        x, y, *visible = values[start : start + size]
        if visible and visible[0] not in (0, 1, 2):
            raise BadLine("malformed_line", f"keypoint visibility {visible[0]:g}, not 0, 1 or 2")
        if visible and not visible[0]:
            numbers += [0.0, 0.0, 0.0]  # absent keypoint: x, y, visibility 0
        elif not visible and (x < 0 or y < 0):
            numbers += [ABSENT, ABSENT]
        else:
            numbers += [*_clip_points([x, y], notes), *visible]
    return numbers


def _clip_box(box: list[float], notes: list[tuple[str, str]]) -> list[float]:
    x, y, w, h = box
    if w < TINY or h < TINY:
        raise BadLine("degenerate", f"a box of {w:g} × {h:g}")
    corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    left, top, right, bottom = _clip_points(corners, notes)
    if right - left < TINY or bottom - top < TINY:
        raise BadLine("outside", f"a box at {x:g}, {y:g}")
    if [left, top, right, bottom] == corners:
        return box
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def _clip_points(values: list[float], notes: list[tuple[str, str]]) -> list[float]:
    low, high = min(values), max(values)
    if low < -REACH or high > 1 + REACH:
        raise BadLine("outside", f"a coordinate of {low if low < -REACH else high:g}, not 0 to 1")
    if low < -EDGE or high > 1 + EDGE:
        notes.append(("clipped", f"{low if low < -EDGE else high:g}"))
    return values if low >= 0 and high <= 1 else [min(max(value, 0.0), 1.0) for value in values]


def _polygon_box(points: list[float]) -> list[float]:
    xs, ys = points[0::2], points[1::2]
    w, h = max(xs) - min(xs), max(ys) - min(ys)
    if w < TINY or h < TINY:
        raise BadLine("degenerate", f"a polygon of {w:g} × {h:g}")
    return [min(xs) + w / 2, min(ys) + h / 2, w, h]
