"""How every training begins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dataset.allowed_roots import data_roots
from dataset.dataset import Dataset
from dataset.inspection import check
from dataset.issues import require_usable
from dataset.training_data import TrainingData
from settings import get_settings
from training.planning.recipe import Recipe
from training.start_weights import Start, load_start

if TYPE_CHECKING:
    from jobs.handle import JobHandle

TOLD = 8  # problems in the log


LONGEST = 300  # characters of each


SILENCE = 30.0  # seconds between two words on how far it is: signs of life, too


def look_through(dataset: TrainingData, job: JobHandle) -> None:
    """Look at every picture, and log what was found.

    Raises:
        DatasetInvalid: The data set cannot be trained on.
        JobCancelled: A stop was asked for.
    """
    spoken = time.monotonic()

    def seen(done: int, all_: int) -> None:
        nonlocal spoken
        job.check()
        if time.monotonic() - spoken > SILENCE:
            spoken = time.monotonic()
            job.log(f"Looked at {done:,} of {all_:,} pictures.")

    dataset.scan(seen)
    for finding in dataset.findings:
        if finding.kind == "corrupt_image":
            for example in finding.examples:
                job.log(f"Left out: {example[:LONGEST]}")
    for finding in dataset.findings[:TOLD]:
        job.log(f"Dataset: {finding.message[:LONGEST]}")
    if (more := len(dataset.findings) - TOLD) > 0:
        job.log(f"Dataset: {more} more kinds of problems; POST /api/datasets/check lists them.")
    require_usable(dataset.findings)


def announce(recipe: Recipe, job: JobHandle) -> None:
    """Show that it began, and what was decided for it."""
    job.report(fraction=0.0, epoch=0, epochs=recipe.epochs)
    for note in recipe.notes:
        job.log(note)


def open_training(recipe: Recipe, job: JobHandle) -> tuple[Dataset, Start]:
    """Announce it, read its data set, load its start weights.

    Raises:
        VisionLoopError: The data set or the start weights cannot be used.
        JobCancelled: A stop was asked for.
    """
    announce(recipe, job)
    settings = get_settings()
    dataset = check(recipe.dataset, recipe.task, data_roots(settings))
    job.check()
    start = load_start(recipe.base, job.folder / "base", settings)
    job.check()
    return dataset, start
