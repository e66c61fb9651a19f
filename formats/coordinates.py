"""Whether a document's numbers are what its format means by them.

Converters write fractions where pixels belong, and two corners where a corner and a size belong.
Both can be read as boxes, of other places. No single box proves it; all of a document together do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from formats.annotations import Annotation, Box

SLACK = 0.02  # of a side, by which tools let a box reach over the edge
FEWEST = 3  # boxes that reach over it, to be no accident
SOME = 0.2  # of all boxes, likewise
NEAR = 0.01  # of an area, by which a rounded one differs


@dataclass(frozen=True)
class Stated:
    """A box as a document has it.

    Attributes:
        numbers: The four.
        over: Read as the format means them, they reach over the image's edge.
        size: Of the image in the same unit; 0, 0 where it is not known.
        area: That the document states besides.
    """

    numbers: Box
    over: bool = False
    size: tuple[float, float] = (1, 1)
    area: float | None = None


def are_corners(boxes: Sequence[Stated]) -> bool:
    """Whether they are all x1, y1, x2, y2, in a format that means a point, width and height.

    They are if each of them could be, and either the stated areas are those between such corners,
    or too many boxes reach over the edge otherwise.
    """
    if not boxes or not all(_could_be_corners(box) for box in boxes):
        return False
    as_sizes = sum(_is_area(box, box.numbers[2:]) for box in boxes)
    if as_sizes:
        return False
    between = sum(
        _is_area(box, (box.numbers[2] - box.numbers[0], box.numbers[3] - box.numbers[1]))
        for box in boxes
    )
    over = sum(box.over for box in boxes)
    return between == len(boxes) or (over >= FEWEST and over >= SOME * len(boxes))


def are_fractions(objects: Iterable[Annotation], unit: float = 1.0) -> bool:
    """Whether everything that is drawn lies within the first unit (a pixel, or what one percent
    is), and not in whole units."""
    drawn = [b for thing in objects if (b := thing.bounds) and b[0] < b[2] and b[1] < b[3]]
    numbers = [round(value / unit, 9) for bounds in drawn for value in bounds]
    if not numbers or min(numbers) < 0 or max(numbers) > 1:
        return False
    return any(value != int(value) for value in numbers)


def over_the_edge(bounds: Box, size: tuple[float, float]) -> float:
    """By how much of the image's side a box reaches over it."""
    (x1, y1, x2, y2), (w, h) = bounds, size
    return max(-x1 / w, -y1 / h, x2 / w - 1, y2 / h - 1, 0.0)


def _could_be_corners(box: Stated) -> bool:
    x1, y1, x2, y2 = box.numbers
    width, height = (side * (1 + SLACK) or float("inf") for side in box.size)
    return 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


def _is_area(box: Stated, sides: Sequence[float]) -> bool:
    if not box.area:
        return False
    return abs(sides[0] * sides[1] - box.area) <= NEAR * box.area
