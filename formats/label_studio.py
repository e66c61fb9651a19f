"""Reads and writes Label Studio regions: coordinates in percent of the image.

The writer uses `rectanglelabels`, `polygonlabels` (one region per part; further parts have the
first one as `parentID`), `keypointlabels` (with the object's region as `parentID`) and `choices`.
An occluded keypoint has the note `occluded`; absent keypoints are not written. Holes are bridged
into their part's ring.

The reader also reads `ellipselabels` and `brushlabels` as polygons, and shapes (`rectangle`,
`polygon`, …) whose label is in a `labels` result of the same id. Results that only describe a
region or an image are skipped and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

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
from formats.brush import decode_brush
from formats.coordinates import are_fractions
from formats.geometry import bridge, ellipse, outlines, rectangle, unbridge
from formats.geometry import turned as turned_ring
from formats.label_studio_marking import marking

Region = dict[str, Any]

TYPES = ("rectanglelabels", "polygonlabels", "keypointlabels", "choices")  # written
POINT_WIDTH = 0.5  # width of a drawn keypoint in percent of the image's width
NOTE = "occluded"

# Degrees → maps (x, y) in an image of w × h that is rotated clockwise to the unrotated image.
TURNS: dict[int, Callable[[float, float, float, float], tuple[float, float]]] = {
    0: lambda x, y, w, h: (x, y),
    90: lambda x, y, w, h: (y, w - x),
    180: lambda x, y, w, h: (w - x, h - y),
    270: lambda x, y, w, h: (h - y, x),
}


def to_label_studio(
    found: Annotations,
    from_names: Mapping[str, str] | None = None,
    to_name: str = "img",
) -> list[Region]:
    """The regions of a prediction or an annotation.

    Args:
        found: The annotations to write.
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
    prediction = {
        "model_version": model_version,
        "score": found.mean_score,
        "result": regions,
    }
    return {"data": {"image": found.image}, "predictions": [prediction]}


def from_label_studio(
    regions: Sequence[Mapping[str, Any]],
    image: str = "",
    size: tuple[int, int] | None = None,
    keypoint_names: Sequence[str] = (),
    *,
    skipped: Counter[str] | None = None,
) -> Annotations:
    """Parses the regions of an annotation or a prediction into `Annotations`.

    A rotated rectangle becomes the polygon of its corners. Regions drawn in a rotated image are
    rotated back. A keypoint without parent becomes an object whose class is the keypoint's name.
    A region with several labels becomes one object per label, an image with several choices one
    class per choice.

    Args:
        regions: The part of the `result` array for this image: see `label_studio_images`.
        image: File name or URL of the image.
        size: Its width and height in pixels; default: as given by the regions.
        keypoint_names: Order of the keypoints; missing ones become absent.
        skipped: Receives reason → number of skipped results.

    Raises:
        ValidationFailed: A region has an unsupported type or lacks its values, or the image's size
            is unknown.
    """
    rows = marking(regions, skipped=skipped)
    width, height = size or _size(rows)
    read = [
        _Read(row, annotation) for row in rows for annotation in _annotations(row, width, height)
    ]
    places: dict[str, int] = {}  # ids may repeat; the first region is the parent
    for index, region in enumerate(read):
        places.setdefault(region.annotation.id, index)
    objects: dict[int, Annotation] = {}
    children: list[tuple[int, _Read]] = []
    for index, region in enumerate(read):
        parent = places.get(str(region.row.get("parentID") or ""), index)
        if region.belongs_to(read[parent]):
            children.append((parent, region))
        else:
            objects[index] = region.annotation
    for parent, region in children:
        whole, child = objects[parent], region.annotation
        objects[parent] = replace(
            whole, keypoints=whole.keypoints + child.keypoints, parts=whole.parts + child.parts
        )
    ordered = tuple(
        replace(o, keypoints=in_order(o.keypoints, keypoint_names)) if o.keypoints else o
        for o in objects.values()
    )
    _refuse_fractions(ordered, width, height)
    passed: Counter[str] = Counter()
    placed = with_area(ordered, passed)
    if skipped is not None:
        skipped.update(passed)
    return Annotations(image, width, height, placed)


def _refuse_fractions(objects: Sequence[Annotation], width: int, height: int) -> None:
    """Check that coordinates are percent, not fractions.

    Raises:
        ValidationFailed: There are several regions, all within the first hundredth of the image.
    """
    drawn = [bounds for thing in objects if (bounds := thing.bounds)]
    as_percent = [
        Annotation("", box=(x1 / width, y1 / height, x2 / width, y2 / height))
        for x1, y1, x2, y2 in drawn
    ]
    if len(drawn) > 1 and are_fractions(as_percent, 0.01):
        raise ValidationFailed(
            f"All {len(drawn)} regions are within the first hundredth of the image, so their "
            "values seem to be fractions. Label Studio uses percent: 0 to 100."
        )


class _Read(NamedTuple):
    """A region, and the object that it would be without its parent."""

    row: Mapping[str, Any]
    annotation: Annotation

    def belongs_to(self, other: _Read) -> bool:
        """Whether it is a keypoint or a further part of `other`, a region without parent."""
        kind, above = self.row["type"], other.row["type"]
        if other is self or other.row.get("parentID") or above == "choices":
            return False
        if kind == "keypointlabels":
            return above != "keypointlabels"
        both = kind == above == "polygonlabels"
        return both and self.annotation.label == other.annotation.label


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
        "The regions do not state the size of the image: 'original_width' and 'original_height' "
        "are missing. Export the project as JSON, or send the image, too."
    )


def _annotations(row: Mapping[str, Any], width: int, height: int) -> list[Annotation]:
    """The objects of one region, one for each of its labels."""
    kind, value = row.get("type"), row.get("value")
    turned = row.get("image_rotation") or 0
    if not isinstance(turned, (int, float)) or turned not in TURNS:
        raise ValidationFailed(
            f"'image_rotation' of a region is {turned!r:.40}; it must be 0, 90, 180 or 270."
        )
    try:
        assert isinstance(value, Mapping)
        labels = list(map(str, value[kind]))
        label = labels[0]
        score = float(row["score"]) if row.get("score") is not None else None
        made = Annotation(label, score=score, id=str(row.get("id") or ""))
        if kind != "choices":
            note = (row.get("meta") or {}).get("text") or []
            if kind == "brushlabels":
                made = replace(made, parts=_painted(row, value, (width, height), int(turned)))
            else:
                made = _placed(made, str(kind), value, (width, height, int(turned)))
            if NOTE in note:
                points = (replace(point, visibility=OCCLUDED) for point in made.keypoints)
                made = replace(made, keypoints=tuple(points))
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError, OverflowError):
        raise ValidationFailed(
            f"Region {str(row.get('id'))[:40]!r}, a {kind} region, lacks its values: "
            f"{str(value)[:120]}."
        ) from None
    if kind == "keypointlabels":
        return [made]
    return [made, *(replace(made, label=other, id="") for other in labels[1:])]


def _placed(
    made: Annotation, kind: str, value: Mapping[str, Any], frame: tuple[int, int, int]
) -> Annotation:
    """The annotation with the region's shape in pixels.

    `frame`: width and height of the image in pixels, and its clockwise rotation in degrees when
    the region was drawn.
    """
    width, height, turned = frame
    wide, high = (height, width) if turned in (90, 270) else (width, height)

    def upright(points: Iterable[tuple[float, float]]) -> Ring:
        return tuple(TURNS[turned](x, y, wide, high) for x, y in points)

    scale = wide / 100, high / 100
    if kind == "polygonlabels":
        outline = ((_number(x) * scale[0], _number(y) * scale[1]) for x, y in value["points"])
        return replace(made, parts=_parts(upright(outline)))
    x, y = _number(value["x"]) * scale[0], _number(value["y"]) * scale[1]
    if kind == "keypointlabels":
        ((x, y),) = upright([(x, y)])
        return replace(made, keypoints=(Keypoint(made.label, x, y, VISIBLE, made.score),))
    if kind == "ellipselabels":
        rx, ry = _number(value["radiusX"]) * scale[0], _number(value["radiusY"]) * scale[1]
        if not min(rx, ry) > 0:
            raise ValueError("an ellipse needs two radii")
        angle = math.radians(_number(value.get("rotation") or 0))
        return replace(
            made,
            parts=(AnnotationPart(upright(turned_ring(ellipse(x, y, rx, ry), (x, y), angle))),),
        )
    w, h = _number(value["width"]) * scale[0], _number(value["height"]) * scale[1]
    if turn := math.radians(_number(value.get("rotation") or 0)):
        corners = rectangle(x, y, x + w, y + h)  # rotated around the upper left corner
        return replace(made, parts=(AnnotationPart(upright(turned_ring(corners, (x, y), turn))),))
    (x1, y1), (x2, y2) = upright([(x, y), (x + w, y + h)])
    return replace(made, box=(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))


def _number(value: Any) -> float:
    """A coordinate or length, in percent of the image.

    Raises:
        ValueError: It cannot be one.
    """
    number = float(value)
    if not is_place(number):
        raise ValueError("no place in an image")
    return number


def _parts(points: Ring) -> tuple[AnnotationPart, ...]:
    if len(points) < 3:
        raise ValueError("a polygon needs at least three corners")
    return unbridge(points)


def _painted(
    row: Mapping[str, Any], value: Mapping[str, Any], size: tuple[int, int], turned: int
) -> tuple[AnnotationPart, ...]:
    """The outlines of a brush mask, which must have the size of the image."""
    drawn = int(row.get("original_width") or size[0]), int(row.get("original_height") or size[1])
    if drawn != size or turned:
        raise ValidationFailed(
            f"Region {str(row.get('id'))[:40]!r} is a brush mask for an image of {drawn[0]} × "
            f"{drawn[1]} pixels, rotated by {turned}°, but the image has {size[0]} × {size[1]} "
            "pixels. Draw a polygon instead."
        )
    if value.get("format", "rle") != "rle":
        raise ValueError("another format")
    try:
        mask = decode_brush(value["rle"], *size)
    except ValidationFailed as error:
        raise ValidationFailed(f"Region {str(row.get('id'))[:40]!r}: {error.message}") from None
    parts = tuple(
        AnnotationPart(ring(piece.outer), tuple(ring(hole) for hole in piece.holes))
        for piece in outlines(mask)
    )
    if not parts:
        raise ValidationFailed(
            f"Region {str(row.get('id'))[:40]!r} is an empty brush mask. Remove it."
        )
    return parts
