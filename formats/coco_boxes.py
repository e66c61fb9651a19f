"""Interprets the boxes of COCO documents as different tools write them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from errors import ValidationFailed
from formats.annotations import Annotation, AnnotationPart, Box, Ring
from formats.coordinates import SLACK, Stated, over_the_edge
from formats.geometry import rectangle, turned

NEAR = 1.0  # pixels; largest difference that rounding explains
FAR = 3.0  # pixels; coordinates and sizes below this are too small to determine a scale
FACTOR = 0.05  # smallest difference of a scale from 1


def stated(row: Mapping[str, Any], box: Box, size: tuple[int, int]) -> Stated:
    """The box of an annotation as written, for the check of its convention.

    Args:
        row: The annotation.
        box: Its box, xyxy in pixels.
        size: Width and height of the image in pixels; 0, 0 if unknown.
    """
    given = row.get("area")
    area = float(given) if isinstance(given, int | float) and math.isfinite(given) else None
    x1, y1, x2, y2 = box
    over = any(size) and over_the_edge(box, size) > SLACK
    return Stated((x1, y1, x2 - x1, y2 - y1), over, size, area)


def turned_box(box: Box, attributes: Any, where: str) -> Ring:
    """The corners of a box rotated about its centre by CVAT's attribute `rotation` (degrees).

    Empty if the box is not rotated.

    Raises:
        ValidationFailed: The rotation is not a number.
    """
    given = attributes.get("rotation") if isinstance(attributes, Mapping) else None
    if not given:
        return ()
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise ValidationFailed(
            f"{where}: its attribute 'rotation' must be a number of degrees; got "
            f"{str(given)[:40]!r}."
        )
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    turn = math.radians(given % 360)
    return turned(rectangle(*box), middle, turn) if turn else ()


def are_scaled(given: Any, parts: Sequence[AnnotationPart]) -> bool:
    """Whether a `bbox` is the bounding box of the polygons at another image scale."""
    around = Annotation("", parts=tuple(parts)).bounds
    if around is None or not isinstance(given, list) or len(given) != 4:
        return False
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in given):
        return False
    x, y, w, h = given
    sides = (x, x + w, around[0], around[2]), (y, y + h, around[1], around[3])
    factors = [_factor(*side) for side in sides]
    known = [factor for factor in factors if factor]
    return len(known) == 2 and any(abs(factor - 1) > FACTOR for factor in known)


def _factor(low: float, high: float, other_low: float, other_high: float) -> float:
    """The factor that scales one span to the other; 0 if there is none."""
    if low < FAR or high - low < FAR or other_high - other_low < FAR:
        return 0.0
    factor = other_high / high
    near = NEAR * max(1.0, factor)
    return factor if abs(low * factor - other_low) <= near else 0.0
