"""Reads and writes YOLO label lines: a class id and coordinates normalised to 0 to 1.

A box is `id x y w h` (centre and size), a polygon `id x1 y1 x2 y2 …`, a pose a box followed by
`x y visibility` per keypoint, the class of an image only `id`. Parts and holes are bridged into
one ring. A line may end with a score. A file with poses cannot contain polygons, because both may
have the same number of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from errors import ValidationFailed
from formats.annotations import (
    ABSENT,
    VISIBLE,
    Annotation,
    Annotations,
    Keypoint,
    in_order,
    is_place,
)
from formats.geometry import bridge, unbridge


def to_yolo(
    found: Annotations,
    names: Sequence[str],
    keypoint_names: Sequence[str] = (),
    scores: bool = False,
) -> str:
    """Writes the label file of one image.

    Args:
        found: The annotations.
        names: Class names in order of id.
        keypoint_names: Keypoint names in order.
        scores: Append the score to each line; not for training labels.

    Raises:
        ValidationFailed: A label is not in `names`.
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
    keypoint_numbers: int = 3,
) -> Annotations:
    """Parses the label file of one image into `Annotations`.

    Args:
        text: Content of the file.
        names: Class names in order of id.
        size: Width and height of the image in pixels.
        image: Name of the image.
        keypoint_names: If given, lines are boxes or poses; otherwise boxes or polygons.
        keypoint_numbers: Numbers per keypoint: 3 (x, y, visibility) or 2 (x, y; absent at 0, 0,
            else visible).

    Raises:
        ValidationFailed: A line cannot be read; the message names it.
    """
    objects = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            points = _Points(keypoint_names, keypoint_numbers)
            objects.append(_annotation(line, names, size, points))
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


class _Points(NamedTuple):
    """The layout of a line's keypoints: their names, and the numbers per keypoint."""

    names: Sequence[str]
    numbers: int

    def read(self, values: Sequence[float], size: tuple[int, int]) -> tuple[Keypoint, ...]:
        """The keypoints in pixels, from normalised values and the image's (width, height)."""
        made = []
        for name, start in zip(self.names, range(0, len(values), self.numbers), strict=True):
            x, y, *more = values[start : start + self.numbers]
            seen = int(more[0]) if more else VISIBLE if x or y else ABSENT
            here = Keypoint(name, x * size[0], y * size[1], seen)
            made.append(here if seen else Keypoint(name, visibility=ABSENT))
        return tuple(made)


def _numbers(line: str) -> list[float]:
    """The numbers of a line: the class id, which must be a whole number, and the values."""
    try:
        values = [float(text) for text in line.split()]
        if all(map(is_place, values)) and values[0] == int(values[0]):
            return values
    except ValueError:
        pass
    point = ": write numbers with a decimal point" if "," in line else ""
    raise ValueError(f"{line.strip()[:40]!r} is not a class id and numbers{point}")


def _annotation(
    line: str, names: Sequence[str], size: tuple[int, int], points: _Points
) -> Annotation:
    values = _numbers(line)
    if not 0 <= values[0] < len(names):
        raise ValueError(f"class id {values[0]:g}, but the ids are 0 to {len(names) - 1}")
    label, numbers = names[int(values[0])], values[1:]
    pose = 4 + points.numbers * len(points.names)
    polygon = len(numbers) >= 6 and not points.names
    whole = len(numbers) // 2 * 2 if polygon else pose if len(numbers) >= pose else 4
    if len(numbers) < 2:
        whole = 0
    score = numbers[whole] if len(numbers) == whole + 1 else None
    if len(numbers) not in (whole, whole + 1):
        wanted = f"a pose of {pose + 1}" if points.names else "a polygon"
        raise ValueError(f"{len(values)} columns are neither a box nor {wanted}")
    if score is not None and not 0 <= score <= 1:
        raise ValueError(
            f"the last column, {score:g}, is not a score from 0 to 1; remove track ids from the "
            "lines, and write rotated boxes as their four corners"
        )
    w, h = size
    if not whole:
        return Annotation(label, score=score)
    if polygon:
        corners = zip(numbers[0:whole:2], numbers[1:whole:2], strict=True)
        parts = unbridge(tuple((x * w, y * h) for x, y in corners))
        return Annotation(label, parts=parts, score=score)
    x, y, bw, bh = numbers[:4]
    box = (x - bw / 2) * w, (y - bh / 2) * h, (x + bw / 2) * w, (y + bh / 2) * h
    if whole == 4:
        return Annotation(label, box=box, score=score)
    keypoints = points.read(numbers[4:whole], size)
    return Annotation(label, box=box, keypoints=keypoints, score=score)
