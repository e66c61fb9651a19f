"""Compares two annotations of one image for equality up to rounding."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from formats.annotations import Annotation, Annotations

TOLERANCE = 0.02  # pixels; formats round coordinates, as fractions, percentages or decimals


def are_equal(one: Annotations, other: Annotations) -> bool:
    """Whether both contain the same objects, in any order."""
    if len(one) != len(other):
        return False
    # Each object is compared with those of its form that begin at the same coordinate: an image
    # may have thousands.
    free: defaultdict[tuple[object, ...], list[tuple[float, ...]]] = defaultdict(list)
    for thing in other.objects:
        free[_form(thing)].append(tuple(_numbers(thing)))
    for numbers in free.values():
        numbers.sort()
    return all(_taken(free[_form(thing)], tuple(_numbers(thing))) for thing in one.objects)


def _taken(free: list[tuple[float, ...]], numbers: tuple[float, ...]) -> bool:
    """Remove equal numbers from a sorted list. Returns whether there were any."""
    start = bisect_left(free, numbers[0] - TOLERANCE, key=lambda that: that[0]) if numbers else 0
    for index in range(start, len(free)):
        that = free[index]
        if numbers and that[0] > numbers[0] + TOLERANCE:
            return False
        if all(abs(a - b) <= TOLERANCE for a, b in zip(numbers, that, strict=True)):
            del free[index]
            return True
    return False


def _form(thing: Annotation) -> tuple[object, ...]:
    """A key of all properties that must be equal exactly; of coordinates, only their number."""
    rings = [(len(part.outline), *map(len, part.holes)) for part in thing.parts]
    points = [(point.name, point.visibility) for point in thing.keypoints]
    return thing.label, thing.box is None, tuple(rings), tuple(points)


def _numbers(thing: Annotation) -> Iterator[float]:
    yield from thing.box or ()
    for part in thing.parts:
        for ring in (part.outline, *part.holes):
            for point in ring:
                yield from point
    for keypoint in thing.keypoints:
        if keypoint.visibility:
            yield from (keypoint.x, keypoint.y)
