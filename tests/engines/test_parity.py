"""The comparison of an exported file's outputs with the model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engines.parity import BEST, BOUNDS, Case, Differences, NotTheSame, differences
from inference.prediction import Float
from models_store.description import ModelDescription, Preprocessing, Task
from tests.support.seeds import rng

NAMES = ("a", "b", "c")
ANCHORS = 500


def described(task: Task) -> ModelDescription:
    return ModelDescription(
        task=task,
        family="yolo",
        names=NAMES,
        architecture={},
        preprocessing=Preprocessing(resize="letterbox", imgsz=64),
        keypoint_shape=(2, 3) if task == "pose" else None,
    )


def detections(extra: int = 0) -> Float:
    """Outputs for one image: the scores fall from 0.9, so that the best are known."""
    outputs = rng().uniform(0, 64, (1, 4 + len(NAMES) + extra, ANCHORS)).astype(np.float32)
    scores = outputs[:, 4 : 4 + len(NAMES)]
    scores[:] = 0.01
    scores[0, 0] = np.linspace(0.9, 0.02, ANCHORS)
    return outputs


def compared(task: Task, actual: Sequence[Float], expected: Sequence[Float]) -> Differences:
    found = Differences(described(task))
    found.update(actual, expected)
    return found


def test_equal_outputs_do_not_differ() -> None:
    outputs = detections()
    found = compared("detect", [outputs.copy()], [outputs])
    assert found.to_json(0.0) == {"max_score_error": 0.0, "max_box_error_px": 0.0}
    found.check(BOUNDS["fp32"])


@pytest.mark.parametrize(
    ("row", "anchor", "off", "figure"),
    [
        (0, 3, 0.5, "max_box_error_px"),
        (3, BEST - 1, 0.5, "max_box_error_px"),
        (4, 3, 0.25, "max_score_error"),
        (6, ANCHORS - 1, 0.25, "max_score_error"),  # scores of all candidates count
    ],
)
def test_the_largest_difference_counts(row: int, anchor: int, off: float, figure: str) -> None:
    outputs = detections()
    changed = outputs.copy()
    changed[0, row, anchor] += off
    found = compared("detect", [changed], [outputs])
    assert found.to_json(0.0)[figure] == pytest.approx(off, abs=1e-5)
    with pytest.raises(NotTheSame, match="It is not offered"):
        found.check(BOUNDS["fp32"])


def test_boxes_that_cannot_become_objects_do_not_count() -> None:
    outputs = detections()
    changed = outputs.copy()
    changed[0, 0, BEST:] += 50
    compared("detect", [changed], [outputs]).check(BOUNDS["fp32"])


def test_reduced_precision_is_judged_by_boxes_with_a_score() -> None:
    outputs = detections()
    outputs[0, 4] = np.where(np.arange(ANCHORS) < 40, outputs[0, 4], 0.001)
    changed = outputs.copy()
    changed[0, 0, 40:] += 10
    found = compared("detect", [changed], [outputs])
    found.check(BOUNDS["fp16"])
    with pytest.raises(NotTheSame):
        found.check(BOUNDS["fp32"])


def test_an_image_without_objects_is_compared_too() -> None:
    outputs = detections()
    outputs[0, 4:7] = 0.001
    changed = outputs.copy()
    changed[0, :4] += 10
    with pytest.raises(NotTheSame):
        compared("detect", [changed], [outputs]).check(BOUNDS["fp16"])


def test_keypoints_and_their_visibility() -> None:
    outputs = detections(extra=6)
    moved, hidden = outputs.copy(), outputs.copy()
    moved[0, 8, 0] += 2  # y of the first point
    hidden[0, 9, 0] += 0.5  # its visibility
    assert compared("pose", [moved], [outputs]).figures(0.0)[0] == pytest.approx(2, abs=1e-5)
    assert compared("pose", [hidden], [outputs]).figures(0.0)[1] == pytest.approx(0.5, abs=1e-5)


def test_masks() -> None:
    outputs, protos = detections(extra=4), np.ones((1, 4, 16, 16), np.float32)
    changed = protos.copy()
    changed[0, 1, 2, 3] = 1.5
    found = compared("segment", [outputs, changed], [outputs, protos])
    assert found.to_json(0.0)["max_mask_error"] == pytest.approx(0.5)


def test_scaled_bounds_grow_with_large_inputs_only() -> None:
    assert BOUNDS["fp16"].scaled(320).box == BOUNDS["fp16"].box
    assert BOUNDS["fp16"].scaled(1280).box == 2 * BOUNDS["fp16"].box


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_refused(value: float) -> None:
    outputs = np.full((1, 3), 0.3, np.float32)
    changed = outputs.copy()
    changed[0, 1] = value
    with pytest.raises(NotTheSame, match="NaN or infinite"):
        compared("classify", [changed], [outputs])


def test_other_shapes_are_refused() -> None:
    outputs = np.full((1, 3), 0.3, np.float32)
    with pytest.raises(NotTheSame, match=r"\(1, 2\).*\(1, 3\)"):
        compared("classify", [outputs[:, :2]], [outputs])


def test_batches_are_filled_up() -> None:
    sizes = []

    def run(images: Float) -> list[Float]:
        sizes.append(len(images))
        return [images.mean((2, 3))]

    images = rng().uniform(0, 1, (5, 3, 8, 8)).astype(np.float32)
    case = Case(images, (images.mean((2, 3)),))
    found = differences(run, [case], described("classify"), 4)
    assert sizes == [4, 4]
    assert found.images == 5
    assert found.figures(0.0) == (0.0, 0.0, 0.0)
