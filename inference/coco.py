"""COCO's instance JSON: boxes, polygons or run lengths, key points; pixels.

A polygon cannot hold holes there, so an object with holes is written as the pixels of its mask.
Category ids count from 1, in the order of the class names. Regions marked `iscrowd` stand for
many objects and are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
from inference.polygons import Outline, as_outlines, fill_parts, outlines

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
        objects: dict[int, list[Annotation]] = {int(row["id"]): [] for row in document["images"]}
        for row in document["annotations"]:
            if not row.get("iscrowd"):
                category = categories[int(row["category_id"])]
                objects[int(row["image_id"])].append(_annotation(row, category))
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


def class_names(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The categories' names, by id."""
    rows = sorted(document.get("categories", ()), key=lambda row: int(row["id"]))
    return tuple(str(row["name"]) for row in rows)


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
        mask = fill_parts(as_outlines(annotation.parts), found.width, found.height)
        row["area"] = float(mask.sum())
        if any(part.holes for part in annotation.parts):
            row["segmentation"] = rle.encode(mask)
        else:
            row["segmentation"] = [
                [value for point in part.outline for value in point] for part in annotation.parts
            ]
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


def _annotation(row: Mapping[str, Any], category: Mapping[str, Any]) -> Annotation:
    parts = _parts(row.get("segmentation"))
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


def _parts(segmentation: Any) -> tuple[Part, ...]:
    if isinstance(segmentation, Mapping):
        found: Sequence[Outline] = outlines(rle.decode(segmentation))
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
