"""YOLO label files: one object a line, `class` and numbers that are fractions of the image.

A box is `class x y w h` (centre and size), a polygon `class x1 y1 x2 y2 …`, a pose a box and then
`x y` or `x y visibility` per key point. What people's files hold besides is read as far as its
meaning is certain, and told.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from models_store.description import Task

BIGGEST = 16 * 2**20  # bytes of one label file
EDGE = 0.01  # how far over the edge is nothing worth telling; Ultralytics allows as much
REACH = 0.5  # how far over the edge an object may reach before it is nonsense
ABSENT = -0.005  # a key point without visibility; Ultralytics refuses below -0.01
TRACKED = 7  # columns that Ultralytics' save_txt writes for a track; a triangle has as many
TINY = 1e-6  # width or height that is none

LOST = frozenset({"malformed_line", "class_id", "wrong_form", "outside", "degenerate"})
SIXTH = "a sixth column of"  # how the reason begins, where it is no confidence

Shape = Literal["box", "polygon", "pose"]


class LabelRow(NamedTuple):
    """One object: class id, and the numbers that follow it."""

    cls: int
    values: tuple[float, ...]


class Issue(NamedTuple):
    """What was wrong or changed in a line (1-based); `kind` is one of `findings.HEADLINES`."""

    line: int
    kind: str
    reason: str


@dataclass(frozen=True)
class LabelFormat:
    """What the lines must be."""

    task: Task
    classes: int
    keypoints: tuple[int, int] | None = None  # how many, numbers each


@dataclass(frozen=True)
class Parsed:
    """The usable rows of one file. `rewritten` if its text differs from what was meant."""

    rows: tuple[LabelRow, ...]
    issues: tuple[Issue, ...] = ()
    rewritten: bool = False
    lines: int = 0
    shapes: Counter[str] = field(default_factory=Counter)


class BadLine(ValueError):
    """A line that cannot be used."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def parse(data: bytes, label_format: LabelFormat) -> Parsed:
    """Read the bytes of a label file. Never raises: what cannot be read becomes an issue."""
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
    """One line as a row of `form`, the shape it was written in, and what was changed.

    Raises:
        BadLine: It cannot be used.
    """
    values = _numbers(line)
    cls = values[0]
    if cls != int(cls):
        raise BadLine("malformed_line", f"class id {cls:g} is no whole number")
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
                f"{SIXTH} {values[5]:g} is no confidence of 0 to 1; remove a track's id "
                "from the lines, and write boxes with an angle as their four corners",
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
    """The rows as a label file."""
    return "".join(
        f"{row.cls} {' '.join(f'{value:.8g}' for value in row.values)}\n" for row in rows
    )


def shape_of(columns: int) -> Shape | None:
    """What a line of so many columns is without knowing about key points."""
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
        point = ": decimals are written with a point" if "," in line else ""
        reason = f"{line.strip()[:40]!r} is not all numbers{point}"
        raise BadLine("malformed_line", reason) from None
    if "_" in line or not all(map(math.isfinite, values)):  # float() takes 1_0 and nan
        raise BadLine("malformed_line", f"{line.strip()[:40]!r} is not all numbers")
    if len(values) < 5:
        raise BadLine("malformed_line", f"{len(values)} columns, a box has 5")
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
        raise BadLine("wrong_form", f"{columns} columns, {count} key points need {needed}")
    shape = shape_of(columns)
    if columns == TRACKED and last >= 2 and last == int(last):
        raise BadLine(
            "wrong_form",
            f"7 columns that end in {last:g} are a box with confidence and a track's id: remove "
            "these two",
        )
    if shape is None:
        raise BadLine("malformed_line", f"{columns} columns are neither a box nor a polygon")
    return shape


def _segment(values: list[float], shape: Shape, notes: list[tuple[str, str]]) -> list[float]:
    if shape == "pose":
        raise BadLine("wrong_form", "a box with key points is no polygon")
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
            raise BadLine("malformed_line", f"visibility {visible[0]:g} of a key point, not 0 to 2")
        if visible and not visible[0]:
            numbers += [0.0, 0.0, 0.0]  # not in the image; what stood here has no meaning
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
