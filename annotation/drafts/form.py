"""The form in which the console draws and sends an image's objects.

It mirrors `formats.annotations.Annotation`. Every object of an image has an id of its own there,
because the console tells its shapes apart by their ids; tools' ids may be missing or occur twice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Literal

from annotation.confidence_bands import Bands
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint, Ring, ring

ShapeSource = Literal["model", "person"]

NOTHING = "none"  # `base_of` an image that neither a person nor an upload has annotated
ADDED = re.compile(r"#[0-9]+\Z")  # what `to_shapes` adds to the id of an object


def to_shapes(
    found: Annotations, source: ShapeSource, by: str, bands: Bands | None = None
) -> list[dict[str, Any]]:
    """The objects of an image as the console draws them.

    Args:
        found: The annotations.
        source: Whether a model or a person made them.
        by: Its id, or the person's name.
        bands: The confidence bands of a model's objects.
    """
    shapes: list[dict[str, Any]] = []
    used: set[str] = set()
    for number, thing in enumerate(found.objects):
        name = thing.id
        if not name or name in used or ADDED.search(name):
            name = f"{name}#{number}"
        used.add(name)
        shapes.append(
            {
                "id": name,
                "label": thing.label,
                "box": list(map(float, thing.box)) if thing.box is not None else None,
                "parts": [
                    {"outline": _pairs(part.outline), "holes": [_pairs(h) for h in part.holes]}
                    for part in thing.parts
                ],
                "keypoints": [
                    {"name": p.name, "x": float(p.x), "y": float(p.y), "visibility": p.visibility}
                    for p in thing.keypoints
                ],
                "source": source,
                "by": by,
                "score": thing.score,
                "band": bands.of(thing.score) if bands and thing.score is not None else None,
            }
        )
    return shapes


def from_shapes(shapes: Iterable[Mapping[str, Any]]) -> tuple[Annotation, ...]:
    """The objects that the console sent. Scores of models are left out: a person sent them."""
    return tuple(
        Annotation(
            label=str(shape["label"]),
            box=_box(shape["box"]),
            parts=tuple(
                AnnotationPart(ring(part["outline"]), tuple(ring(h) for h in part["holes"]))
                for part in shape["parts"]
            ),
            keypoints=tuple(Keypoint(**point) for point in shape["keypoints"]),
            id=ADDED.sub("", str(shape["id"])),
        )
        for shape in shapes
    )


def base_of(found: Annotations | None) -> str:
    """Names the annotations that a draft was drawn on: equal ones have the same name.

    Args:
        found: The annotations by a person or of the upload; None if there are none.
    """
    if found is None:
        return NOTHING
    shapes = json.dumps(to_shapes(found, "person", ""), sort_keys=True)
    return sha256(shapes.encode()).hexdigest()[:32]


def as_stored(drawn: Sequence[Annotation], stored: Annotations | None) -> tuple[Annotation, ...]:
    """The drawn objects; those that were not changed exactly as they are stored."""
    known = {_key(thing): thing for thing in (stored.objects if stored is not None else ())}
    return tuple(known.get(_key(thing), thing) for thing in drawn)


def split_stored(
    drawn: Iterable[Annotation], stored: Annotations | None
) -> tuple[list[Annotation], list[Annotation]]:
    """The drawn objects that are stored exactly so, and those that are new or changed."""
    known = {_key(thing) for thing in (stored.objects if stored is not None else ())}
    same: list[Annotation] = []
    changed: list[Annotation] = []
    for thing in drawn:
        (same if _key(thing) in known else changed).append(thing)
    return same, changed


def are_same(one: Iterable[Annotation], other: Iterable[Annotation]) -> bool:
    """Whether both are the same objects, in any order."""
    return Counter(map(_key, one)) == Counter(map(_key, other))


def _key(thing: Annotation) -> Annotation:
    """The object without what the console's form does not hold."""
    points = tuple(replace(point, score=None) for point in thing.keypoints)
    return replace(thing, score=None, keypoints=points)


def _pairs(points: Ring) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in points]


def _box(values: Sequence[float] | None) -> tuple[float, float, float, float] | None:
    if values is None:
        return None
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2
