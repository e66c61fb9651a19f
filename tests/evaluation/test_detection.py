"""Serving metrics of masks and poses: a right box may have a wrong mask; update and reset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dataset.class_matching import JoinedClasses
from evaluation.detection import DetectionMetrics
from evaluation.ground_truth import GroundTruth
from evaluation.plots import f1_confidence
from inference.prediction import Prediction
from inference.preprocess import Letterbox
from models_store.description import Task
from tests.support.small_models import NAMES, small_description

SIZE = 64
PLACE = Letterbox(96, 48, SIZE)  # the image is wider than the network's input
BOXES = np.array([[4, 4, 40, 40], [50, 8, 90, 44]], np.float32)
IDS = np.array([0, 2], np.int64)


def square(box: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = box
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def metrics_of(task: Task) -> tuple[DetectionMetrics, list[np.ndarray]]:
    """Empty metrics, and the raw outputs of a network that detects nothing."""
    description = small_description(task)
    extra = {"segment": 32, "pose": 12}[task]
    outputs = [np.zeros((4 + len(NAMES) + extra, 1), np.float32)]
    if task == "segment":
        outputs.append(np.zeros((32, SIZE // 4, SIZE // 4), np.float32))
    return DetectionMetrics(description, JoinedClasses.of(NAMES, NAMES)), outputs


def perfect(task: Task, truth: GroundTruth) -> Prediction:
    return Prediction(
        task,
        NAMES,
        truth.width,
        truth.height,
        truth.class_ids,
        np.array([0.9, 0.8], np.float32),
        truth.boxes,
        polygons=None if truth.polygons is None else tuple((p,) for p in truth.polygons),
        keypoints=truth.keypoints,
    )


def counted(report: dict[str, Any], kind: str) -> list[tuple[float, float]]:
    """Precision and recall of all objects, then of those of the second class."""
    rows = {row["name"]: row for row in report["classes"]}
    parts = (report[f"{kind}at_serving"], rows[NAMES[2]][f"{kind}at_serving"])
    return [(part["precision"], part["recall"]) for part in parts]


TRUE_MASKS = GroundTruth(96, 48, IDS, BOXES, polygons=tuple(square(b) for b in BOXES))
SLIVER = np.array([[50, 8], [52, 8], [90, 44]], np.float32)


@pytest.mark.parametrize(
    ("second", "hole", "right"),
    [
        (square(BOXES[1]), None, True),
        (SLIVER, None, False),
        (square(BOXES[1]), square(np.array([52, 10, 88, 42])), False),  # a frame
        (square(BOXES[1]), square(np.array([60, 20, 70, 30])), True),
    ],
    ids=["whole", "sliver", "hollow", "pierced"],
)
def test_a_served_mask_is_judged_by_its_own_overlap(
    second: np.ndarray, hole: np.ndarray | None, right: bool
) -> None:
    metrics, outputs = metrics_of("segment")
    served = replace(perfect("segment", TRUE_MASKS), polygons=((square(BOXES[0]),), (second,)))
    if hole is not None:
        served = replace(served, holes=(((),), ((hole,),)))
    metrics.update("a.jpg", outputs, PLACE, TRUE_MASKS, served)
    report = metrics.compute().report
    assert counted(report, "") == [(1, 1), (1, 1)]
    share = 1 if right else 0.5
    assert counted(report, "mask_") == [(share, share), (float(right), float(right))]


@pytest.mark.parametrize(("off", "right"), [(0, True), (40, False)])
def test_a_served_pose_is_judged_by_its_points(off: float, right: bool) -> None:
    points = np.stack([square(box) for box in BOXES])
    truth = GroundTruth(
        96, 48, IDS, BOXES, keypoints=np.dstack([points, np.full((2, 4, 1), 2, np.float32)])
    )
    moved = perfect("pose", truth)
    assert moved.keypoints is not None
    keypoints = moved.keypoints.copy()
    keypoints[1, :, :2] += off
    metrics, outputs = metrics_of("pose")
    metrics.update("a.jpg", outputs, PLACE, truth, replace(moved, keypoints=keypoints))
    report = metrics.compute().report
    assert counted(report, "") == [(1, 1), (1, 1)]
    share = 1 if right else 0.5
    assert counted(report, "pose_") == [(share, share), (float(right), float(right))]
    assert set(report["pose_at_best_f1"]) == {"confidence", "precision", "recall", "f1_score"}


def test_the_reported_f1_is_a_named_point_of_the_curve() -> None:
    """The raw curve has a narrow peak elsewhere: what is reported is what is shown and stored."""
    scores = {0.50: BOXES[0], 0.49: BOXES[1], 0.48: BOXES[0] + 45, 0.47: BOXES[1] - 40}
    raw = np.zeros((4 + len(NAMES), len(scores)), np.float32)
    inside = SIZE / 96  # the image is scaled to the network's input, and padded above and below
    for i, (score, box) in enumerate(scores.items()):
        x1, y1, x2, y2 = box * inside + np.array([0, 16, 0, 16])
        raw[:4, i] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        raw[4, i] = score
    truth = GroundTruth(96, 48, np.zeros(2, np.int64), BOXES)
    metrics = DetectionMetrics(small_description("detect"), JoinedClasses.of(NAMES, NAMES))
    metrics.update("a.jpg", [raw], PLACE, truth, replace(perfect("detect", truth)))
    found = metrics.compute()
    report, curve = found.report, found.report["curves"]["box"]
    at = found.summary["f1_confidence"]
    assert report["at_best_f1"] == {
        "confidence": at,
        **{name: found.summary[name] for name in ("precision", "recall", "f1_score")},
    }
    (point,) = np.flatnonzero(np.isclose(curve["x"], at, atol=5e-5))
    for name in ("precision", "recall", "f1_score"):
        assert curve["mean"][name][point] == pytest.approx(found.summary[name], abs=1e-4)
    (row,) = (row for row in report["classes"] if row["instances"])
    line = curve["classes"][row["name"]]["f1_score"]
    assert line[point] == pytest.approx(row["f1_score"], abs=1e-4)
    assert curve["x"] == sorted(set(curve["x"]))
    assert max(curve["mean"]["f1_score"]) > found.summary["f1_score"] + 0.1
    legend = (
        f1_confidence(
            report | {"thresholds": {"confidence": 0.25}, "figures": found.summary}, "box"
        )
        .axes[0]
        .get_legend_handles_labels()[1]
    )
    assert f"F1 {found.summary['f1_score']:.3f} at confidence {at:.3f}" in legend


def test_a_class_that_the_dataset_has_no_name_for_is_not_counted() -> None:
    description = small_description("segment")
    metrics = DetectionMetrics(description, JoinedClasses.of(NAMES, NAMES[:1]))
    _, outputs = metrics_of("segment")
    truth = GroundTruth(96, 48, IDS[:1], BOXES[:1], polygons=(square(BOXES[0]),))
    metrics.update("a.jpg", outputs, PLACE, truth, perfect("segment", TRUE_MASKS))
    report = metrics.compute().report
    assert report["mask_at_serving"]["precision"] == report["at_serving"]["precision"] == 1


@pytest.mark.parametrize("task", ["segment", "pose"])
def test_an_image_without_objects_or_without_predictions_is_counted_too(task: Task) -> None:
    empty = np.zeros(0, np.int64)
    polygons = () if task == "segment" else None
    points = np.zeros((0, 4, 3), np.float32) if task == "pose" else None
    nothing = GroundTruth(96, 48, empty, BOXES[:0], polygons=polygons, keypoints=points)
    kind = {"segment": "mask_", "pose": "pose_"}[task]
    some = TRUE_MASKS
    if task == "pose":
        shown = np.concatenate([np.stack([square(b) for b in BOXES]), np.ones((2, 4, 1))], -1)
        some = GroundTruth(96, 48, IDS, BOXES, keypoints=shown.astype(np.float32))
    for truth, seen in ((nothing, some), (some, nothing), (nothing, nothing)):
        metrics, outputs = metrics_of(task)
        served = perfect(task, seen)
        served = replace(served, scores=served.scores[: len(seen)])
        metrics.update("a.jpg", outputs, PLACE, truth, served)
        found = metrics.compute().report[f"{kind}at_serving"]
        assert (found["precision"], found["recall"]) == (0, 0)


def test_reset_forgets_every_image() -> None:
    metrics, outputs = metrics_of("segment")
    served = perfect("segment", TRUE_MASKS)
    metrics.update("a.jpg", outputs, PLACE, TRUE_MASKS, served)
    once = metrics.compute()
    metrics.update("b.jpg", outputs, PLACE, TRUE_MASKS, served)
    assert metrics.compute().instances == 2 * once.instances
    metrics.reset()
    assert metrics.compute().instances == 0
    metrics.update("a.jpg", outputs, PLACE, TRUE_MASKS, served)
    again = metrics.compute()
    assert (again.summary, again.report) == (once.summary, once.report)
