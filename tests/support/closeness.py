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
    """Both see the same things in the same order, within the bounds."""
    assert one is not None
    assert other is not None
    assert one.class_ids.tolist() == other.class_ids.tolist()
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=SCORES)
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=PIXELS)
    assert (one.keypoints is None) == (other.keypoints is None)
    if one.keypoints is not None and other.keypoints is not None:
        np.testing.assert_allclose(one.keypoints, other.keypoints, rtol=0, atol=PIXELS)
    assert (one.polygons is None) == (other.polygons is None)
    if one.polygons is not None:
        size = (one.width, one.height)
        for i in range(len(one)):
            drawn = [fill_parts(found.outlines(i), *size) for found in (one, other)]
            assert overlap(*drawn) >= MASKS


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
