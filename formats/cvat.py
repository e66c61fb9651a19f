"""Writes predictions and label specs for CVAT's detector functions.

Coordinates are flat lists in pixels. A mask becomes a polygon per part; holes are bridged into the
ring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any
from xml.sax.saxutils import quoteattr

from formats.annotations import Annotation, Annotations, Keypoint
from formats.geometry import bridge
from models_store.description import Task

Item = dict[str, Any]

TYPES: dict[Task, str] = {
    "detect": "rectangle",
    "segment": "polygon",
    "pose": "points",
    "classify": "tag",
}


def to_cvat(found: Annotations, skeletons: bool = False) -> list[Item]:
    """Writes a prediction as CVAT shapes.

    Args:
        found: The prediction.
        skeletons: Write keypoints as named elements of a skeleton, for CVAT labels of that type;
            otherwise as one `points` shape of the keypoints present.
    """
    return [item for thing in found.objects for item in _items(thing, skeletons)]


def label_spec(
    names: Sequence[str], task: Task, points: Sequence[str] = (), skeletons: bool = False
) -> list[Item]:
    """The `spec` of a detector function: its labels."""
    if not (skeletons and points):
        return [{"id": i, "name": name, "type": TYPES[task]} for i, name in enumerate(names)]
    sublabels = [{"id": i, "name": name, "type": "points"} for i, name in enumerate(points, 1)]
    return [
        {"id": i, "name": name, "type": "skeleton", "svg": _svg(points), "sublabels": sublabels}
        for i, name in enumerate(names)
    ]


def _items(thing: Annotation, skeletons: bool) -> list[Item]:
    if thing.keypoints:
        return _posed(thing, skeletons)
    if thing.parts:
        rings = (bridge((part.outline, *part.holes)) for part in thing.parts)
        return [_item(thing, "polygon", list(chain.from_iterable(ring))) for ring in rings]
    if thing.box is not None:
        return [_item(thing, "rectangle", list(thing.box))]
    return [_item(thing, "tag", [])]


def _posed(thing: Annotation, skeletons: bool) -> list[Item]:
    seen = [point for point in thing.keypoints if point.visibility]
    if not seen:
        return []
    if not skeletons:
        return [_item(thing, "points", [value for p in seen for value in (p.x, p.y)])]
    elements = [_element(point, thing) for point in seen]
    return [_item(thing, "skeleton", []) | {"elements": elements}]


def _element(point: Keypoint, thing: Annotation) -> Item:
    score = thing.score if point.score is None else point.score
    return {
        "label": point.name,
        "type": "points",
        "outside": 0,
        "points": [point.x, point.y],
        "confidence": _text(score),
        "attributes": [],
    }


def _item(thing: Annotation, kind: str, points: list[float]) -> Item:
    item: Item = {"label": thing.label, "type": kind, "confidence": _text(thing.score)}
    item["attributes"] = []
    return item | ({"points": points} if kind not in ("tag", "skeleton") else {})


def _text(score: float | None) -> str:
    """A confidence as text, as CVAT's detector functions write it."""
    return f"{1.0 if score is None else score:.6g}"


def _svg(points: Sequence[str]) -> str:
    """The SVG of a skeleton: the points on a circle, in the markup of CVAT's label editor."""
    circles = []
    for i, name in enumerate(points, 1):
        angle = 2 * math.pi * i / len(points)
        x, y = 50 + 40 * math.cos(angle), 50 + 40 * math.sin(angle)
        circles.append(
            f'<circle r="1.5" stroke="black" fill="#b3b3b3" cx="{x:.2f}" cy="{y:.2f}" '
            f'stroke-width="0.1" data-type="element node" data-element-id="{i}" '
            f'data-node-id="{i}" data-label-name={quoteattr(name)}></circle>'
        )
    return "".join(circles)
