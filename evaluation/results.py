"""Return types of the metric classes: the errors of one image, and the metrics of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

INCREMENTAL = ("old_classes_before", "old_classes", "forgotten", "new_classes")
"""Metrics that an incremental training wrote; a later evaluation keeps them."""

INCREMENTAL_LETTERBOX = "old_classes_letterbox"
"""The letterbox of these, where the other metrics have another one."""


def led(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics in the order to read them: old and new classes of an incremental training first."""
    return {name: metrics[name] for name in INCREMENTAL if name in metrics} | dict(metrics)


@dataclass(frozen=True, slots=True)
class ImageErrors:
    """The errors of one image, as `update` counted them.

    Attributes:
        severity: Sort key; greater is worse. Its first number is the image's score in the report.
        reason: A description of the errors; empty if there is none.
    """

    severity: tuple[float, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class SplitMetrics:
    """The metrics of a split, as `compute` returns them.

    Attributes:
        summary: Metric name to value, from 0 to 1.
        report: The sections of report.json that depend on the task: `classes`, `confusion`,
            `curves` and, of detections, `at_best_f1` and `at_serving`. JSON-serialisable.
        predictions: The arrays of predictions.npz, from which two evaluations are compared.
        instances: Number of annotated objects in the split; for a classifier, of images.
    """

    summary: dict[str, float]
    report: dict[str, Any]
    predictions: Mapping[str, NDArray[np.generic]]
    instances: int
