"""Selection on the device keeps exactly what NumPy keeps of the same outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.gpu import suppression
from inference.gpu.suppression import rank, suppress
from inference.nms import non_max_suppression
from inference.postprocess import Thresholds
from inference.prediction import Float
from tests.support.seeds import rng


def outputs(n: int, anchors: int, nc: int, extra: int = 0, seed: int = 0) -> Float:
    random = rng(seed)
    found = np.empty((n, 4 + nc + extra, anchors), np.float32)
    found[:, :2] = random.uniform(0, 600, (n, 2, anchors))
    found[:, 2:4] = random.uniform(5, 150, (n, 2, anchors))
    found[:, 4:] = random.uniform(0, 1, (n, nc + extra, anchors)) ** 3
    return found


def assert_equal(output: Float, nc: int, wanted: Sequence[Thresholds]) -> list[int]:
    """Returns the number of detections in each image."""
    kept = suppress(rank(torch.from_numpy(output.copy()), nc), nc, wanted)
    counts: list[int] = kept.counts.tolist()
    assert len(counts) == len(wanted)
    for i, each in enumerate(wanted):
        expected = non_max_suppression(
            output[i], nc, each.confidence, each.iou, each.max_det, classes=each.classes
        )
        rows = kept.rows[i, : counts[i]].numpy()
        got = rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64), rows[:, 6:]
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    return counts


@pytest.mark.parametrize(("nc", "extra"), [(1, 0), (3, 0), (80, 0), (2, 32), (1, 51)])
@pytest.mark.parametrize(("conf", "iou"), [(0.25, 0.7), (0.001, 0.45), (0.6, 0.0), (0.3, 1.0)])
def test_random_boxes(nc: int, extra: int, conf: float, iou: float) -> None:
    wanted = [Thresholds(conf, iou, 300)] * 3
    assert min(assert_equal(outputs(3, 500, nc, extra), nc, wanted)) > 0


def test_each_image_has_its_own_thresholds() -> None:
    wanted = [
        Thresholds(0.25, 0.7, 300),
        Thresholds(0.25, 0.3, 5),
        Thresholds(0.9999, 0.7, 300),
        Thresholds(0.1, 0.7, 300, (1, 3)),
        Thresholds(0.1, 0.7, 2, (2,)),
        Thresholds(0.1, 0.7, 300, (9,)),
        Thresholds(0.1, 0.7, 300, ()),
    ]
    counts = assert_equal(outputs(7, 600, 4, 2), 4, wanted)
    assert counts[0] > 5
    assert counts[1:3] == [5, 0]
    assert counts[3] > 2
    assert counts[4:] == [2, 0, 0]


def test_rows_beyond_the_images_are_passed_over() -> None:
    output = outputs(4, 300, 3)
    ranked = rank(torch.from_numpy(output), 3)
    assert len(suppress(ranked, 3, [Thresholds(0.2, 0.7, 300)] * 2).counts) == 2


def test_nothing_above_the_threshold() -> None:
    kept = suppress(rank(torch.from_numpy(outputs(2, 50, 3, 7)), 3), 3, [Thresholds(1, 0.7, 9)] * 2)
    assert kept.counts.tolist() == [0, 0]
    assert kept.rows.shape == (2, 0, 6 + 7)


@pytest.mark.parametrize("dense", [64, 1024])
def test_images_of_many_candidates_and_of_few_in_one_batch(
    dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppression, "DENSE", dense)
    monkeypatch.setattr(suppression, "PAIRS", dense**2)  # so a batch is done in parts
    wanted = [Thresholds(conf, 0.6, 2000) for conf in (0.001, 0.95, 0.3, 0.001, 0.9)]
    counts = assert_equal(outputs(5, 2000, 3), 3, wanted)
    assert len(set(counts)) > 3


def test_more_candidates_than_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("inference.nms", "inference.gpu.suppression"):
        monkeypatch.setattr(f"{module}.MAX_NMS", 100)
    assert_equal(outputs(2, 700, 3), 3, [Thresholds(0.01, 0.7, 300)] * 2)


def test_identical_boxes_and_scores_keep_the_first() -> None:
    output = np.repeat(outputs(2, 5, 2, 1), 40, axis=2)
    output[:, -1] = np.arange(output.shape[2])  # tells which of the equals was kept
    assert max(assert_equal(output, 2, [Thresholds(0.1, 0.7, 300)] * 2)) <= 5


def test_what_is_not_finite_is_dropped_and_disturbs_nothing() -> None:
    output = outputs(2, 300, 3)
    output[0, 0, 0] = np.nan
    output[0, 3, 1] = np.inf
    output[0, 4, 2] = np.nan
    output[0, :4, 3] = -np.inf
    output[0, 5, 4] = np.inf
    output[0, 4:, :2] = np.maximum(output[0, 4:, :2], 0.99)
    assert_equal(output, 3, [Thresholds(0.25, 0.7, 300)] * 2)


def test_boxes_without_area() -> None:
    output = outputs(1, 200, 2)
    output[:, :2] = np.round(output[:, :2] / 200)
    output[:, 2:4, ::2] = 0
    assert_equal(output, 2, [Thresholds(0.1, 0.5, 300)])


@given(
    rows=st.lists(
        st.tuples(
            *(st.integers(0, 12),) * 2,
            *(st.integers(0, 8),) * 2,
            *(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.9, 1.0]),) * 2,
        ),
        min_size=1,
        max_size=40,
    ),
    iou=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_grids_full_of_ties(rows: list[tuple[Any, ...]], iou: float) -> None:
    assert_equal(np.array(rows, np.float32).T[None].copy(), 2, [Thresholds(0.25, iou, 300)])


@given(seed=st.integers(0, 10_000), iou=st.floats(0, 1), conf=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_thresholds_between_two_single_precision_numbers(
    seed: int, iou: float, conf: float
) -> None:
    assert_equal(outputs(2, 80, 2, seed=seed), 2, [Thresholds(conf, iou, 300)] * 2)
