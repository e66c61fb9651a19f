"""Reports of evaluations, made by hand: one figure per class decides the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INSTANCES = 10


def report(
    model_id: str, classes: Mapping[str, float], kind: str = "detection", **more: Any
) -> dict[str, Any]:
    """A report in which class figures are `classes` and the summary is their mean."""
    mean = sum(classes.values()) / len(classes)
    detected = ("precision", "recall", "f1_score", "mAP50", "mAP50_95")
    names = (
        ("accuracy", "precision", "recall", "f1_score") if kind == "classification" else detected
    )
    name, _, version = model_id.partition(":")
    return {
        "model": {"id": model_id, "name": name, "version": version, "type": kind, "family": "yolo"},
        "dataset": {
            "name": "drawn",
            "fingerprint": "f",
            "split": "val",
            "images": 10,
            "instances": 10,
        },
        "engine": "onnxruntime",
        "imgsz": 64,
        "letterbox": None if kind == "classification" else "rect",
        "thresholds": {"confidence": 0.25, "iou": 0.7, "max_det": 300},
        "figures": dict.fromkeys(names, mean) | {"inference_time": 5.0, "images": 10},
        "classes": [
            {"class_id": i, "name": n, "images": INSTANCES, "instances": INSTANCES}
            | dict.fromkeys(names, figure)
            for i, (n, figure) in enumerate(classes.items())
        ],
        "speed": {"preprocess": 1.0, "inference": 5.0, "postprocess": 0.5},
        "created_at": "2026-11-22T02:00:00.000+00:00",
        "job_id": None,
    } | more
