"""LabelMe's JSON: shapes in pixels.

`rectangle`, `polygon` and `point`; several shapes of one object share a `group_id`. A key
point's label is its name; `occluded` is a flag of it, and an absent one is not written. Holes are
bridged into their part's ring. Classes of the picture are its `flags`. `score` is a key of ours
that LabelMe keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from errors import ValidationFailed
from inference.annotations import (
    OCCLUDED,
    VISIBLE,
    Annotation,
    Annotations,
    Keypoint,
    in_order,
    ring,
)
from inference.polygons import bridge, unbridge

Json = dict[str, Any]

VERSION = "5.5.0"
TYPES = ("rectangle", "polygon", "point")
FLAG = "occluded"


def to_labelme(found: Annotations) -> Json:
    """The document of one picture; the picture itself is not inside."""
    shapes: list[Json] = []
    flags: dict[str, bool] = {}
    for number, annotation in enumerate(found.objects, 1):
        mine = _shapes(annotation)
        if not mine:
            flags[annotation.label] = True
        group = {"group_id": number if len(mine) > 1 else None}
        shapes += [shape | group for shape in mine]
    return {
        "version": VERSION,
        "flags": flags,
        "shapes": shapes,
        "imagePath": found.image,
        "imageData": None,
        "imageHeight": found.height,
        "imageWidth": found.width,
    }


def from_labelme(document: Mapping[str, Any], keypoint_names: Sequence[str] = ()) -> Annotations:
    """What a document says.

    In a group, points are the key points of its first other shape, and polygons with one label
    are one object's parts. A point without group is an object with its own name as class.

    Raises:
        ValidationFailed: A shape of another type, or a document without shapes or size.
    """
    try:
        size = int(document["imageWidth"]), int(document["imageHeight"])
        read = [(shape.get("group_id"), _annotation(shape)) for shape in document["shapes"]]
        flags = document.get("flags") or {}
        image = str(document.get("imagePath") or "")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValidationFailed(
            "This is no LabelMe document: 'imageWidth', 'imageHeight' and 'shapes' are needed."
        ) from None
    roots: list[tuple[Any, Annotation]] = []
    points: list[tuple[Any, Annotation]] = []
    for group, shape in read:
        if shape.keypoints:
            points.append((group, shape))
            continue
        same = _place(roots, group, shape) if shape.parts else None
        if same is None:
            roots.append((group, shape))
        else:
            whole = roots[same][1]
            roots[same] = group, replace(whole, parts=whole.parts + shape.parts)
    for group, point in points:
        place = _place(roots, group, None)
        if place is None:
            roots.append((None, point))
        else:
            whole = roots[place][1]
            roots[place] = group, replace(whole, keypoints=whole.keypoints + point.keypoints)
    objects = [
        replace(o, keypoints=in_order(o.keypoints, keypoint_names)) if o.keypoints else o
        for _, o in roots
    ]
    objects += [Annotation(str(label)) for label, on in flags.items() if on is True]
    return Annotations(image, *size, tuple(objects))


def _place(
    roots: Sequence[tuple[Any, Annotation]], group: Any, part: Annotation | None
) -> int | None:
    """Which object of the group a shape belongs to: a part to one with its label."""
    if group is None:
        return None
    for index, (other, whole) in enumerate(roots):
        if other == group and (part is None or (whole.parts and whole.label == part.label)):
            return index
    return None


def _shapes(annotation: Annotation) -> list[Json]:
    made: list[Json] = []
    if annotation.parts:
        for part in annotation.parts:
            points = bridge((part.outline, *part.holes))
            made.append(_shape("polygon", annotation.label, points, annotation.score))
    elif annotation.box is not None:
        x1, y1, x2, y2 = annotation.box
        corners = ((x1, y1), (x2, y2))
        made.append(_shape("rectangle", annotation.label, corners, annotation.score))
    for point in annotation.keypoints:
        if point.visibility:
            shape = _shape("point", point.name, ((point.x, point.y),), point.score)
            shape["flags"] = {FLAG: True} if point.visibility == OCCLUDED else {}
            made.append(shape)
    return made


def _shape(
    kind: str, label: str, points: Sequence[tuple[float, float]], score: float | None
) -> Json:
    shape: Json = {
        "label": label,
        "points": [list(point) for point in points],
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }
    return shape if score is None else shape | {"score": score}


def _annotation(shape: Mapping[str, Any]) -> Annotation:
    kind = shape["shape_type"]
    if kind not in TYPES:
        raise ValidationFailed(
            f"LabelMe's {kind!r:.60} shapes are not read. Allowed: {', '.join(TYPES)}."
        )
    points = ring(shape["points"])
    score = float(shape["score"]) if shape.get("score") is not None else None
    made = Annotation(str(shape["label"]), score=score)
    if kind == "point":
        ((x, y),) = points
        visibility = OCCLUDED if (shape.get("flags") or {}).get(FLAG) else VISIBLE
        return replace(made, keypoints=(Keypoint(made.label, x, y, visibility, score),))
    if kind == "rectangle":
        xs, ys = zip(*points, strict=True)  # two corners, or all four
        return replace(made, box=(min(xs), min(ys), max(xs), max(ys)))
    if len(points) < 3:
        raise ValidationFailed(f"A polygon {made.label!r:.60} has {len(points)} corners.")
    return replace(made, parts=unbridge(points))
