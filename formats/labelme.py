"""Reads and writes LabelMe JSON: one document per image, shapes in pixels.

The writer uses `rectangle`, `polygon` and `point`; several shapes of one object share a
`group_id`. A keypoint's label is its name and `occluded` is one of its flags; absent keypoints are
not written. Holes are bridged into their part's ring. Classes of the image are its `flags`.
`score` is an additional key that LabelMe preserves.

The reader also reads, as polygons, `circle` (centre and a point on it), `mask` (a PNG) and rotated
rectangles. Shape types are read in any case. A shape without a type is a polygon, as in LabelMe.
Lines and point sets have no area; they are skipped and counted.
"""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from errors import ValidationFailed
from formats.annotations import (
    OCCLUDED,
    VISIBLE,
    Annotation,
    AnnotationPart,
    Annotations,
    Keypoint,
    Ring,
    in_order,
    is_place,
    ring,
    with_area,
)
from formats.geometry import MOST_PIXELS, bridge, ellipse, outlines, unbridge
from models_store.ultralytics_env import pillow_open

Json = dict[str, Any]

VERSION = "5.5.0"
POLYGONS = frozenset(["polygon", "oriented_rectangle", "rotation", "quadrilateral"])
TYPES = ("rectangle", "circle", "mask", "point", *sorted(POLYGONS))
PASSED_OVER = {
    "line": "LabelMe lines",
    "linestrip": "LabelMe line strips",
    "points": "LabelMe point sets",
}
FLAG = "occluded"


def to_labelme(found: Annotations) -> Json:
    """Writes the document of one image, without the image's data."""
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


def from_labelme(
    document: Mapping[str, Any],
    keypoint_names: Sequence[str] = (),
    *,
    skipped: Counter[str] | None = None,
) -> Annotations:
    """Parses a LabelMe document into `Annotations`.

    In a group, points are the keypoints of its first other shape, and polygons of the same label
    are parts of one object. A point without a group is an object whose class is the point's label.
    The image's width and height are 0 if the document does not give them.

    Args:
        document: The document of one image.
        keypoint_names: Order of the keypoints; missing ones become absent.
        skipped: Receives reason → number of skipped shapes.

    Raises:
        ValidationFailed: It is not a LabelMe document, or a shape cannot be read; the message
            names it.
    """
    shapes = document.get("shapes") if isinstance(document, Mapping) else None
    if not isinstance(shapes, list) or not all(isinstance(one, Mapping) for one in shapes):
        raise ValidationFailed(
            "This is not a LabelMe document: it needs 'shapes', a list of objects."
        )
    size = _size(document)
    image = str(document.get("imagePath") or "")
    flags = document.get("flags") or {}
    if not isinstance(flags, Mapping):
        raise ValidationFailed("'flags' of a LabelMe document must be an object: class → true.")
    passed: Counter[str] = Counter()
    read: list[tuple[Any, Annotation]] = []
    for number, shape in enumerate(shapes, 1):
        kind = str(shape.get("shape_type") or "polygon").strip().lower()
        if kind in PASSED_OVER:
            passed[PASSED_OVER[kind]] += 1
        else:
            read.append((shape.get("group_id"), _annotation(shape, kind, number)))
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
    placed = with_area(objects, passed)
    if skipped is not None:
        skipped.update(passed)
    classes = (Annotation(str(label)) for label, on in flags.items() if on is True)
    return Annotations(image, *size, (*placed, *classes))


def _place(
    roots: Sequence[tuple[Any, Annotation]], group: Any, part: Annotation | None
) -> int | None:
    """The index of the object in `roots` that a shape of a group belongs to; None if none does. A
    polygon part belongs to an object with its label."""
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


def _size(document: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height in pixels; 0, 0 if they are not given."""
    given = document.get("imageWidth"), document.get("imageHeight")
    if not any(given):
        return 0, 0
    for value in given:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            break
        if not math.isfinite(value) or value != int(value):
            break
    else:
        return int(given[0] or 0), int(given[1] or 0)
    raise ValidationFailed(
        f"'imageWidth' and 'imageHeight' are {str(given[0])[:20]} and {str(given[1])[:20]}; they "
        "must be whole numbers of pixels, or both null."
    )


def _annotation(shape: Mapping[str, Any], kind: str, number: int) -> Annotation:
    """The annotation of one shape; `number` is its 1-based position, for messages."""
    label = shape.get("label")
    shown = kind if shape.get("shape_type") else "polygon, as it has no shape_type,"
    where = f"Shape {number} ({shown[:40]} {str(label)[:60]!r})"
    if label is None or not str(label).strip():
        raise ValidationFailed(f"{where} has no label. Give it one, or remove it.")
    if kind not in TYPES:
        raise ValidationFailed(
            f"{where} has an unsupported type. Supported: {', '.join(TYPES)}; skipped: "
            f"{', '.join(PASSED_OVER)}."
        )
    score = shape.get("score")
    if isinstance(score, bool) or not isinstance(score, (int, float, type(None))):
        raise ValidationFailed(f"{where}: its 'score' must be a number; got {score!r:.40}.")
    made = Annotation(str(label), score=None if score is None else float(score))
    points = _points(shape.get("points"), where)
    if kind == "point":
        ((x, y),) = _counted(points, (1,), where)
        flags = shape.get("flags")
        occluded = isinstance(flags, Mapping) and flags.get(FLAG)
        visibility = OCCLUDED if occluded else VISIBLE
        return replace(made, keypoints=(Keypoint(made.label, x, y, visibility, made.score),))
    if kind == "rectangle":
        xs, ys = zip(*_counted(points, (2, 4), where), strict=True)  # two corners, or all four
        return replace(made, box=(min(xs), min(ys), max(xs), max(ys)))
    if kind == "circle":
        (x, y), edge = _counted(points, (2,), where)
        radius = math.dist((x, y), edge)
        if not radius:
            raise ValidationFailed(
                f"{where} has no radius: both of its points are {x:g}, {y:g}. Draw it again, or "
                "remove it."
            )
        return replace(made, parts=(AnnotationPart(ellipse(x, y, radius, radius)),))
    if kind == "mask":
        return replace(made, parts=_mask(shape.get("mask"), points, where))
    if len(points) < 3:
        raise ValidationFailed(f"{where} has {len(points)} corners; it needs at least three.")
    return replace(made, parts=unbridge(points))


def _points(given: Any, where: str) -> Ring:
    """Points given as pairs or as objects with `x` and `y`, in pixels."""
    try:
        pairs = [(p["x"], p["y"]) if isinstance(p, Mapping) else p for p in given]
        points = ring(pairs)
        if all(is_place(value) for point in points for value in point):
            return points
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise ValidationFailed(
        f"{where}: its 'points' must be a list of [x, y]; got {str(given)[:60]}."
    )


def _counted(points: Ring, allowed: Sequence[int], where: str) -> Ring:
    if len(points) not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise ValidationFailed(f"{where} has {len(points)} points; it needs {wanted}.")
    return points


def _mask(given: Any, points: Ring, where: str) -> tuple[AnnotationPart, ...]:
    """The parts of a mask: a PNG in base64 that covers the pixels from one corner to the other,
    both included."""
    (x1, y1), (x2, y2) = _counted(points, (2,), where)
    left, top = round(min(x1, x2)), round(min(y1, y2))
    size = round(max(x1, x2)) - left + 1, round(max(y1, y2)) - top + 1
    try:
        if size[0] * size[1] > MOST_PIXELS:
            raise ValueError("too many pixels")
        data = base64.b64decode(given, validate=True)
        with pillow_open(io.BytesIO(data), ("PNG",)) as image:
            if image.size != size:
                raise ValueError("another size")
            mask = np.asarray(image.convert("L")) > 0
    except (TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        raise ValidationFailed(
            f"{where}: its 'mask' must be a base64 PNG of {size[0]} × {size[1]} pixels, the size "
            "given by its points."
        ) from None
    shift = np.array((left, top), np.float32)
    parts = tuple(
        AnnotationPart(ring(piece.outer + shift), tuple(ring(hole + shift) for hole in piece.holes))
        for piece in outlines(mask)
    )
    if not parts:
        raise ValidationFailed(f"{where}: its 'mask' is empty. Remove the shape.")
    return parts
