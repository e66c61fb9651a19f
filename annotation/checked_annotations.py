"""A person's marks as they are stored: within the image, with an area, without scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from errors import ValidationFailed
from formats.annotations import SMALLEST, Annotation, AnnotationPart, Annotations, Keypoint, Ring
from formats.coordinates import are_fractions
from formats.geometry import clip
from models_store.description import Task

NO_PLACE = "without an area within the image"


def unfit(thing: Annotation, task: Task) -> str:
    """Why a data set of a task cannot hold an object; empty: it can."""
    if task == "classify":
        return "drawn in an image, in a data set of classes of images" if thing.bounds else ""
    if thing.bounds is None:
        return f"class of a whole image, in a {task} data set"
    if task != "pose" and thing.box is None and not thing.parts:
        return f"key points alone, in a {task} data set"
    return ""


def checked(found: Annotations, name: str, size: tuple[int, int]) -> Annotations:
    """A person's marks, within the image, without the scores of the model that made them.

    Args:
        found: As they were sent.
        name: Where they stand, for messages.
        size: Width and height of the image.

    Raises:
        ValidationFailed: An object has no class, no finite place, or no area in the image; all
            are within its first pixel.
    """
    refuse_fractions(found, name)
    objects = tuple(_object(thing, name, size) for thing in found.objects)
    return Annotations(found.image, *size, objects)


def refuse_fractions(found: Annotations, name: str) -> None:
    """Raises ValidationFailed: they seem to be fractions of the image, and not pixels."""
    if are_fractions(found.objects):
        raise ValidationFailed(
            f"{name[:100]}: all that is marked lies within the first pixel, so its coordinates "
            "seem to be fractions of the image. Write them in pixels."
        )


def _object(thing: Annotation, name: str, size: tuple[int, int]) -> Annotation:
    if not thing.label.strip():
        raise ValidationFailed(f"{name[:100]}: an object has no class.")
    numbers = [
        *(thing.box or ()),
        *(v for part in thing.parts for r in (part.outline, *part.holes) for p in r for v in p),
        *(v for point in thing.keypoints for v in (point.x, point.y)),
    ]
    if not all(map(math.isfinite, numbers)):
        raise ValidationFailed(f"{name[:100]}: an object '{thing.label[:60]}' is nowhere: NaN.")
    box = None
    if thing.box is not None:
        x1, y1, x2, y2 = thing.box
        box = (*_inside((x1, y1), size), *_inside((x2, y2), size))
    made = replace(
        thing,
        box=box,
        parts=_clipped(thing.parts, size),
        keypoints=tuple(_point(point, size) for point in thing.keypoints),
        score=None,
    )
    bounds = made.bounds if made.box or thing.parts else None
    lost = thing.parts and not made.parts
    if lost or (bounds and min(bounds[2] - bounds[0], bounds[3] - bounds[1]) < SMALLEST):
        raise ValidationFailed(
            f"{name[:100]}: an object '{thing.label[:60]}' has no area within the image of "
            f"{size[0]} × {size[1]} pixels{_place(thing)}."
        )
    return made


def _place(thing: Annotation) -> str:
    """Which object it is: by the tool's id, and where it lies."""
    known = f" (region {thing.id[:40]!r})" if thing.id else ""
    return f": {', '.join(f'{value:g}' for value in thing.bounds or ())}{known}"


def _clipped(parts: Sequence[AnnotationPart], size: tuple[int, int]) -> tuple[AnnotationPart, ...]:
    """What of them lies in the image."""
    kept = []
    for part in parts:
        if outline := _clip(part.outline, size):
            holes = (_clip(hole, size) for hole in part.holes)
            kept.append(AnnotationPart(outline, tuple(hole for hole in holes if hole)))
    return tuple(kept)


def _clip(ring: Ring, size: tuple[int, int]) -> Ring:
    if all(0 <= x <= size[0] and 0 <= y <= size[1] for x, y in ring):
        return ring
    return clip(ring, *size)


def _point(point: Keypoint, size: tuple[int, int]) -> Keypoint:
    x, y = _inside((point.x, point.y), size)
    return replace(point, x=x, y=y, score=None)


def _inside(point: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
    return min(max(point[0], 0.0), size[0]), min(max(point[1], 0.0), size[1])
