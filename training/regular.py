"""Regular training: all layers at once, with Ultralytics' own losses and augmentation.

The defaults that matter for small data sets are in `yolo_arguments`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from settings import get_settings
from training import yolo
from training.data_roots import data_roots
from training.datasets import check
from training.publication import Trained
from training.recipe import Recipe
from training.start_weights import load_start

if TYPE_CHECKING:
    from training.worker import JobHandle


def train(recipe: Recipe, job: JobHandle) -> Trained:
    """Train a YOLO model from its start weights to its best epoch.

    Raises:
        VisionLoopError: The data set, the start weights or the settings do not work out.
        JobCancelled: A stop was asked for.
    """
    settings = get_settings()
    job.report(fraction=0.0, epoch=0, epochs=recipe.epochs)
    for note in recipe.notes:
        job.log(note)

    dataset = check(recipe.dataset, recipe.task, data_roots(settings))
    job.check()
    start = load_start(recipe.base, job.folder / "base", settings)
    job.check()

    return yolo.train(yolo.Run(recipe, job, dataset, start))
