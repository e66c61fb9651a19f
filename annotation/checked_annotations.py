"""Validates a person's annotations before they are stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from errors import ValidationFailed
from formats.annotations import SMALLEST, Annotation, AnnotationPart, Annotations, Keypoint, Ring
from formats.coordinates import are_fractions
from formats.geometry import clip
from models_store.description import Task

NO_AREA_IN_IMAGE = "without an area within the image"


def misfit(thing: Annotation, task: Task) -> str:
    """The reason why a dataset of a task cannot contain an object; empty if it can."""
    if task == "classify":
        return "with a position, in a classification dataset" if thing.bounds else ""
    if thing.bounds is None:
        return f"class of a whole image without a position, in a {task} dataset"
    if task != "pose" and thing.box is None and not thing.parts:
        return f"key points without a box or polygon, in a {task} dataset"
    return ""


def checked(found: Annotations, name: str, size: tuple[int, int]) -> Annotations:
    """A person's annotations, validated, clipped to the image, and without model scores.

    Args:
        found: The annotations as submitted, in pixels.
        name: The document that contains them, for messages.
        size: Width and height of the image in pixels.

    Raises:
        ValidationFailed: An object has no class, an infinite coordinate, or no area in the image;
            or the coordinates seem to be fractions.
    """
    refuse_fractions(found, name)
    objects = tuple(_object(thing, name, size) for thing in found.objects)
    return Annotations(found.image, *size, objects)


def refuse_fractions(found: Annotations, name: str) -> None:
    """Raises ValidationFailed if the coordinates are probably fractions of the image."""
    if are_fractions(found.objects):
        raise ValidationFailed(
            f"{name[:100]}: all objects lie within the first pixel, so their coordinates seem to "
            "be fractions of the image. Write them in pixels."
        )


def _object(thing: Annotation, name: str, size: tuple[int, int]) -> Annotation:
    if not thing.label.strip():
        raise ValidationFailed(f"{name[:100]}: an object has no class. Give it one, or remove it.")
    numbers = [
        *(thing.box or ()),
        *(v for part in thing.parts for r in (part.outline, *part.holes) for p in r for v in p),
        *(v for point in thing.keypoints for v in (point.x, point.y)),
    ]
    if not all(map(math.isfinite, numbers)):
        raise ValidationFailed(
            f"{name[:100]}: an object '{thing.label[:60]}' has a NaN or infinite coordinate. "
            "Correct or remove it."
        )
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
            f"{size[0]} × {size[1]} pixels{_place(thing)}. Remove it, or check the size that the "
            "document states."
        )
    return made


def _place(thing: Annotation) -> str:
    """The object's bounding box and its id in the annotation tool, as text for a message."""
    region = f" (region {thing.id[:40]!r})" if thing.id else ""
    return f": {', '.join(f'{value:g}' for value in thing.bounds or ())}{region}"


def _clipped(parts: Sequence[AnnotationPart], size: tuple[int, int]) -> tuple[AnnotationPart, ...]:
    """The polygon parts, clipped to the image."""
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
