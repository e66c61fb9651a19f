"""Regular training: all layers at once, with Ultralytics' own losses and augmentation.

The defaults that matter for small data sets are in `yolo_arguments`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training import yolo
from training.opening import open_training
from training.publication import Trained
from training.recipe import Recipe

if TYPE_CHECKING:
    from training.worker import JobHandle


def train(recipe: Recipe, job: JobHandle) -> Trained:
    """Train a YOLO model from its start weights to its best epoch.

    Raises:
        VisionLoopError: The data set, the start weights or the settings do not work out.
        JobCancelled: A stop was asked for.
    """
    dataset, start = open_training(recipe, job)
    return yolo.train(yolo.Run(recipe, job, dataset, start))
