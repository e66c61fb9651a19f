"""How far two answers to one image may differ: docs/explanation/serving.md.

ONNX Runtime splits a layer among its threads, and the last bits may depend on where: on CPUs
with AVX2 and without AVX-512 keypoints of up to 2,000 px were seen 8e-5 px apart between one
thread and two. The bounds are a hundred times that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from formats.geometry import fill_parts, overlap
from inference.prediction import Prediction

PIXELS = 0.01  # boxes and keypoints
SCORES = 1e-4
MASKS = 0.99  # intersection over union: a contour goes along whole pixels


def assert_close(one: Prediction | None, other: Prediction | None) -> None:
    """Both see the same things within the bounds, in the same order but for ties of scores."""
    assert one is not None
    assert other is not None
    assert len(one) == len(other)
    order = _order_in(other, one)
    assert (one.keypoints is None) == (other.keypoints is None)
    if one.keypoints is not None and other.keypoints is not None:
        np.testing.assert_allclose(one.keypoints, other.keypoints[order], rtol=0, atol=PIXELS)
    assert (one.polygons is None) == (other.polygons is None)
    if one.polygons is not None:
        size = (one.width, one.height)
        for i, j in enumerate(order):
            drawn = [fill_parts(one.outlines(i), *size), fill_parts(other.outlines(j), *size)]
            assert overlap(*drawn) >= MASKS


def _order_in(other: Prediction, one: Prediction) -> list[int]:
    """The positions in `other` of what `one` sees; fails where something has no like there."""
    left, order = list(range(len(other))), []
    for i in range(len(one)):
        like = [
            j
            for j in left
            if other.class_ids[j] == one.class_ids[i]
            and abs(other.scores[j] - one.scores[i]) <= SCORES
            and np.abs(other.boxes[j : j + 1] - one.boxes[i : i + 1]).max(initial=0) <= PIXELS
        ]
        assert like, (i, one.class_ids[i], one.scores[i], one.boxes[i : i + 1])
        order.append(like[0])
        left.remove(like[0])
    return order


def assert_answers_close(one: Any, other: Any) -> None:
    """The same of two answers over HTTP, by the names of their numbers."""
    _meet(one, other, "")


def _meet(one: Any, other: Any, name: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _meet(one[key], other[key], key)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            _meet(a, b, name)
    elif isinstance(one, float):
        assert abs(one - other) <= (SCORES if name in ("confidence", "score") else PIXELS), name
    else:
        assert one == other, name
