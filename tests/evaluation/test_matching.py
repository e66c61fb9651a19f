"""Overlaps and pairings by hand, and equal to Ultralytics'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils import metrics as theirs

from evaluation.matching import THRESHOLDS, keypoint_similarity, mask_iou, match, pair
from formats.geometry import box_iou
from tests.support.seeds import rng


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def random_boxes(random: np.random.Generator, count: int, spread: float) -> np.ndarray:
    corner = random.uniform(0, spread, (count, 2))
    size = random.uniform(1, 60, (count, 2))
    return np.concatenate((corner, corner + size), axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        ((0, 0, 10, 10), 1.0),
        ((0, 0, 10, 5), 0.5),
        ((5, 5, 15, 15), 25 / 175),
        ((10, 0, 20, 10), 0.0),  # they touch
        ((3, 3, 3, 3), 0.0),  # no area
    ],
)
def test_iou_of_boxes(other: tuple[float, ...], wanted: float) -> None:
    found = box_iou(boxes((0, 0, 10, 10)), boxes(other))  # type: ignore[arg-type]
    assert found[0, 0] == pytest.approx(wanted, abs=1e-6)


def test_iou_of_masks() -> None:
    left, upper = np.zeros((2, 1, 4, 4), bool)
    left[0, :, :2], upper[0, :2] = True, True
    assert mask_iou(left, upper)[0, 0] == pytest.approx(4 / 12)
    assert mask_iou(left, left)[0, 0] == pytest.approx(1)


def test_similarity_of_poses() -> None:
    place = np.array([[[10, 10, 2], [30, 10, 2], [0, 0, 0]]], np.float32)
    moved = place.copy()
    moved[0, 2, :2] = 500  # not visible, so it does not count
    scale = boxes((0, 0, 40, 20))
    assert keypoint_similarity(place, moved, scale)[0, 0] == pytest.approx(1)
    moved[0, 0, 0] += 8
    # d² / (2 · area · (2σ)²) with σ = 1/3 and 53 % of the box as area
    off = np.exp(-64 / (2 * 800 * 0.53 * (2 / 3) ** 2))
    assert keypoint_similarity(place, moved, scale)[0, 0] == pytest.approx((1 + off) / 2)


def test_a_surer_detection_takes_the_object_first() -> None:
    iou = np.array([[0.6, 0.9]], np.float32)
    right = match(np.array([1, 1]), np.array([1]), iou)
    assert right[:, 0].tolist() == [True, False]  # at 0.5 the surer one has it
    assert right[:, 4].tolist() == [False, True]  # at 0.7 it overlaps too little
    assert not match(np.array([0, 2]), np.array([1]), iou).any()  # other classes
    assert match(np.zeros(0, np.int64), np.array([1]), np.zeros((1, 0), np.float32)).shape == (
        0,
        10,
    )


def test_pairs_disregard_classes_and_are_one_to_one() -> None:
    iou = np.array([[0.9, 0.8, 0.0], [0.0, 0.7, 0.5]], np.float32)
    assert pair(iou).tolist() == [0, 1]
    assert pair(iou, 0.75).tolist() == [0, -1]
    assert pair(np.zeros((2, 0), np.float32)).tolist() == [-1, -1]


def test_thresholds_are_those_of_ultralytics() -> None:
    np.testing.assert_array_equal(THRESHOLDS, torch.linspace(0.5, 0.95, 10).numpy())


@pytest.mark.parametrize("seed", range(5))
def test_overlaps_are_those_of_ultralytics(seed: int) -> None:
    random = rng(seed)
    one, other = random_boxes(random, 12, 200), random_boxes(random, 30, 200)
    wanted = theirs.box_iou(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    np.testing.assert_array_equal(box_iou(one, other), wanted)
    masks, more = random.random((6, 20, 20)) > 0.6, random.random((9, 20, 20)) > 0.4
    flat, rest = (torch.from_numpy(part.reshape(len(part), -1)).float() for part in (masks, more))
    np.testing.assert_allclose(mask_iou(masks, more), theirs.mask_iou(flat, rest).numpy(), 1e-6)
    for count, sigma in ((17, theirs.OKS_SIGMA), (4, np.ones(4) / 4)):
        truth = random.uniform(0, 100, (12, count, 3)).astype(np.float32)
        truth[..., 2] = random.integers(0, 3, (12, count))
        found = random.uniform(0, 100, (30, count, 3)).astype(np.float32)
        areas = (one[:, 2] - one[:, 0]) * (one[:, 3] - one[:, 1]) * np.float32(0.53)
        points, others, scale = (torch.from_numpy(part) for part in (truth, found, areas))
        wanted = theirs.kpt_iou(points, others, scale, list(sigma)).numpy()
        np.testing.assert_allclose(keypoint_similarity(truth, found, one), wanted, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 40), st.booleans())
@settings(max_examples=150, deadline=None)
def test_matches_and_pairs_are_those_of_ultralytics(
    seed: int, objects: int, found: int, rounded: bool
) -> None:
    random = rng(seed)
    truth, ours = random_boxes(random, objects, 60), random_boxes(random, found, 60)
    if rounded:  # ties
        truth, ours = (np.round(part / 20) * 20 for part in (truth, ours))
    true_cls, pred_cls = random.integers(0, 3, objects), random.integers(0, 3, found)
    iou = box_iou(truth, ours)
    validator: Any = BaseValidator.__new__(BaseValidator)
    validator.iouv = torch.linspace(0.5, 0.95, 10)
    classes = (torch.from_numpy(part) for part in (pred_cls, true_cls))
    wanted = validator.match_predictions(*classes, torch.from_numpy(iou.copy())).numpy()
    np.testing.assert_array_equal(match(pred_cls, true_cls, iou), wanted)

    confusion = theirs.ConfusionMatrix(names=dict(enumerate("abc")))
    conf = np.linspace(0.9, 0.3, found, dtype=np.float32)
    confusion.process_batch(
        {
            "cls": torch.from_numpy(pred_cls),
            "conf": torch.from_numpy(conf),
            "bboxes": torch.from_numpy(ours),
        },
        {"cls": torch.from_numpy(true_cls), "bboxes": torch.from_numpy(truth)},
        conf=0.25,
        iou_thres=0.5,
    )
    matrix = np.zeros((4, 4), int)
    paired = pair(iou)
    for cls, j in zip(true_cls, paired, strict=True):
        matrix[cls, pred_cls[j] if j >= 0 else 3] += 1
    for j in set(range(found)) - set(paired.tolist()):
        matrix[3, pred_cls[j]] += 1
    np.testing.assert_array_equal(matrix, confusion.matrix.T)
