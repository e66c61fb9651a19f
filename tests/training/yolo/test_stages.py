from __future__ import annotations

from typing import Any

import pytest

from training.modes.freeze import layer_groups, stage_starts
from training.planning.base_models import architecture_yaml
from training.schedule import Amount
from training.yolo.metrics import detection_accuracy, losses, scores


@pytest.mark.parametrize(
    ("stages", "least", "starts"),
    [(3, 15, (0, 15, 30)), (2, 5, (0, 5)), (3, 1, (0, 1, 2)), (1, 5, (0,))],
)
def test_every_stage_has_its_epochs_and_the_last_one_the_rest(
    stages: int, least: int, starts: tuple[int, ...]
) -> None:
    assert stage_starts(stages, least) == starts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yolov8n", {"head": (22, 23), "neck": (10, 22), "backbone": (0, 10)}),
        ("yolov8n-seg", {"head": (22, 23), "neck": (10, 22), "backbone": (0, 10)}),
        ("yolov8n-cls", {"head": (9, 10), "backbone": (0, 9)}),
    ],
)
def test_layer_groups_a_network(name: str, expected: dict[str, tuple[int, int]]) -> None:
    parts = layer_groups(architecture_yaml(name))
    assert {part.name: (part.first, part.end) for part in parts} == expected
    assert [part.name for part in parts] == list(expected)


@pytest.mark.parametrize(
    ("amount", "nominal", "warmup", "momentum"),
    [
        (Amount(64, 8, 10), 8, 1.0, 0.2),  # 80 iterations: every one is a step
        (Amount(300, 8, 50), 10, 3.0, 0.0526),
        (Amount(2_000, 16, 50), 64, 3.0, 0.03),
        (Amount(100_000, 16, 100), 64, 3.0, 0.03),
        (Amount(8, 16, 1), 16, 0.1, 0.2),
    ],
)
def test_schedule_by_how_much_there_is_to_learn_from(
    amount: Amount, nominal: int, warmup: float, momentum: float
) -> None:
    assert amount.nominal_batch == nominal
    assert amount.warmup_epochs == pytest.approx(warmup)
    assert amount.bn_momentum == pytest.approx(momentum)


@pytest.mark.parametrize(("right", "wrong", "missed"), [(8, 2, 4), (1, 0, 0), (5, 5, 0), (3, 0, 9)])
def test_detection_accuracy_follows_from_precision_and_recall(
    right: int, wrong: int, missed: int
) -> None:
    precision, recall = right / (right + wrong), right / (right + missed)
    assert detection_accuracy(precision, recall) == pytest.approx(right / (right + wrong + missed))


def test_figures_have_the_names_that_clients_read() -> None:
    metrics: dict[str, Any] = {
        "metrics/precision(B)": 0.8,
        "metrics/recall(B)": 0.5,
        "metrics/mAP50(B)": 0.7,
        "metrics/mAP50-95(B)": 0.4,
        "metrics/mAP50(M)": 0.6,
        "metrics/mAP50-95(M)": 0.3,
        "val/box_loss": 1.0,
        "val/cls_loss": 0.5,
    }
    found = scores(metrics, "segment", {"inference": 12.3456})
    assert found == pytest.approx(
        {
            "val_loss": 1.5,
            "accuracy": 1 / (1 / 0.8 + 1 / 0.5 - 1),
            "precision": 0.8,
            "recall": 0.5,
            "f1_score": 0.8 / 1.3,
            "mAP50": 0.7,
            "mAP50_95": 0.4,
            "mask_mAP50": 0.6,
            "mask_mAP50_95": 0.3,
            "inference_time": 12.346,
        }
    )
    assert losses({"box_loss": 1, "cls_loss": 2}) == {"loss": 3, "box_loss": 1, "cls_loss": 2}
    assert losses(None) == {}
    assert scores({"metrics/accuracy_top1": 0.9}, "classify", {})["accuracy"] == 0.9
