"""The training schedule: the amount of training, values derived from it, shares of progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.planning.recipe import Recipe

TRAINING_SHARE = 0.97  # share of training in a job's progress; the rest: publishing, evaluation
SAVE_INTERVAL = 600.0  # seconds after which an unfinished epoch is saved
ENOUGH_STEPS = 1_500  # optimiser steps below which gradients are not accumulated to 64 images


@dataclass(frozen=True)
class Amount:
    """The amount of training: images in an epoch, batch size, number of epochs."""

    images: int
    batch: int
    epochs: int

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return max(1, math.ceil(self.images / self.batch))

    @property
    def iterations(self) -> int:
        """Batches in all epochs."""
        return self.batches * self.epochs

    @property
    def nominal_batch(self) -> int:
        """Images for an optimiser step: 64, or fewer where that would leave too few steps."""
        wanted = self.images * self.epochs // ENOUGH_STEPS
        return max(self.batch, min(64, wanted))

    @property
    def warmup_epochs(self) -> float:
        """A tenth of the epochs, at most 3."""
        return min(3.0, self.epochs / 10)

    @property
    def bn_momentum(self) -> float:
        """Momentum of batch normalisation: Ultralytics' 0.03 for long runs, up to 0.2 for short."""
        return round(min(0.2, max(0.03, 100 / self.iterations)), 4)


def amount_of(recipe: Recipe, images: int) -> Amount:
    """The amount of training of a recipe with the given number of training images."""
    kept = math.ceil(images * float(recipe.hyper.get("fraction", 1.0)))
    return Amount(kept, recipe.batch, recipe.epochs)


def bn_momentum(recipe: Recipe, images: int) -> float:
    """Momentum of batch normalisation: as requested, or by the number of iterations."""
    given = recipe.hyper.get("bn_momentum")
    return float(given) if given is not None else amount_of(recipe, images).bn_momentum
