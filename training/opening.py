"""How every training begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from settings import get_settings
from training.data_roots import data_roots
from training.datasets import Dataset, check
from training.recipe import Recipe
from training.start_weights import Start, load_start

if TYPE_CHECKING:
    from training.worker import JobHandle


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
