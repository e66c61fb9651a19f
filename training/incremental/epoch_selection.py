"""Selects the epoch that an incremental training publishes.

New images usually have no labels of old classes, nor old images of new classes. Ultralytics'
fitness over the val images of both would count correct detections of unlabelled objects as false
positives, and prefer an epoch that has forgotten the old classes or not yet learned the new ones.
So each class is measured on the val images of its own dataset only, as in the forgetting report.
Without old val images, forgetting cannot be measured: then the last epoch is published, with its
averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.incremental.epoch_criteria import NEW, OLD, EpochCriteria
from training.yolo.run import TrainerExtension


class LastEpoch(TrainerExtension):
    """Trainer extension: every epoch is saved as the best, so the last one is published."""

    def before_save(self, trainer: Any) -> None:
        """Ultralytics writes best.pt where `best_fitness` equals `fitness` (8.4.190)."""
        trainer.best_fitness = trainer.fitness


@dataclass(frozen=True)
class BestByPart(TrainerExtension):
    """Trainer extension: the best epoch is the one with the highest mean over old and new classes.

    Fitness is the mean of two means, over the old classes and over the new ones, of AP50-95 (of
    masks or key points where the task has them) or of accuracy. Both means are metrics.
    """

    criteria: EpochCriteria

    metric_names = (OLD, NEW)

    def validator(self, validator: Any) -> Any:
        """A validator that measures each class on the images of its dataset."""
        from training.incremental.part_validators import by_part  # imports Ultralytics

        return by_part(validator, self.criteria)
