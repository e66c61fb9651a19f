"""Regular training: all layers at once, with the trainers' own losses and augmentation.

The defaults that matter for small datasets are in `training.yolo.arguments`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.incremental.class_prototypes import StorePrototypes
from training.mobilenet import trainer as mobilenet
from training.modes.mobilenet import StoredPrototypes
from training.planning.recipe import Recipe
from training.prepare import prepare_training
from training.publish import Trained
from training.yolo import trainer
from training.yolo.run import Run

if TYPE_CHECKING:
    from jobs.handle import JobHandle
    from training.start_weights import Start
    from training.training_data import TrainingData


def train(recipe: Recipe, job: JobHandle) -> Trained:
    """Train a model from its start weights to its best epoch.

    Raises:
        VisionLoopError: The dataset, the start weights or the settings cannot be used.
        JobCancelled: The job was cancelled, or the service stops.
    """
    dataset, start = prepare_training(recipe, job)
    if recipe.family == "mobilenet":
        return mobilenet.train(recipe, job, dataset, start, StoredPrototypes())
    return trainer.train(yolo_run(recipe, job, dataset, start))


def yolo_run(recipe: Recipe, job: JobHandle, dataset: TrainingData, start: Start) -> Run:
    """The run of the YOLO trainer."""
    return Run(recipe, job, dataset, start, extensions=(StorePrototypes(),))
