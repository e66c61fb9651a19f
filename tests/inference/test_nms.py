"""Equal to Ultralytics' NMS with torchvision's kernel, also where it hurts."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torchvision  # Ultralytics takes its kernel if it is imported
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.utils import nms

from inference.nms import non_max_suppression, suppress
from inference.prediction import Float
from tests.support.seeds import rng


def theirs(output: Float, nc: int, conf: float, iou: float, max_det: int) -> Float:
    tensor = torch.from_numpy(output.copy())[None]
    return nms.non_max_suppression(tensor, conf, iou, nc=nc, max_det=max_det)[0].numpy()


def assert_equal(output: Float, nc: int, conf: float, iou: float, max_det: int = 300) -> int:
    wanted = theirs(output, nc, conf, iou, max_det)
    boxes, scores, class_ids, extra = non_max_suppression(output, nc, conf, iou, max_det)
    np.testing.assert_array_equal(boxes, wanted[:, :4])
    np.testing.assert_array_equal(scores, wanted[:, 4])
    np.testing.assert_array_equal(class_ids, wanted[:, 5])
    np.testing.assert_array_equal(extra, wanted[:, 6:])
    return len(boxes)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("nc", "extra"), [(1, 0), (3, 0), (80, 5)])
def test_several_labels_a_box_as_validation_counts_them(seed: int, nc: int, extra: int) -> None:
    output = random_output(seed, 300, nc, extra)
    tensor = torch.from_numpy(output.copy())[None]
    (wanted,) = nms.non_max_suppression(tensor, 0.2, 0.6, nc=nc, multi_label=True)
    boxes, scores, class_ids, more = non_max_suppression(output, nc, 0.2, 0.6, multi_label=True)
    np.testing.assert_array_equal(boxes, wanted[:, :4])
    np.testing.assert_array_equal(scores, wanted[:, 4])
    np.testing.assert_array_equal(class_ids, wanted[:, 5])
    np.testing.assert_array_equal(more, wanted[:, 6:])


def random_output(seed: int, anchors: int, nc: int, extra: int = 0, spread: float = 600) -> Float:
    random = rng(seed)
    output = np.empty((4 + nc + extra, anchors), np.float32)
    output[:2] = random.uniform(0, spread, (2, anchors))
    output[2:4] = random.uniform(5, 150, (2, anchors))
    output[4:] = random.uniform(0, 1, (nc + extra, anchors)) ** 3
    return output


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("nc", "extra"), [(1, 0), (3, 0), (80, 0), (2, 32), (1, 51)])
@pytest.mark.parametrize(("conf", "iou"), [(0.25, 0.7), (0.001, 0.45), (0.6, 0.0), (0.3, 1.0)])
def test_random_boxes(seed: int, nc: int, extra: int, conf: float, iou: float) -> None:
    assert assert_equal(random_output(seed, 500, nc, extra), nc, conf, iou) > 0


@pytest.mark.parametrize("max_det", [1, 7, 300])
def test_thousands_of_candidates_are_quick(max_det: int) -> None:
    output = random_output(0, 8400, 80)
    assert assert_equal(output, 80, 0.001, 0.7, max_det) == max_det
    start = time.process_time()
    non_max_suppression(output, 80, 0.001, 0.7, max_det)
    assert time.process_time() - start < 20  # seconds of one core


def test_identical_boxes_and_scores_keep_the_first() -> None:
    output = np.repeat(random_output(1, 5, 2), 40, axis=1)
    assert assert_equal(output, 2, 0.1, 0.7) <= 5


@pytest.mark.parametrize("classes", [(0,), (1, 3), (0, 1, 2, 3), (9,)])
@pytest.mark.parametrize("max_det", [3, 300])
def test_wanted_classes_as_ultralytics_filters_them(classes: tuple[int, ...], max_det: int) -> None:
    output = random_output(5, 500, 4, 2)
    tensor = torch.from_numpy(output.copy())[None]
    (wanted,) = nms.non_max_suppression(
        tensor, 0.2, 0.6, classes=list(classes), nc=4, max_det=max_det
    )
    got = non_max_suppression(output, 4, 0.2, 0.6, max_det, classes=classes)
    boxes, scores, class_ids, extra = got
    np.testing.assert_array_equal(boxes, wanted[:, :4])
    np.testing.assert_array_equal(scores, wanted[:, 4])
    np.testing.assert_array_equal(class_ids, wanted[:, 5])
    np.testing.assert_array_equal(extra, wanted[:, 6:])
    assert (len(boxes) > 0) == (classes != (9,))


def test_max_det_counts_the_wanted_classes() -> None:
    output = random_output(6, 300, 3)
    every = non_max_suppression(output, 3, 0.2, 0.6)
    rare = int(every[2][-1])
    first = non_max_suppression(output, 3, 0.2, 0.6, 2, classes=(rare,))
    of_it = every[2] == rare
    np.testing.assert_array_equal(first[1], every[1][of_it][:2])
    np.testing.assert_array_equal(first[0], every[0][of_it][:2])


def test_boxes_without_area() -> None:
    output = random_output(2, 200, 2, spread=3)
    output[2:4, ::2] = 0
    output[2, 1::4] = 0
    output[:2] = np.round(output[:2])
    assert_equal(output, 2, 0.1, 0.5)


def test_nothing_above_the_threshold() -> None:
    boxes, scores, class_ids, extra = non_max_suppression(random_output(0, 50, 3, 7), 3, conf=1.0)
    assert boxes.shape == (0, 4)
    assert scores.shape == class_ids.shape == (0,)
    assert extra.shape == (0, 7)


def test_classes_do_not_suppress_each_other() -> None:
    output = np.array([[50, 50], [50, 50], [20, 20], [20, 20], [0.9, 0.1], [0.1, 0.8]], np.float32)
    assert assert_equal(output, 2, 0.25, 0.5) == 2


def test_what_is_not_finite_is_dropped_and_disturbs_nothing() -> None:
    output = random_output(3, 300, 3)
    wanted = non_max_suppression(output[:, 4:], 3)
    output[0, 0] = np.nan
    output[3, 1] = np.inf
    output[4, 2] = np.nan
    output[:4, 3] = -np.inf
    output[4:, :4] = np.maximum(output[4:, :4], 0.99)
    got = non_max_suppression(output, 3)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


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
@settings(max_examples=300, deadline=None)
def test_grids_full_of_ties(rows: list[tuple[float, ...]], iou: float) -> None:
    if len(rows) == 6:  # Ultralytics would take six anchors for the output of an end-to-end model
        rows = rows[:5]
    assert_equal(np.array(rows, np.float32).T.copy(), 2, 0.25, iou)


@given(seed=st.integers(0, 10_000), iou=st.floats(0, 1), count=st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_kernel_is_that_of_torchvision(seed: int, iou: float, count: int) -> None:
    random = rng(seed)
    low = random.uniform(0, 50, (count, 2))
    high = low + random.uniform(0, 40, (count, 2))
    boxes = np.concatenate((low, high), axis=1).astype(np.float32)
    scores = random.choice([0.2, 0.5, 0.9], count).astype(np.float32)
    wanted = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
    np.testing.assert_array_equal(suppress(boxes, scores, iou, count), wanted.numpy())
