"""Detects the shape of YOLO label lines from their numbers: box, polygon, oriented box or pose.

A label line does not declare its shape. Ten numbers after a class id are either a polygon of five
corners or a box with keypoints. The statistics of many lines decide which; if they are ambiguous,
an error asks the user to state it.
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

SAMPLE = 200  # maximum number of label files that are read
NEARLY_ALL = 0.95  # share of lines that counts as all of them
BOX = 5  # columns of a box: class id, centre, size
FEWEST_POINTS = 8  # columns of a box with one keypoint and its visibility
SOME = 0.2  # share of lines; fewer lines with an even number of columns are only reported
SLACK = 0.02  # fraction of the image by which a keypoint may lie outside its box
ORIENTED = 9  # columns of an oriented box: class id, four corners


@dataclass
class _Group:
    """Statistics of the lines that have the same number of columns."""

    first: str = ""  # file and line number of the first line
    lines: int = 0
    visibilities: int = 0  # lines whose every third number after the box is 0, 1 or 2
    twos: int = 0  # number of these with a 2, which cannot be a coordinate
    # Numbers per keypoint (2 or 3) → number of lines that fit a box with its keypoints inside
    boxed: dict[int, int] = field(default_factory=Counter)


@dataclass(frozen=True)
class LineStatistics:
    """Statistics of the lines of the first label files."""

    groups: dict[int, _Group]  # number of columns → its lines
    corners: bool = False  # boxes are written as x1 y1 x2 y2

    @property
    def lines(self) -> int:
        return sum(group.lines for group in self.groups.values())

    def task(self) -> Task:
        """Segment if there are more polygons than boxes, else detect."""
        shapes: Counter[str | None] = Counter()
        for columns, group in self.groups.items():
            shapes[shape_of(columns)] += group.lines
        return "segment" if shapes["polygon"] > shapes["box"] else "detect"

    def shapes_of_points(self) -> list[str]:
        """The values of kpt_shape that would fit the most frequent number of columns."""
        if not self.groups:
            return []
        columns = max(self.groups, key=lambda columns: self.groups[columns].lines)
        return _fitting(columns)


def scan(labels: Iterable[Path]) -> LineStatistics:
    """Statistics of the first label files.

    Lines that are not all numbers are skipped; parsing the labels reports them.
    """
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
    """Reject labels that have, or may have, keypoints although no kpt_shape is given.

    Raises:
        DatasetInvalid: The lines have keypoints; or they may have, and no task was given.
    """
    if statistics.corners:
        findings.note("coordinates", f"The boxes of the label files {CORNERS}", fatal=True)
    long = sum(group.lines for columns, group in statistics.groups.items() if columns > BOX + 1)
    for columns, group in sorted(statistics.groups.items()):
        nearly = NEARLY_ALL * group.lines
        if columns <= BOX + 1 or group.lines < NEARLY_ALL * long:
            continue  # polygons of many lengths; parsing reports invalid lines
        if columns % 2 == 0 and group.lines < SOME * statistics.lines:
            continue
        stated = group.visibilities >= nearly
        if stated and (columns % 2 == 0 or group.twos or group.boxed[3] >= nearly):
            raise DatasetInvalid(
                f"{group.lines} label lines with {columns} columns (the first: {group.first}) are "
                f"boxes with keypoints: every third number after the box is a visibility (0, 1 "
                f"or 2). Add kpt_shape: [{(columns - BOX) // 3}, 3] to data.yaml; with it, task "
                "detect can use their boxes."
            )
        if task is None and columns > BOX + 2 and group.boxed[2] >= nearly:
            raise DatasetInvalid(
                f"{group.lines} label lines with {columns} columns (the first: {group.first}) may "
                f"be polygons of {columns // 2} corners or boxes with keypoints. For keypoints add "
                f"kpt_shape to data.yaml: {' or '.join(_fitting(columns))}. For polygons give "
                "task=segment, or task=detect for their bounding boxes."
            )
    oriented = statistics.groups.get(ORIENTED)
    if oriented and oriented.lines >= NEARLY_ALL * statistics.lines and task in (None, "segment"):
        findings.note(
            "oriented",
            "The label lines have four corners each, as oriented boxes have. They are trained as "
            "polygons. For their axis-aligned bounding boxes give task=detect.",
        )


def without_keypoints(statistics: LineStatistics) -> str:
    """The error message for task pose without kpt_shape in data.yaml."""
    fitting = statistics.shapes_of_points()
    columns = max(statistics.groups, key=lambda c: statistics.groups[c].lines) if fitting else 0
    guess = f" Lines of {columns} columns would fit {' or '.join(fitting)}." if fitting else ""
    return (
        "Task pose needs kpt_shape in data.yaml, [number of keypoints, 2 or 3 numbers each]."
        f"{guess}"
    )


def _fitting(columns: int) -> list[str]:
    rest = columns - BOX
    return [f"[{rest // size}, {size}]" for size in (3, 2) if rest > 0 and rest % size == 0]


def _is_boxed(values: Sequence[float], size: int) -> bool:
    """Whether a line fits a box with keypoints of `size` numbers each.

    The box must be inside the image, and the keypoints inside the box; they must span at least
    half of its width or height.
    """
    x, y, w, h = values[1:BOX]
    left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if min(left, top) < -SLACK or max(right, bottom) > 1 + SLACK or w <= 0 or h <= 0:
        return False
    points = [tuple(values[i : i + 2]) for i in range(BOX, len(values), size)]
    present = [point for point in points if point != (0, 0)]  # absent keypoints are written 0 0
    if not present:
        return False
    xs, ys = [point[0] for point in present], [point[1] for point in present]
    inside = (
        min(xs) >= left - SLACK
        and max(xs) <= right + SLACK
        and min(ys) >= top - SLACK
        and max(ys) <= bottom + SLACK
    )
    filled = max((max(xs) - min(xs)) / w, (max(ys) - min(ys)) / h)
    return inside and (filled >= 0.5 or len(present) == 1)


def _rows(labels: Iterable[Path]) -> Iterator[tuple[Path, int, list[float]]]:
    """File, 1-based line number and numbers of each numeric line in the first label files."""
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
