"""Compares two annotations of one image for equality up to rounding."""

from __future__ import annotations

from collections.abc import Iterator

from formats.annotations import Annotation, Annotations

TOLERANCE = 0.02  # pixels; formats round coordinates, as fractions, percentages or decimals


def are_equal(one: Annotations, other: Annotations) -> bool:
    """Whether both contain the same objects, in any order."""
    if len(one) != len(other):
        return False
    free = list(other.objects)
    for thing in one.objects:
        same = next((index for index, that in enumerate(free) if _same(thing, that)), None)
        if same is None:
            return False
        del free[same]
    return True


def _same(one: Annotation, other: Annotation) -> bool:
    if _form(one) != _form(other):
        return False
    pairs = zip(_numbers(one), _numbers(other), strict=True)
    return all(abs(a - b) <= TOLERANCE for a, b in pairs)


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
