"""Detects coordinates in the wrong convention: corners instead of sizes, fractions for pixels.

Faulty converters write fractions where a format needs pixels, or two corners where it needs a
point and a size. Both are valid boxes, but in the wrong place. A single box does not prove the
fault; all boxes of a document together do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from formats.annotations import Annotation, Box

SLACK = 0.02  # overhang, as a fraction of a side, that annotation tools produce
FEWEST = 3  # fewest overhanging boxes that show a wrong convention
SOME = 0.2  # smallest share of overhanging boxes that shows a wrong convention
NEAR = 0.01  # largest relative difference between a rounded area and the exact one


@dataclass(frozen=True)
class Stated:
    """A box as written in a document.

    Attributes:
        numbers: The four numbers of the box.
        over: Whether the box extends beyond the image when it is read as the format defines.
        size: Width and height of the image in the same unit; 0, 0 if unknown.
        area: The area that the document gives for the box, if any.
    """

    numbers: Box
    over: bool = False
    size: tuple[float, float] = (1, 1)
    area: float | None = None


def are_corners(boxes: Sequence[Stated]) -> bool:
    """Whether all boxes are x1, y1, x2, y2 although the format defines a point, width and height.

    True if the numbers of each box can be two corners and one of these holds: all boxes have an
    area, which is that of the rectangle between the corners; or too many boxes extend beyond the
    image when they are read as the format defines. False if an area equals width times height.
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
    """Whether the coordinates are probably fractions of the image.

    This is so if all are from 0 to `unit` and at least one is neither 0 nor `unit`. `unit` is the
    coordinate to which the number 1 was converted: 1 if the format has pixels, 0.01 of the image
    if it has percentages.
    """
    drawn = [b for thing in objects if (b := thing.bounds) and b[0] < b[2] and b[1] < b[3]]
    numbers = [round(value / unit, 9) for bounds in drawn for value in bounds]
    if not numbers or min(numbers) < 0 or max(numbers) > 1:
        return False
    return any(value != int(value) for value in numbers)


def over_the_edge(bounds: Box, size: tuple[float, float]) -> float:
    """The overhang of a box beyond the image, as a fraction of the image's side; 0 if inside."""
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
