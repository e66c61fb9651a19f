"""Ultralytics' figures under the names that jobs and models show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models_store.description import Task

BY_PART = ("old_classes", "new_classes")  # means of a training on both; see `epoch_choice`
OTHER = {"segment": ("M", "mask"), "pose": ("P", "pose")}  # the second kind of mAP


def losses(running: Mapping[str, Any] | None) -> dict[str, float]:
    """The parts of the training loss, averaged over the epoch so far, and their sum as `loss`."""
    parts = {name: float(value) for name, value in (running or {}).items()}
    return {"loss": sum(parts.values()), **parts} if parts else {}


def scores(metrics: Mapping[str, Any], task: Task, speed: Mapping[str, float]) -> dict[str, float]:
    """What the validation of an epoch found.

    `accuracy` of a classifier is its top-1 accuracy. Detection has no accuracy of its own: given
    is TP / (TP + FP + FN) at the confidence of the best F1, which follows from precision and
    recall there: 1 / (1/P + 1/R − 1).
    """
    found = {
        "val_loss": sum(float(value) for name, value in metrics.items() if name.startswith("val/"))
    }
    if task == "classify":
        found["accuracy"] = float(metrics.get("metrics/accuracy_top1", 0.0))
        found["accuracy_top5"] = float(metrics.get("metrics/accuracy_top5", 0.0))
    else:
        precision = float(metrics.get("metrics/precision(B)", 0.0))
        recall = float(metrics.get("metrics/recall(B)", 0.0))
        found |= {
            "accuracy": detection_accuracy(precision, recall),
            "precision": precision,
            "recall": recall,
            "f1_score": 2 * precision * recall / (precision + recall) if precision else 0.0,
            "mAP50": float(metrics.get("metrics/mAP50(B)", 0.0)),
            "mAP50_95": float(metrics.get("metrics/mAP50-95(B)", 0.0)),
        }
    if task in OTHER:
        letter, name = OTHER[task]
        found[f"{name}_mAP50"] = float(metrics.get(f"metrics/mAP50({letter})", 0.0))
        found[f"{name}_mAP50_95"] = float(metrics.get(f"metrics/mAP50-95({letter})", 0.0))
    found |= {name: float(metrics[name]) for name in BY_PART if name in metrics}
    if speed.get("inference"):
        found["inference_time"] = round(float(speed["inference"]), 3)  # ms a picture
    return found


def detection_accuracy(precision: float, recall: float) -> float:
    """TP / (TP + FP + FN).

    Examples:
        >>> detection_accuracy(0.5, 0.5)  # one right, one wrong, one missed
        0.3333333333333333
    """
    if precision <= 0 or recall <= 0:
        return 0.0
    return 1 / (1 / precision + 1 / recall - 1)
