"""Average precision against hand-computed values and Ultralytics' own."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.utils import metrics as theirs

from evaluation.average_precision import ap_per_class, average_precision, f1_of, smooth
from evaluation.detection import shares
from tests.support.seeds import rng


def levels(*right: bool) -> np.ndarray:
    """(n, 10): right at every threshold or at none."""
    return np.repeat(np.array(right, bool)[:, None], 10, axis=1)


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("right", "objects", "wanted"),
    [
        ((True, True), 2, 0.995),  # the last of COCO's 101 points is always zero
        ((False, False), 2, 0.0),
        ((True,), 2, 0.5 + 0.0),  # half the recall at precision 1
        ((False, True), 1, 0.4975),  # precision 1/2 until recall 1
    ],
)
def test_average_precision_by_hand(right: tuple[bool, ...], objects: int, wanted: float) -> None:
    conf = np.linspace(0.9, 0.5, len(right), dtype=np.float32)
    classes, ap = average_precision(
        levels(*right), conf, ids(*[3] * len(right)), ids(*[3] * objects)
    )
    assert classes.tolist() == [3]
    assert ap[0] == pytest.approx([wanted] * 10, abs=0.006)


def test_a_class_without_detections_counts_and_one_without_objects_does_not() -> None:
    curves = ap_per_class(levels(True, False), np.array([0.9, 0.8]), ids(0, 7), ids(0, 1))
    assert curves.classes.tolist() == [0, 1]
    assert curves.map50 == pytest.approx(0.995 / 2)
    assert curves.recall[1].max() == 0


def test_nothing_to_find_is_zero_everywhere() -> None:
    curves = ap_per_class(np.zeros((0, 10), bool), np.zeros(0), ids(), ids())
    assert (curves.map50, curves.map50_95) == (0.0, 0.0)
    assert curves.mean_at_best() == {"precision": 0.0, "recall": 0.0, "f1_score": 0.0}
    missed = ap_per_class(np.zeros((0, 10), bool), np.zeros(0), ids(), ids(0, 0))
    assert missed.map50 == 0.0


def test_the_best_confidence_is_where_f1_is() -> None:
    # right at 0.9 and 0.6, wrong at 0.3: everything from 0.3 up to 0.6 is perfect
    curves = ap_per_class(
        levels(True, True, False), np.array([0.9, 0.6, 0.3]), ids(0, 0, 0), ids(0, 0)
    )
    assert 0.3 < curves.confidence <= 0.6
    assert curves.mean_at_best()["recall"] == pytest.approx(1.0, abs=0.01)


def test_shares_of_what_is_served_by_hand() -> None:
    found = shares(right=6, false=2, missed=4)
    assert found == {
        "precision": 0.75,
        "recall": 0.6,
        "f1_score": pytest.approx(2 * 0.75 * 0.6 / 1.35),
        "accuracy": 0.5,
    }
    assert set(shares(0, 0, 5).values()) == {0.0}
    assert f1_of(0.0, 0.0) == 0.0


def test_smoothing_repeats_the_ends() -> None:
    assert smooth(np.array([0.0, 0, 3, 0, 0]), 0.4).tolist() == [0, 1, 1, 1, 0]
    np.testing.assert_array_equal(
        smooth(np.linspace(0, 1, 1000) ** 2, 0.1), theirs.smooth(np.linspace(0, 1, 1000) ** 2, 0.1)
    )


@st.composite
def detections(draw: st.DrawFn) -> tuple[Any, ...]:
    """Any detections: many or none, tied scores, classes that only one side has."""
    random = rng(draw(st.integers(0, 2**32 - 1)))
    count, objects = draw(st.integers(0, 200)), draw(st.integers(0, 40))
    classes = draw(st.integers(1, 6))
    steps = draw(st.sampled_from([3, 50, 10**6]))
    conf = (random.integers(0, steps + 1, count) / steps).astype(np.float32)
    quality = random.uniform(0.3, 1.1, count)
    tp = quality[:, None] > np.linspace(0.5, 0.95, 10)[None]
    pred = random.integers(0, classes, count)
    return tp, conf, pred, random.integers(0, classes + 1, objects)


@given(detections())
@settings(max_examples=200, deadline=None)
def test_equal_to_ultralytics(found: tuple[Any, ...]) -> None:
    ours = ap_per_class(*found)
    reference: Any = theirs.ap_per_class
    wanted = reference(*found)
    _, _, p, r, f1, ap, classes, p_curve, r_curve, f1_curve, x, at_recall = wanted
    np.testing.assert_array_equal(ours.classes, classes)
    np.testing.assert_allclose(ours.ap, ap, atol=1e-12)
    for mine, their in (
        (ours.precision, p_curve),
        (ours.recall, r_curve),
        (ours.f1, f1_curve),
        (ours.x, x),
    ):
        np.testing.assert_allclose(mine, their, atol=1e-12)
    for mine, their in ((ours.precision, p), (ours.recall, r), (ours.f1, f1)):
        np.testing.assert_allclose(mine[:, ours.best], their, atol=1e-12)
    if len(classes):
        np.testing.assert_allclose(ours.precision_at_recall, at_recall, atol=1e-12)
    quick_classes, quick = average_precision(*found)
    np.testing.assert_array_equal(quick_classes, classes)
    np.testing.assert_array_equal(quick, ours.ap)


def test_quick_enough_for_resampling() -> None:
    random = rng(0)
    tp = random.random((20_000, 1)) > np.linspace(0.5, 0.95, 10)
    found = tp, random.random(20_000), random.integers(0, 80, 20_000), random.integers(0, 80, 2000)
    average_precision(*found)
    began = time.process_time()
    average_precision(*found)
    assert time.process_time() - began < 5  # seconds of one core
