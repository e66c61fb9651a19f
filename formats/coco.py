"""Reads and writes COCO instance JSON: boxes, polygons or RLE masks, keypoints; in pixels.

COCO polygons cannot have holes, so an object with holes is written as an RLE mask. Category ids
count from 1, in the order of the class names.

Tools such as CVAT and supervision set `iscrowd` to 1 for every RLE mask; those are read as
objects. Only in the COCO dataset itself does it mean a crowd of many objects. Such a region is
skipped and counted. It is recognised by its id, 900…, which COCO composes from the ids of its
category and image, or by the document's `info`.

CVAT writes a rotated box as the unrotated one with `rotation` in its `attributes`. It is read as
the polygon of its corners.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from errors import ValidationFailed
from formats import rle
from formats.annotations import (
    ABSENT,
    OCCLUDED,
    VISIBLE,
    Annotation,
    AnnotationPart,
    Annotations,
    Box,
    Keypoint,
    Ring,
    in_order,
    is_place,
    ring,
    with_area,
)
from formats.capabilities import require_annotation
from formats.coco_boxes import are_scaled, stated, turned_box
from formats.coordinates import Stated, are_corners
from formats.geometry import Outline, area, as_outlines, fill_parts

Json = dict[str, Any]

CROWD = "COCO crowd regions, which stand for many objects"
COCO_ITSELF = ("cocodataset.org", "mscoco.org", "coco consortium", "coco 2014", "coco 2017")


def to_coco(
    images: Sequence[Annotations], names: Sequence[str], keypoint_names: Sequence[str] = ()
) -> Json:
    """Writes one COCO document for all images, with ids from 1 in the given order.

    Raises:
        ValidationFailed: A label is not in `names`, or an annotation is the class of an image,
            which COCO cannot represent.
    """
    annotations: list[Json] = []
    for image_id, found in enumerate(images, 1):
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
            for index, found in enumerate(images, 1)
        ],
        "categories": categories,
        "annotations": annotations,
    }


def from_coco(
    document: Mapping[str, Any],
    *,
    skipped: Counter[str] | None = None,
    incomplete: set[int] | None = None,
) -> list[Annotations]:
    """Parses a COCO document into the `Annotations` of each image, also those without objects.

    An image's width and height are 0 if the document does not give them. Ids may be numbers or
    texts.

    Args:
        document: A COCO instances document.
        skipped: Receives reason → number of skipped objects, such as COCO's crowd regions.
        incomplete: Receives the indices of images with a skipped object.

    Raises:
        ValidationFailed: An image or annotation lacks a field, an id is repeated or unknown, or a
            shape cannot be read; the message names the image and the annotation.
    """
    images, categories, annotations = (
        _rows(document, name) for name in ("images", "categories", "annotations")
    )
    named = _by_id(categories, "category", "name")
    listed = _by_id(images, "image", "file_name")
    sizes = {key: _size(row, f"Image {key}") for key, row in listed.items()}
    objects: dict[str, list[Annotation]] = {key: [] for key in listed}
    passed: Counter[str] = Counter()
    of_coco = _is_of_coco(document.get("info"))
    boxes: list[Stated] = []
    lost: set[str] = set()
    for place, row in enumerate(annotations, 1):
        where = f"Annotation {_shown(row, place)}"
        image, category = (
            _known(row, f"{what}_id", known, where)
            for what, known in (("image", listed), ("category", named))
        )
        where = f"{where} of image {image} ({str(listed[image]['file_name'])[:100]!r})"
        if _is_set(row.get("iscrowd")) and (of_coco or _is_crowd(row, image, category)):
            passed[CROWD] += 1
            lost.add(image)
        else:
            made = _annotation(row, named[category], sizes[image], where)
            objects[image].append(made)
            if made.box is not None:
                boxes.append(stated(row, made.box, sizes[image]))
    if are_corners(boxes):
        raise ValidationFailed(
            "The 'bbox' of the annotations look like [x1, y1, x2, y2], judging by their 'area' or "
            "by boxes that would extend beyond the image. Write [x, y, width, height]."
        )
    found = [
        Annotations(str(row["file_name"]), *sizes[key], with_area(objects[key], passed))
        for key, row in listed.items()
    ]
    if skipped is not None:
        skipped.update(passed)
    if incomplete is not None:
        pairs = zip(listed, found, strict=True)
        rows = enumerate((key, len(one) < len(objects[key])) for key, one in pairs)
        incomplete.update(place for place, (key, less) in rows if less or key in lost)
    return found


def category_names(document: Mapping[str, Any]) -> list[str]:
    """The category names in order of id, without the unused supercategory that Roboflow adds."""
    categories = sorted(_rows(document, "categories"), key=lambda row: _in_order(row.get("id")))
    used = {str(row.get("category_id")) for row in document.get("annotations") or ()}
    above = {str(row.get("supercategory")) for row in categories}
    return [
        str(row["name"])
        for row in categories
        if str(row.get("id")) in used
        or str(row["name"]) not in above
        or str(row.get("supercategory")) not in ("none", "None", "")
    ]


def _in_order(key: Any) -> tuple[int, str]:
    text = str(key)
    return (int(text), "") if text.isdecimal() and len(text) < 10 else (10**9, text)


def _rows(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = document.get(name) if isinstance(document, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValidationFailed(
            f"This is not a COCO instances document: it needs '{name}', a list of objects. Send "
            "one document with 'images', 'categories' and 'annotations'."
        )
    return rows


def _by_id(rows: Sequence[Mapping[str, Any]], what: str, name: str) -> dict[str, Mapping[str, Any]]:
    """Id → row, for rows with unique ids."""
    found: dict[str, Mapping[str, Any]] = {}
    for place, row in enumerate(rows, 1):
        key = _id(row.get("id"), f"The {what} at place {place} ({str(row.get(name))[:100]!r})")
        called = row.get(name)
        if isinstance(called, int) and not isinstance(called, bool):
            called = str(called)  # a class that is a number
        if not isinstance(called, str) or not called.strip():
            raise ValidationFailed(f"The {what} {key[:60]} has no '{name}'.")
        if key in found:
            raise ValidationFailed(
                f"The {what} id {key[:60]} is not unique: {found[key][name][:100]!r} and "
                f"{called[:100]!r}. Give each {what} its own id."
            )
        found[key] = {**row, name: called}
    return found


def _id(value: Any, where: str) -> str:
    """An id as it is compared: 1, 1.0 and "1" are one id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).strip():
        raise ValidationFailed(
            f"{where}: its id must be a number or a text; got {str(value)[:40]}."
        )
    return str(value).strip()


def _known(
    row: Mapping[str, Any], name: str, known: Mapping[str, Mapping[str, Any]], where: str
) -> str:
    key = _id(row.get(name), f"{where}, {name!r}")
    if key not in known:
        plural = {"image_id": "images", "category_id": "categories"}[name]
        raise ValidationFailed(f"{where}: its {name} {key[:60]} is not in '{plural}'.")
    return key


def _shown(row: Mapping[str, Any], place: int) -> str:
    return str(row["id"])[:40] if row.get("id") is not None else f"at place {place}"


def _size(row: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Width and height in pixels; 0, 0 if they are not given."""
    given = row.get("width"), row.get("height")
    if not any(given):
        return 0, 0
    sides = [_number(value, f"{where} ({row['file_name'][:100]!r}), its size") for value in given]
    width, height = map(int, sides)
    if [width, height] != sides or min(sides) <= 0:
        raise ValidationFailed(
            f"{where} ({row['file_name'][:100]!r}) has {given[0]} × {given[1]} pixels. Correct "
            "'width' and 'height', or omit both."
        )
    return width, height


def _is_set(value: Any) -> bool:
    """Whether a flag is set; some tools write it as text."""
    return bool(value) and str(value) != "0"


def _is_of_coco(info: Any) -> bool:
    """Whether a document's `info` is that of the COCO dataset itself, which has crowd regions."""
    text = " ".join(str(value) for value in info.values()) if isinstance(info, Mapping) else ""
    return any(sign in text.casefold() for sign in COCO_ITSELF)


def _is_crowd(row: Mapping[str, Any], image: str, category: str) -> bool:
    """Whether an annotation has the id of a crowd region of the COCO dataset."""
    ids = str(row.get("id")), image, category
    if not all(value.isascii() and value.isdigit() and len(value) < 16 for value in ids):
        return False
    mine, image_id, category_id = map(int, ids)
    return mine == 900_000_000_000 + category_id * 100_000_000 + image_id


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
    require_annotation("coco", annotation)
    bounds = annotation.bounds
    assert bounds is not None
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
                f"The keypoint {points[-1].name!r} is not one of: {', '.join(keypoint_names)}."
            )
        row["keypoints"] = [v for p in points for v in (p.x, p.y, p.visibility)]
        row["num_keypoints"] = sum(bool(point.visibility) for point in points)
    if annotation.score is not None:
        row["score"] = annotation.score
    return row


def _segmentation(parts: Sequence[AnnotationPart], found: Annotations) -> Json:
    """The fields `segmentation` and `area`. Masks are rasterised within the object's box."""
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
    row: Mapping[str, Any], category: Mapping[str, Any], size: tuple[int, int], where: str
) -> Annotation:
    parts = _parts(row.get("segmentation"), size, where)
    points = _keypoints(row.get("keypoints"), category, where)
    given = row.get("bbox")
    box = None if parts or not given else _box(given, where)
    if are_scaled(given, parts):
        raise ValidationFailed(
            f"{where}: its 'bbox' {str(given)[:60]} and its 'segmentation' have different scales. "
            "Correct one of them, or omit 'bbox'."
        )
    if box is not None and (corners := turned_box(box, row.get("attributes"), where)):
        box, parts = None, (AnnotationPart(corners),)
    if box is None and not parts and not any(point.visibility for point in points):
        raise ValidationFailed(
            f"{where} has no shape: it needs a 'bbox' [x, y, width, height] or a 'segmentation'."
        )
    score = row.get("score")
    return Annotation(
        str(category["name"]),
        box=box,
        parts=parts,
        keypoints=points,
        score=None if score is None else _number(score, f"{where}, 'score'"),
    )


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_place(value):
        raise ValidationFailed(f"{where}: {str(value)[:40]!r} must be a number.")
    return float(value)


def _box(values: Any, where: str) -> Box:
    if not isinstance(values, list) or len(values) != 4:
        raise ValidationFailed(
            f"{where}: its 'bbox' must be [x, y, width, height]; got {str(values)[:60]}."
        )
    x, y, w, h = (_number(value, f"{where}, 'bbox'") for value in values)
    if w < 0 or h < 0:
        raise ValidationFailed(f"{where}: its 'bbox' has a width of {w:g} and a height of {h:g}.")
    return x, y, x + w, y + h


def _parts(segmentation: Any, size: tuple[int, int], where: str) -> tuple[AnnotationPart, ...]:
    """The parts of a segmentation. Polygons of fewer than three corners are dropped."""
    if not segmentation:
        return ()
    if isinstance(segmentation, Mapping) and "counts" in segmentation:
        try:
            found = rle.decode_outlines(segmentation, size if any(size) else None)
        except ValidationFailed as error:
            raise ValidationFailed(f"{where}: {error.message}") from None
        return tuple(
            AnnotationPart(ring(p.outer), tuple(ring(hole) for hole in p.holes)) for p in found
        )
    if not isinstance(segmentation, list):
        raise ValidationFailed(
            f"{where}: its 'segmentation' must be a list of polygons or an RLE mask; got "
            f"{str(segmentation)[:40]!r}."
        )
    flat = not isinstance(segmentation[0], list)
    rings = [_ring(values, where) for values in ([segmentation] if flat else segmentation)]
    return tuple(AnnotationPart(corners) for corners in rings if len(corners) >= 3)


def _ring(values: Any, where: str) -> Ring:
    if not isinstance(values, list) or len(values) % 2:
        raise ValidationFailed(
            f"{where}: a polygon must be a list of x1, y1, x2, y2, …; got {str(values)[:60]}."
        )
    numbers = [_number(value, f"{where}, 'segmentation'") for value in values]
    return tuple(zip(numbers[0::2], numbers[1::2], strict=True))


def _keypoints(values: Any, category: Mapping[str, Any], where: str) -> tuple[Keypoint, ...]:
    if not values:
        return ()
    names = category.get("keypoints") or []
    if not isinstance(names, list):
        raise ValidationFailed(
            f"{where}: the 'keypoints' of its category must be a list of names; got "
            f"{str(names)[:40]}."
        )
    wanted = 3 * len(names)
    if not isinstance(values, list) or len(values) % 3 or (names and len(values) != wanted):
        expected = f"{wanted} for its category's {len(names)}" if names else "three per keypoint"
        raise ValidationFailed(
            f"{where}: its 'keypoints' must be numbers x, y, visibility, {expected}; got "
            f"{len(values) if isinstance(values, list) else str(values)[:40]}."
        )
    numbers = [_number(value, f"{where}, 'keypoints'") for value in values]
    made = []
    for index, start in enumerate(range(0, len(numbers), 3)):
        x, y, visible = numbers[start : start + 3]
        if visible not in (ABSENT, OCCLUDED, VISIBLE):
            raise ValidationFailed(
                f"{where}: the visibility of keypoint {index + 1} is {visible:g}; it must be 0, "
                "1 or 2."
            )
        name = str(names[index]) if names else str(index)
        here = Keypoint(name, x, y, int(visible))
        made.append(here if visible else Keypoint(name, visibility=ABSENT))
    return tuple(made)
