"""Label Studio's regions: places in percent of the picture.

Written are `rectanglelabels`, `polygonlabels` (one region per part; further parts name the first
one as `parentID`), `keypointlabels` (with the object's region as `parentID`) and `choices`. An
occluded key point carries the note `occluded`, an absent one is not written. A hole is bridged
into its part's ring.
"""

from __future__ import annotations

import math
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
    Part,
    Ring,
    in_order,
)
from inference.polygons import bridge, unbridge

Region = dict[str, Any]

TYPES = ("rectanglelabels", "polygonlabels", "keypointlabels", "choices")
POINT_WIDTH = 0.5  # of a drawn key point, percent of the picture's width
NOTE = "occluded"


def to_label_studio(
    found: Annotations,
    from_names: Mapping[str, str] | None = None,
    to_name: str = "img",
) -> list[Region]:
    """The regions of a prediction or an annotation.

    Args:
        found: What to write.
        from_names: The control tag's name per region type; default `tag`.
        to_name: The image tag's name.
    """
    regions: list[Region] = []
    names = dict.fromkeys(TYPES, "tag") | dict(from_names or {})
    for index, annotation in enumerate(found.objects, 1):
        for region in _regions(annotation, annotation.id or f"r{index}", found):
            kind = region["type"]
            region |= {"from_name": names[kind], "to_name": to_name, "origin": "prediction"}
            if annotation.score is None:
                region["origin"] = "manual"
            if kind != "choices":
                region |= {
                    "original_width": found.width,
                    "original_height": found.height,
                    "image_rotation": 0,
                }
            regions.append(region)
    return regions


def to_task(found: Annotations, regions: list[Region], model_version: str) -> dict[str, Any]:
    """A task with a prediction, as Label Studio imports it."""
    scores = [annotation.score for annotation in found.objects if annotation.score is not None]
    prediction = {
        "model_version": model_version,
        "score": sum(scores) / len(scores) if scores else 0.0,
        "result": regions,
    }
    return {"data": {"image": found.image}, "predictions": [prediction]}


def from_label_studio(
    regions: Sequence[Mapping[str, Any]],
    image: str = "",
    size: tuple[int, int] | None = None,
    keypoint_names: Sequence[str] = (),
) -> Annotations:
    """What regions say, of an annotation or a prediction.

    A turned rectangle becomes a polygon of its corners. A key point without parent is an
    object of its own, with its own name as class. Relations between regions are passed over.

    Args:
        regions: The `result` array.
        image: File name or address of the picture.
        size: Its width and height; default: what the regions say.
        keypoint_names: Order of the key points; missing ones become absent.

    Raises:
        ValidationFailed: A region of another type or without its values; no size is known.
    """
    rows = [row for row in regions if row.get("type") != "relation"]
    width, height = size or _size(rows)
    read = [(row, _annotation(row, width, height)) for row in rows]
    by_id: dict[str, Annotation] = {}
    roots: list[str] = []
    children: list[tuple[str, Mapping[str, Any], Annotation]] = []
    for index, (row, annotation) in enumerate(read):
        key = annotation.id or f"#{index}"
        parent = str(row.get("parentID") or "")
        if _belongs(row, annotation, parent, read):
            children.append((parent, row, annotation))
        else:
            by_id[key] = annotation
            roots.append(key)
    for parent, row, child in children:
        whole = by_id[parent]
        if row["type"] == "keypointlabels":
            by_id[parent] = replace(whole, keypoints=whole.keypoints + child.keypoints)
        else:
            by_id[parent] = replace(whole, parts=whole.parts + child.parts)
    objects = [by_id[key] for key in roots]
    ordered = tuple(
        replace(o, keypoints=in_order(o.keypoints, keypoint_names)) if o.keypoints else o
        for o in objects
    )
    return Annotations(image, width, height, ordered)


def _belongs(
    row: Mapping[str, Any],
    annotation: Annotation,
    parent: str,
    read: Sequence[tuple[Mapping[str, Any], Annotation]],
) -> bool:
    """Whether a region is a key point or a further part of its parent, itself a root."""
    above = next(((r, a) for r, a in read if a.id == parent), None) if parent else None
    if above is None or above[0].get("parentID") or above[0]["type"] == "choices":
        return False
    if row["type"] == "keypointlabels":
        return above[0]["type"] != "keypointlabels"
    both = row["type"] == above[0]["type"] == "polygonlabels"
    return both and annotation.label == above[1].label


def _regions(annotation: Annotation, key: str, found: Annotations) -> list[Region]:
    regions: list[Region] = []
    if annotation.parts:
        for index, part in enumerate(annotation.parts, 1):
            points = bridge((part.outline, *part.holes))
            values = {"points": _percent(points, found), "closed": True}
            region = _region("polygonlabels", annotation.label, values, annotation.score)
            region |= {"id": key} if index == 1 else {"id": f"{key}-{index}", "parentID": key}
            regions.append(region)
    elif annotation.box is not None:
        x1, y1, x2, y2 = annotation.box
        ((x, y), (w, h)) = _percent(((x1, y1), (x2 - x1, y2 - y1)), found)
        values = {"x": x, "y": y, "width": w, "height": h, "rotation": 0}
        region = _region("rectanglelabels", annotation.label, values, annotation.score)
        regions.append(region | {"id": key})
    elif not annotation.keypoints:
        region = _region("choices", annotation.label, {}, annotation.score)
        regions.append(region | {"id": key})
    for point in annotation.keypoints:
        if point.visibility:
            regions.append(_point_region(point, key, bool(regions), found))
    return regions


def _point_region(point: Keypoint, key: str, has_parent: bool, found: Annotations) -> Region:
    ((x, y),) = _percent(((point.x, point.y),), found)
    values = {"x": x, "y": y, "width": POINT_WIDTH}
    region = _region("keypointlabels", point.name, values, point.score)
    region["id"] = f"{key}-{point.name}"
    if has_parent:
        region["parentID"] = key
    if point.visibility == OCCLUDED:
        region["meta"] = {"text": [NOTE]}
    return region


def _region(kind: str, label: str, values: dict[str, Any], score: float | None) -> Region:
    region: Region = {"type": kind, "value": {kind: [label], **values}}
    if score is not None:
        region["score"] = score
    return region


def _percent(points: Sequence[tuple[float, float]], found: Annotations) -> list[list[float]]:
    return [[x / found.width * 100, y / found.height * 100] for x, y in points]


def _size(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    for row in rows:
        if row.get("original_width") and row.get("original_height"):
            return int(row["original_width"]), int(row["original_height"])
    raise ValidationFailed(
        "The regions do not say how large the picture is ('original_width', 'original_height')."
    )


def _annotation(row: Mapping[str, Any], width: int, height: int) -> Annotation:
    """One region as an object of its own."""
    kind, value = row.get("type"), row.get("value")
    if kind not in TYPES:
        raise ValidationFailed(
            f"Label Studio's {kind!r:.60} regions are not read. Allowed: {', '.join(TYPES)}."
        )
    try:
        assert isinstance(value, Mapping)
        label = str(value[kind][0])
        score = float(row["score"]) if row.get("score") is not None else None
        made = Annotation(label, score=score, id=str(row.get("id") or ""))
        scale = width / 100, height / 100
        if kind == "choices":
            return made
        if kind == "polygonlabels":
            points = tuple((float(x) * scale[0], float(y) * scale[1]) for x, y in value["points"])
            return replace(made, parts=_parts(points))
        x, y = float(value["x"]) * scale[0], float(value["y"]) * scale[1]
        if kind == "keypointlabels":
            note = (row.get("meta") or {}).get("text") or []
            visibility = OCCLUDED if NOTE in note else VISIBLE
            return replace(made, keypoints=(Keypoint(label, x, y, visibility, score),))
        w, h = float(value["width"]) * scale[0], float(value["height"]) * scale[1]
        turn = math.radians(float(value.get("rotation") or 0))
    except (AssertionError, KeyError, IndexError, TypeError, ValueError):
        raise ValidationFailed(f"A {kind} region lacks its values: {str(value)[:120]}.") from None
    if turn:
        return replace(made, parts=(Part(_turned(x, y, w, h, turn)),))
    return replace(made, box=(x, y, x + w, y + h))


def _parts(points: Ring) -> tuple[Part, ...]:
    if len(points) < 3:
        raise ValueError("a polygon has three corners at least")
    return unbridge(points)


def _turned(x: float, y: float, w: float, h: float, turn: float) -> Ring:
    """The corners of a rectangle that is turned clockwise around its upper left one."""
    cos, sin = math.cos(turn), math.sin(turn)
    corners = ((0.0, 0.0), (w, 0.0), (w, h), (0.0, h))
    return tuple((x + a * cos - b * sin, y + a * sin + b * cos) for a, b in corners)
