"""Random annotations, as wide as the formats go, and what each format keeps of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from formats.annotations import ABSENT, Annotation, AnnotationPart, Annotations, Keypoint, Ring

NAMES = ("stop", "give way", "priorité")
POINTS = ("tip", "left", "right")

WHERE = st.floats(0.05, 0.95)
SCORES = st.none() | st.floats(0.01, 1).map(lambda value: round(value, 6))


def star(x: float, y: float, radius: float, radii: list[float]) -> Ring:
    """A ring around x, y that never crosses itself."""
    turns = [2 * math.pi * index / len(radii) for index in range(len(radii))]
    return tuple(
        (x + radius * r * math.cos(t), y + radius * r * math.sin(t))
        for r, t in zip(radii, turns, strict=True)
    )


@st.composite
def parts(draw: st.DrawFn, width: int, height: int) -> tuple[AnnotationPart, ...]:
    """One to three stars side by side, each with up to two holes."""
    made = []
    count = draw(st.integers(1, 3))
    for index in range(count):
        radius = min(width / count, height) * draw(st.floats(0.3, 0.45))
        x, y = width * (index + 0.5) / count, height / 2
        radii = st.lists(st.floats(0.7, 1.0), min_size=4, max_size=9)
        holes = tuple(
            star(x + side * radius * 0.3, y, radius * 0.15, draw(radii))
            for side in draw(st.sampled_from([(), (-1,), (-1, 1)]))
        )
        made.append(AnnotationPart(star(x, y, radius, draw(radii)), holes))
    return tuple(made)


@st.composite
def objects(draw: st.DrawFn, width: int, height: int) -> Annotation:
    label, score = draw(st.sampled_from(NAMES)), draw(SCORES)
    kind = draw(st.sampled_from(["box", "parts", "pose", "both", "class"]))
    if kind == "class":
        return Annotation(label, score=score)
    x1, x2 = sorted((draw(WHERE) * width, draw(WHERE) * width))
    y1, y2 = sorted((draw(WHERE) * height, draw(WHERE) * height))
    box = (x1, y1, x2 + 1, y2 + 1)
    keypoints = tuple(
        Keypoint(name, draw(WHERE) * width, draw(WHERE) * height, seen, draw(SCORES))
        if (seen := draw(st.integers(0, 2)))
        else Keypoint(name, visibility=ABSENT)
        for name in POINTS
    )
    if kind == "box":
        return Annotation(label, box=box, score=score)
    if kind == "parts":
        return Annotation(label, parts=draw(parts(width, height)), score=score)
    if not any(point.visibility for point in keypoints):
        keypoints = ()
    if kind == "pose":
        return Annotation(label, box=box, keypoints=keypoints, score=score)
    return Annotation(label, parts=draw(parts(width, height)), keypoints=keypoints, score=score)


@st.composite
def pictures(draw: st.DrawFn) -> Annotations:
    width, height = draw(st.integers(40, 900)), draw(st.integers(40, 900))
    found = draw(st.lists(objects(width, height), max_size=5))
    return Annotations("street 1.jpg", width, height, tuple(found))


def kept_by_label_studio(found: Annotations) -> Annotations:
    """Everything; classes have no order among the objects."""
    return found


def kept_by_coco(found: Annotations) -> Annotations:
    """No classes of the picture, no scores of keypoints."""
    kept = (o for o in found.objects if o.bounds is not None)
    return replace(found, objects=tuple(_unscored(o) for o in kept))


def kept_by_yolo(found: Annotations) -> Annotations:
    """A pose in place of polygon and keypoints, and then no polygons beside it."""
    posed = any(o.keypoints for o in found.objects)
    kept = (
        replace(o, box=o.bounds, parts=()) if o.keypoints and o.parts else o
        for o in found.objects
        if o.keypoints or not o.parts or not posed
    )
    return replace(found, objects=tuple(_unscored(o) for o in kept))


def kept_by_labelme(found: Annotations) -> Annotations:
    """Each class of the picture once and without score, after the objects."""
    places = [o for o in found.objects if o.bounds is not None]
    labels = dict.fromkeys(o.label for o in found.objects if o.bounds is None)
    return replace(found, objects=(*places, *(Annotation(label) for label in labels)))


def kept_by_voc(found: Annotations) -> Annotations:
    """Boxes and polygons, without scores."""
    kept = (o for o in found.objects if o.bounds is not None)
    plain = (replace(o, keypoints=(), score=None) for o in kept)
    return replace(found, objects=tuple(plain))


def kept_by_cvat(found: Annotations) -> Annotations:
    """Everything but scores."""
    objects = tuple(replace(_unscored(o), score=None) for o in found.objects)
    return replace(found, objects=objects)


def _unscored(annotation: Annotation) -> Annotation:
    points = tuple(replace(point, score=None) for point in annotation.keypoints)
    return replace(annotation, keypoints=points)


def same(one: Annotations, other: Annotations, pixels: float = 1e-2) -> None:
    """Assert that both mark the same; parts, holes and ring starts may be in another order."""
    assert (one.image, one.width, one.height) == (other.image, other.width, other.height)
    assert len(one) == len(other)
    for a, b in zip(one.objects, other.objects, strict=True):
        assert a.label == b.label
        assert close(a.score, b.score)
        assert (a.box is None) == (b.box is None)
        assert all(abs(x - y) < pixels for x, y in zip(a.box or (), b.box or (), strict=True))
        assert len(a.keypoints) == len(b.keypoints)
        for p, q in zip(a.keypoints, b.keypoints, strict=True):
            assert (p.name, p.visibility) == (q.name, q.visibility)
            assert close(p.score, q.score)
            assert abs(p.x - q.x) < pixels
            assert abs(p.y - q.y) < pixels
        assert len(a.parts) == len(b.parts)
        for part, other_part in _paired(a.parts, b.parts):
            assert_same_ring(part.outline, other_part.outline, pixels)
            assert len(part.holes) == len(other_part.holes)
            for hole, other_hole in _paired(part.holes, other_part.holes):
                assert_same_ring(hole, other_hole, pixels)


def assert_same_ring(one: Ring, other: Ring, pixels: float) -> None:
    """The same corners, wherever they start."""
    a, b = np.array(one), np.array(other)
    assert len(a) == len(b)
    distances = np.abs(a[:, None] - b[None]).max(axis=2)
    assert distances.min(axis=1).max() < pixels
    assert distances.min(axis=0).max() < pixels


def _paired(one: Sequence[Any], other: Sequence[Any]) -> zip[tuple[Any, Any]]:
    return zip(sorted(one, key=_leftmost), sorted(other, key=_leftmost), strict=True)


def _leftmost(shape: AnnotationPart | Ring) -> float:
    return min(shape.outline if isinstance(shape, AnnotationPart) else shape)[0]


def close(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and abs(one - other) < 1e-6)
