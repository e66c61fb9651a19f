"""Regular training: all layers at once, with Ultralytics' own losses and augmentation.

The defaults that matter for small data sets are in `yolo_arguments`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.planning.recipe import Recipe
from training.prepare import open_training
from training.publish import Trained
from training.yolo import trainer
from training.yolo.run import Run

if TYPE_CHECKING:
    from jobs.handle import JobHandle


def train(recipe: Recipe, job: JobHandle) -> Trained:
    """Train a YOLO model from its start weights to its best epoch.

    Raises:
        VisionLoopError: The data set, the start weights or the settings do not work out.
        JobCancelled: A stop was asked for.
    """
    dataset, start = open_training(recipe, job)
    return trainer.train(Run(recipe, job, dataset, start))
