"""COCO's instance JSON: boxes, polygons or run lengths, key points; pixels.

A polygon cannot hold holes there, so an object with holes is written as the pixels of its mask.
Category ids count from 1, in the order of the class names. Regions marked `iscrowd` stand for
many objects and are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from errors import ValidationFailed
from inference import rle
from inference.annotations import (
    ABSENT,
    Annotation,
    Annotations,
    Box,
    Keypoint,
    Part,
    in_order,
    ring,
)
from inference.polygons import Outline, area, as_outlines, fill_parts, outlines

Json = dict[str, Any]


def to_coco(
    pictures: Sequence[Annotations], names: Sequence[str], keypoint_names: Sequence[str] = ()
) -> Json:
    """One document for all pictures, with ids from 1 in the given order.

    Raises:
        ValidationFailed: A label that is not in `names`; a class without a place, which COCO
            has no form for.
    """
    annotations: list[Json] = []
    for image_id, found in enumerate(pictures, 1):
        for annotation in found.objects:
            row = _row(annotation, found, names, keypoint_names)
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **row})
    categories: list[Json] = [
        {"id": index, "name": name, "supercategory": ""} for index, name in enumerate(names, 1)
    ]
    if keypoint_names:
        for category in categories:
            category |= {"keypoints": list(keypoint_names), "skeleton": []}
    return {
        "info": {"description": "VisionLoop"},
        "licenses": [],
        "images": [
            {"id": index, "file_name": found.image, "width": found.width, "height": found.height}
            for index, found in enumerate(pictures, 1)
        ],
        "categories": categories,
        "annotations": annotations,
    }


def from_coco(document: Mapping[str, Any]) -> list[Annotations]:
    """Its pictures, those without an object included.

    Raises:
        ValidationFailed: A picture or annotation lacks a field, or names an unknown id.
    """
    try:
        categories = {int(row["id"]): row for row in document["categories"]}
        sizes = {int(r["id"]): (int(r["width"]), int(r["height"])) for r in document["images"]}
        objects: dict[int, list[Annotation]] = {image_id: [] for image_id in sizes}
        for row in document["annotations"]:
            if not row.get("iscrowd"):
                category = categories[int(row["category_id"])]
                image_id = int(row["image_id"])
                objects[image_id].append(_annotation(row, category, sizes[image_id]))
        return [
            Annotations(
                str(row["file_name"]),
                int(row["width"]),
                int(row["height"]),
                tuple(objects[int(row["id"])]),
            )
            for row in document["images"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValidationFailed(
            f"This is not a COCO document of instances: {type(error).__name__} {error!s:.80}."
        ) from None


def _row(
    annotation: Annotation,
    found: Annotations,
    names: Sequence[str],
    keypoint_names: Sequence[str],
) -> Json:
    if annotation.label not in names:
        raise ValidationFailed(
            f"The class {annotation.label!r} is not one of: {', '.join(names[:20])}."
        )
    bounds = annotation.bounds
    if bounds is None:
        raise ValidationFailed(
            "COCO has no form for the class of a whole picture. Use label_studio, yolo or labelme."
        )
    x1, y1, x2, y2 = bounds
    row: Json = {
        "category_id": names.index(annotation.label) + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": [],
    }
    if annotation.parts:
        row |= _segmentation(annotation.parts, found)
    if annotation.keypoints:
        points = in_order(annotation.keypoints, keypoint_names)
        if keypoint_names and len(points) > len(keypoint_names):
            raise ValidationFailed(
                f"The key point {points[-1].name!r} is not one of: {', '.join(keypoint_names)}."
            )
        row["keypoints"] = [v for p in points for v in (p.x, p.y, p.visibility)]
        row["num_keypoints"] = sum(bool(point.visibility) for point in points)
    if annotation.score is not None:
        row["score"] = annotation.score
    return row


def _segmentation(parts: Sequence[Part], found: Annotations) -> Json:
    """`segmentation` and `area`; pixels are drawn within the object's box only."""
    pieces = as_outlines(parts)
    polygons = [[value for point in part.outline for value in point] for part in parts]
    if len(pieces) == 1 and not pieces[0].holes:
        return {"segmentation": polygons, "area": abs(area(pieces[0].outer))}
    corners = np.concatenate([piece.outer for piece in pieces])
    size = np.array((found.width, found.height))
    low = np.clip(np.floor(corners.min(axis=0)), 0, size).astype(np.int64)
    width, height = np.clip(np.ceil(corners.max(axis=0)), low, size).astype(np.int64) - low
    shift = low.astype(np.float32)
    moved = [Outline(p.outer - shift, tuple(hole - shift for hole in p.holes)) for p in pieces]
    mask = fill_parts(moved, int(width), int(height))
    covered = float(np.count_nonzero(mask))
    if not any(piece.holes for piece in pieces):
        return {"segmentation": polygons, "area": covered}
    code = rle.encode(mask, int(low[0]), int(low[1]), (found.width, found.height))
    return {"segmentation": code, "area": covered}


def _annotation(
    row: Mapping[str, Any], category: Mapping[str, Any], size: tuple[int, int]
) -> Annotation:
    parts = _parts(row.get("segmentation"), size)
    return Annotation(
        str(category["name"]),
        box=None if parts else _box(row["bbox"]),
        parts=parts,
        keypoints=_keypoints(row.get("keypoints") or (), category.get("keypoints") or ()),
        score=float(row["score"]) if row.get("score") is not None else None,
    )


def _box(values: Sequence[float]) -> Box:
    x, y, w, h = map(float, values)
    return x, y, x + w, y + h


def _parts(segmentation: Any, size: tuple[int, int]) -> tuple[Part, ...]:
    if isinstance(segmentation, Mapping):
        found: Sequence[Outline] = outlines(rle.decode(segmentation, size))
        return tuple(Part(ring(p.outer), tuple(ring(hole) for hole in p.holes)) for p in found)
    rings = [list(map(float, values)) for values in segmentation or ()]
    return tuple(
        Part(ring(zip(values[0::2], values[1::2], strict=True)))
        for values in rings
        if len(values) >= 6
    )


def _keypoints(values: Sequence[float], names: Sequence[str]) -> tuple[Keypoint, ...]:
    made = []
    for index, start in enumerate(range(0, len(values), 3)):
        x, y, visible = values[start : start + 3]
        name = str(names[index]) if index < len(names) else str(index)
        here = Keypoint(name, float(x), float(y), int(visible))
        made.append(here if visible else Keypoint(name, visibility=ABSENT))
    return tuple(made)
