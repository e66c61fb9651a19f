"""What label lines are, told from their numbers: boxes, polygons, oriented boxes or key points.

A line does not say its form. Eleven numbers after a class are five points of a polygon and a bit,
or a box with key points: which it is, is seen by many lines together, and asked where it is not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dataset.documents.yolo_labels import CORNERS, box_of
from dataset.issues import Findings
from dataset.label_files import shape_of
from errors import DatasetInvalid
from formats.coordinates import Stated, are_corners
from models_store.description import Task

SAMPLE = 200  # label files that are looked into
NEARLY_ALL = 0.95
BOX = 5  # columns: class, centre, size
FEWEST_POINTS = 8  # columns of a box with one key point and its visibility
SOME = 0.2  # of the lines: those of no form are left out while they are fewer
SLACK = 0.02  # of the image, by which a key point may leave its box
ORIENTED = 9  # columns of an oriented box


@dataclass
class _Group:
    """Lines of one number of columns."""

    first: str = ""
    lines: int = 0
    visibilities: int = 0  # lines whose every third number can only be a visibility: 0, 1 or 2
    twos: int = 0  # of these, with a 2, which no coordinate is
    boxed: dict[int, int] = field(default_factory=Counter)  # numbers a point → its points in a box


@dataclass(frozen=True)
class LineStatistics:
    """The lines of the first label files, by their columns."""

    groups: dict[int, _Group]
    corners: bool = False  # boxes are written as x1 y1 x2 y2

    @property
    def lines(self) -> int:
        return sum(group.lines for group in self.groups.values())

    def task(self) -> Task:
        """Segment where polygons prevail, else detect."""
        shapes: Counter[str | None] = Counter()
        for columns, group in self.groups.items():
            shapes[shape_of(columns)] += group.lines
        return "segment" if shapes["polygon"] > shapes["box"] else "detect"

    def shapes_of_points(self) -> list[str]:
        """The values of kpt_shape that would fit the commonest line."""
        if not self.groups:
            return []
        columns = max(self.groups, key=lambda columns: self.groups[columns].lines)
        return _fitting(columns)


def scan(labels: Iterable[Path]) -> LineStatistics:
    """Read the first label files. What is no line of numbers is passed over: it is told later."""
    groups: dict[int, _Group] = {}
    boxes: list[Stated] = []
    for label, number, values in _rows(labels):
        boxes += box_of(values)
        group = groups.setdefault(len(values), _Group(f"{label.name} line {number}"))
        group.lines += 1
        if len(values) < FEWEST_POINTS - 1:
            continue
        for size in (2, 3):
            if (len(values) - BOX) % size == 0:
                group.boxed[size] += _is_boxed(values, size)
        if (len(values) - BOX) % 3 == 0:
            visible = values[BOX + 2 :: 3]
            if all(value in (0, 1, 2) for value in visible):
                group.visibilities += 1
                group.twos += 2 in visible
    return LineStatistics(groups, are_corners(boxes))


def require_stated(statistics: LineStatistics, task: Task | None, findings: Findings) -> None:
    """Refuse lines that are, or may be, key points where nothing says how many there are.

    Raises:
        DatasetInvalid: They are key points; or they may be, and no task was given.
    """
    if statistics.corners:
        findings.note("coordinates", f"The boxes of the label files {CORNERS}", fatal=True)
    long = sum(group.lines for columns, group in statistics.groups.items() if columns > BOX + 1)
    for columns, group in sorted(statistics.groups.items()):
        nearly = NEARLY_ALL * group.lines
        if columns <= BOX + 1 or group.lines < NEARLY_ALL * long:
            continue  # polygons of many lengths; what fits none of the forms is told line by line
        if columns % 2 == 0 and group.lines < SOME * statistics.lines:
            continue
        stated = group.visibilities >= nearly
        if stated and (columns % 2 == 0 or group.twos or group.boxed[3] >= nearly):
            raise DatasetInvalid(
                f"{group.lines} label lines of {columns} columns (the first: {group.first}) are "
                f"boxes with key points: every third number after the box is a visibility, 0, 1 "
                f"or 2. Add kpt_shape: [{(columns - BOX) // 3}, 3] to data.yaml; task detect then "
                "takes their boxes."
            )
        if task is None and columns > BOX + 2 and group.boxed[2] >= nearly:
            raise DatasetInvalid(
                f"{group.lines} label lines of {columns} columns (the first: {group.first}) may be "
                f"polygons of {columns // 2} corners, or boxes with key points. For key points add "
                f"kpt_shape to data.yaml: {' or '.join(_fitting(columns))}. For polygons give "
                "task=segment, or task=detect for the boxes around them."
            )
    oriented = statistics.groups.get(ORIENTED)
    if oriented and oriented.lines >= NEARLY_ALL * statistics.lines and task in (None, "segment"):
        findings.note(
            "oriented",
            "The label lines have four corners each, as oriented boxes have: they are trained as "
            "polygons. For the upright boxes around them give task=detect.",
        )


def without_keypoints(statistics: LineStatistics) -> str:
    """What to say about pose labels whose yaml has no kpt_shape."""
    fitting = statistics.shapes_of_points()
    columns = max(statistics.groups, key=lambda c: statistics.groups[c].lines) if fitting else 0
    guess = f" Lines of {columns} columns would fit {' or '.join(fitting)}." if fitting else ""
    return (
        "Task pose needs kpt_shape in data.yaml: [how many key points, 2 or 3 numbers each]."
        f"{guess}"
    )


def _fitting(columns: int) -> list[str]:
    rest = columns - BOX
    return [f"[{rest // size}, {size}]" for size in (3, 2) if rest > 0 and rest % size == 0]


def _is_boxed(values: Sequence[float], size: int) -> bool:
    """Whether the first four numbers are a box within the image that the points behind it lie
    in and fill by half, as key points do."""
    x, y, w, h = values[1:BOX]
    left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if min(left, top) < -SLACK or max(right, bottom) > 1 + SLACK or w <= 0 or h <= 0:
        return False
    points = [tuple(values[i : i + 2]) for i in range(BOX, len(values), size)]
    there = [point for point in points if point != (0, 0)]  # so are absent ones written
    if not there:
        return False
    xs, ys = [point[0] for point in there], [point[1] for point in there]
    inside = (
        min(xs) >= left - SLACK
        and max(xs) <= right + SLACK
        and min(ys) >= top - SLACK
        and max(ys) <= bottom + SLACK
    )
    filled = max((max(xs) - min(xs)) / w, (max(ys) - min(ys)) / h)
    return inside and (filled >= 0.5 or len(there) == 1)


def _rows(labels: Iterable[Path]) -> Iterator[tuple[Path, int, list[float]]]:
    for label in islice(labels, SAMPLE):
        with label.open("rb") as file:
            lines = file.read(2**20).splitlines()
        for number, line in enumerate(lines, 1):
            try:
                values = [float(text) for text in line.split()]
            except ValueError:
                continue
            if values and all(map(math.isfinite, values)):
                yield label, number, values
