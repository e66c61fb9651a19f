"""Converts Ultralytics' losses and metrics to the metric names of jobs and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models_store.description import Task

OTHER = {"segment": ("M", "mask"), "pose": ("P", "pose")}  # the second kind of mAP


def losses(running: Mapping[str, Any] | None) -> dict[str, float]:
    """The terms of the training loss, averaged over the epoch so far, and their sum as `loss`."""
    terms = {name: float(value) for name, value in (running or {}).items()}
    return {"loss": sum(terms.values()), **terms} if terms else {}


def scores(
    metrics: Mapping[str, Any], task: Task, speed: Mapping[str, float], more: Sequence[str] = ()
) -> dict[str, float]:
    """The validation metrics of one epoch.

    `accuracy` of a classifier is its top-1 accuracy. For the other tasks, which have no standard
    accuracy, it is TP / (TP + FP + FN) at the confidence threshold with the best F1, computed from
    precision and recall as 1 / (1/P + 1/R − 1).

    Args:
        metrics: Ultralytics' metrics of the epoch.
        task: The model's task.
        speed: Ultralytics' stages → milliseconds per image.
        more: Names of further metrics to include, if `metrics` has them.
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
    found |= {name: float(metrics[name]) for name in more if name in metrics}
    if speed.get("inference"):
        found["inference_time"] = round(float(speed["inference"]), 3)  # ms per image
    return found


def detection_accuracy(precision: float, recall: float) -> float:
    """TP / (TP + FP + FN), from precision and recall.

    Examples:
        >>> detection_accuracy(0.5, 0.5)  # one TP, one FP, one FN
        0.3333333333333333
    """
    if precision <= 0 or recall <= 0:
        return 0.0
    return 1 / (1 / precision + 1 / recall - 1)
