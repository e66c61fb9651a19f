"""YOLO label lines: a class id and fractions of the picture.

A box is `id x y w h` (centre and size), a polygon `id x1 y1 x2 y2 …`, a pose a box and then
`x y visibility` per key point, the class of a picture `id` alone. Parts and holes are bridged
into one ring. A line may end with a score. A file of poses holds no polygons: their columns may
be as many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from errors import ValidationFailed
from inference.annotations import Annotation, Annotations, Keypoint, in_order
from inference.polygons import bridge, unbridge


def to_yolo(
    found: Annotations,
    names: Sequence[str],
    keypoint_names: Sequence[str] = (),
    scores: bool = False,
) -> str:
    """The label file of one picture; `scores` are no part of training labels.

    Raises:
        ValidationFailed: A label that is not in `names`.
    """
    lines = [
        _line(annotation, found, names, keypoint_names, scores) for annotation in found.objects
    ]
    return "".join(f"{line}\n" for line in lines)


def from_yolo(
    text: str,
    names: Sequence[str],
    size: tuple[int, int],
    image: str = "",
    keypoint_names: Sequence[str] = (),
) -> Annotations:
    """What a label file says of a picture of `size` (width, height).

    Lines are poses where `keypoint_names` are given and the columns are those of a pose.

    Raises:
        ValidationFailed: A line cannot be read; the message names it.
    """
    objects = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            objects.append(_annotation(line, names, size, keypoint_names))
        except ValueError as error:
            raise ValidationFailed(f"Line {number} of the labels: {error}.") from None
    return Annotations(image, *size, tuple(objects))


def _line(
    annotation: Annotation,
    found: Annotations,
    names: Sequence[str],
    keypoint_names: Sequence[str],
    scores: bool,
) -> str:
    if annotation.label not in names:
        raise ValidationFailed(
            f"The class {annotation.label!r} is not one of: {', '.join(names[:20])}."
        )
    w, h = found.width, found.height
    values: list[float] = []
    bounds = annotation.bounds
    if annotation.parts and not annotation.keypoints:
        rings = [r for part in annotation.parts for r in (part.outline, *part.holes)]
        values = [value for x, y in bridge(rings) for value in (x / w, y / h)]
    elif bounds is not None:
        x1, y1, x2, y2 = bounds
        values = [(x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h]
    if annotation.keypoints:
        for point in in_order(annotation.keypoints, keypoint_names):
            values += [point.x / w, point.y / h, point.visibility]
    if scores and annotation.score is not None:
        values.append(annotation.score)
    return " ".join((str(names.index(annotation.label)), *(f"{value:.9g}" for value in values)))


def _annotation(
    line: str, names: Sequence[str], size: tuple[int, int], keypoint_names: Sequence[str]
) -> Annotation:
    values = [float(text) for text in line.split()]
    if not all(map(math.isfinite, values)) or values[0] != int(values[0]):
        raise ValueError(f"{line.strip()[:40]!r} is not a class id and numbers")
    if not 0 <= values[0] < len(names):
        raise ValueError(f"class id {values[0]:g}, but the ids are 0 to {len(names) - 1}")
    label, numbers = names[int(values[0])], values[1:]
    pose = 4 + 3 * len(keypoint_names)
    polygon = len(numbers) >= 6 and not (keypoint_names and len(numbers) in (pose, pose + 1))
    whole = len(numbers) // 2 * 2 if polygon else pose if len(numbers) >= pose else 4
    if len(numbers) < 2:
        whole = 0
    score = numbers[whole] if len(numbers) == whole + 1 else None
    if len(numbers) not in (whole, whole + 1):
        raise ValueError(f"{len(values)} columns are no box, polygon or pose of this data set")
    w, h = size
    if not whole:
        return Annotation(label, score=score)
    if polygon:
        points = zip(numbers[0:whole:2], numbers[1:whole:2], strict=True)
        parts = unbridge(tuple((x * w, y * h) for x, y in points))
        return Annotation(label, parts=parts, score=score)
    x, y, bw, bh = numbers[:4]
    box = (x - bw / 2) * w, (y - bh / 2) * h, (x + bw / 2) * w, (y + bh / 2) * h
    if whole == 4 or not keypoint_names:
        return Annotation(label, box=box, score=score)
    points3 = [numbers[start : start + 3] for start in range(4, whole, 3)]
    keypoints = tuple(
        Keypoint(name, px * w, py * h, int(v)) if v else Keypoint(name, visibility=0)
        for name, (px, py, v) in zip(keypoint_names, points3, strict=True)
    )
    return Annotation(label, box=box, keypoints=keypoints, score=score)
