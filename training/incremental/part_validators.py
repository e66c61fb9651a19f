"""Ultralytics validators that measure each class on the val images of its own dataset only.

Import this module after `ultralytics_env.prepare()`: it imports Ultralytics. The seam of
Ultralytics 8.4.190 that is overridden is the validators' `get_stats`.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.models.yolo.classify import ClassificationValidator
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator

from evaluation.average_precision import average_precision
from models_store.description import Task
from training.incremental.epoch_criteria import NEW, OLD, EpochCriteria
from training.replay.buffer import files_of
from training.replay.merged_dataset import is_replayed

TRUE_POSITIVES: dict[Task, str] = {"detect": "tp", "segment": "tp_m", "pose": "tp_p"}


class _DetectionStats:
    """Mixed into Ultralytics' detection validators: AP50-95 of the old and the new classes."""

    criteria: EpochCriteria

    def get_stats(self: Any) -> dict[str, Any]:
        """Ultralytics' metrics over the measured classes, the two means, and the fitness."""
        stats = self.metrics.stats
        replayed = _replayed(self.dataloader.dataset)
        for row, is_old in enumerate(replayed):
            classes = list(self.criteria.on(is_old))
            predicted = np.isin(stats["pred_cls"][row], classes)
            labelled = np.isin(stats["target_cls"][row], classes)
            present = np.isin(stats["target_img"][row], classes)
            for name, values in stats.items():
                kept = {"target_cls": labelled, "target_img": present}.get(name, predicted)
                values[row] = values[row][kept]
        means = {}
        for name, is_old in ((OLD, True), (NEW, False)):
            rows = np.flatnonzero(replayed == is_old)
            if not sum(len(stats["target_cls"][row]) for row in rows):
                continue
            keys = (TRUE_POSITIVES[self.args.task], "conf", "pred_cls", "target_cls")
            columns: list[Any] = [np.concatenate([stats[key][row] for row in rows]) for key in keys]
            means[name] = float(average_precision(*columns)[1].mean())
        return _with_means(super().get_stats(), means, self.criteria)  # type: ignore[misc]


class DetectionByPart(_DetectionStats, DetectionValidator):
    """Validates boxes."""


class SegmentationByPart(_DetectionStats, SegmentationValidator):
    """Validates masks."""


class PoseByPart(_DetectionStats, PoseValidator):
    """Validates key points."""


class ClassificationByPart(ClassificationValidator):
    """Validates a classifier: mean per-class accuracy of the old and the new classes."""

    criteria: EpochCriteria

    def get_stats(self: Any) -> dict[str, Any]:
        """Ultralytics' metrics, the two means, and the fitness."""
        targets = torch.cat(self.targets).numpy()
        correct = torch.cat(self.pred)[:, 0].numpy() == targets
        replayed = _replayed(self.dataloader.dataset)
        means = {}
        for name, is_old in ((OLD, True), (NEW, False)):
            accuracies = [
                float(correct[(replayed == is_old) & (targets == cls)].mean())
                for cls in sorted(
                    self.criteria.on(is_old) & set(targets[replayed == is_old].tolist())
                )
            ]
            if accuracies:
                means[name] = fmean(accuracies)
        return _with_means(super().get_stats(), means, self.criteria)


VALIDATORS: dict[Task, Any] = {
    "detect": DetectionByPart,
    "segment": SegmentationByPart,
    "pose": PoseByPart,
    "classify": ClassificationByPart,
}


def by_part(validator: Any, criteria: EpochCriteria) -> Any:
    """A validator that measures by `criteria`, in place of Ultralytics' own.

    Args:
        validator: The trainer's; its loader, folder, arguments and callbacks are taken over.
        criteria: The classes to measure on the val images of each dataset.
    """
    made = VALIDATORS[validator.args.task](
        validator.dataloader,
        save_dir=validator.save_dir,
        args=validator.args,
        _callbacks=validator.callbacks,
    )
    made.criteria = criteria
    return made


def _replayed(dataset: Any) -> NDArray[np.bool_]:
    """Whether each val image is of the old dataset, in the order of validation."""
    return np.array([is_replayed(file) for file in files_of(dataset)])


def _with_means(
    stats: dict[str, Any], means: dict[str, float], criteria: EpochCriteria
) -> dict[str, Any]:
    stats["fitness"] = fmean(means.values()) if means else 0.0
    shown = (OLD, NEW) if criteria.grows else (OLD,)
    return stats | {name: means[name] for name in shown if name in means}
