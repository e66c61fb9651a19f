"""Writes predictions as X-AnyLabeling shapes for its remote-server client (tested with 4.2.1).

Coordinates are in pixels. A rectangle has four corners; parts and keypoints of an object share a
`group_id`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from formats.annotations import OCCLUDED, Annotation, Annotations, Point, Ring
from formats.geometry import bridge

Shape = dict[str, Any]


def to_shapes(found: Annotations) -> list[Shape]:
    """The shapes of a prediction. Classes of the image have no shape, see `description`."""
    shapes: list[Shape] = []
    for number, thing in enumerate(found.objects, 1):
        shapes += _shapes(thing, number)
    return shapes


def description(found: Annotations) -> str:
    """The classes of the image with their scores, as one text."""
    whole = (thing for thing in found.objects if thing.bounds is None)
    return ", ".join(
        thing.label if thing.score is None else f"{thing.label} ({thing.score:.2f})"
        for thing in whole
    )


def _shapes(thing: Annotation, number: int) -> list[Shape]:
    rings = [_opened(bridge((part.outline, *part.holes))) for part in thing.parts]
    group = number if len(rings) > 1 or thing.keypoints else None
    shapes = [_shape(thing.label, "polygon", ring, thing.score, group) for ring in rings]
    if not rings and thing.box is not None:
        x1, y1, x2, y2 = thing.box
        corners = (x1, y1), (x2, y1), (x2, y2), (x1, y2)
        shapes.append(_shape(thing.label, "rectangle", corners, thing.score, group))
    for point in thing.keypoints:
        if point.visibility:
            score = thing.score if point.score is None else point.score
            shape = _shape(point.name, "point", ((point.x, point.y),), score, group)
            shapes.append(shape | {"difficult": point.visibility == OCCLUDED})
    return shapes


def _opened(points: Ring) -> Ring:
    """The ring rotated to begin at a vertex that occurs once.

    The client ends a shape where its first vertex occurs again.
    """
    counts = Counter(points)
    start = next((i for i, point in enumerate(points) if counts[point] == 1), 0)
    return (*points[start:], *points[:start])


def _shape(
    label: str, kind: str, points: Sequence[Point], score: float | None, group: int | None
) -> Shape:
    return {
        "label": label,
        "shape_type": kind,
        "points": [[x, y] for x, y in points],
        "score": score,
        "group_id": group,
        "attributes": {},
        "description": None,
        "difficult": False,
        "direction": 0,
        "flags": None,
        "kie_linking": [],
    }
