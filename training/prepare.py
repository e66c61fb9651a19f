"""The first steps of every training: announce it, read and scan the dataset, load start weights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dataset.allowed_roots import data_roots
from dataset.dataset import Dataset
from dataset.inspection import check
from dataset.issues import require_usable
from settings import get_settings
from training.planning.recipe import Recipe
from training.start_weights import Start, load_start
from training.training_data import TrainingData

if TYPE_CHECKING:
    from jobs.handle import JobHandle

MAX_PROBLEMS = 8  # maximum number of problems in the log
MAX_LENGTH = 300  # maximum number of characters of a problem
LOG_INTERVAL = 30.0  # seconds between two lines on progress; they are the job's heartbeat too


def scan_images(dataset: TrainingData, job: JobHandle) -> None:
    """Read every image, and log what is wrong with the dataset.

    Raises:
        DatasetInvalid: The dataset cannot be trained on.
        JobCancelled: The job was cancelled, or the service stops.
    """
    logged = time.monotonic()

    def progress(done: int, all_: int) -> None:
        nonlocal logged
        job.check()
        if time.monotonic() - logged > LOG_INTERVAL:
            logged = time.monotonic()
            job.log(f"Scanned {done:,} of {all_:,} images.")

    dataset.scan(progress)
    for finding in dataset.findings:
        if finding.kind == "corrupt_image":
            for example in finding.examples:
                job.log(f"Ignored: {example[:MAX_LENGTH]}")
    for finding in dataset.findings[:MAX_PROBLEMS]:
        job.log(f"Dataset: {finding.message[:MAX_LENGTH]}")
    if (more := len(dataset.findings) - MAX_PROBLEMS) > 0:
        job.log(f"Dataset: {more} more kinds of problems; POST /api/datasets/check lists them.")
    require_usable(dataset.findings)


def announce(recipe: Recipe, job: JobHandle) -> None:
    """Report that training has started, and log the notes of its planning."""
    job.report(fraction=0.0, epoch=0, epochs=recipe.epochs)
    for note in recipe.notes:
        job.log(note)


def prepare_training(recipe: Recipe, job: JobHandle) -> tuple[Dataset, Start]:
    """Announce a training, read its dataset, load its start weights.

    Raises:
        VisionLoopError: The dataset or the start weights cannot be used.
        JobCancelled: The job was cancelled, or the service stops.
    """
    announce(recipe, job)
    settings = get_settings()
    dataset = check(recipe.dataset, recipe.task, data_roots(settings))
    job.check()
    start = load_start(recipe.base, job.folder / "base", settings)
    job.check()
    return dataset, start
