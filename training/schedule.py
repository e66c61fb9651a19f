"""Amounts of training: epochs, optimizer steps, and the momentum that goes with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.planning.recipe import Recipe

EVERY = 600.0  # seconds after which an epoch is saved, so that a crash costs no hours


ENOUGH_STEPS = 1_500  # optimiser steps wanted before batches are added up to 64 pictures


@dataclass(frozen=True)
class Amount:
    """How much a training sees: pictures an epoch, in batches, over some epochs."""

    images: int
    batch: int
    epochs: int

    @property
    def batches(self) -> int:
        return max(1, math.ceil(self.images / self.batch))

    @property
    def iterations(self) -> int:
        return self.batches * self.epochs

    @property
    def nominal_batch(self) -> int:
        """Pictures an optimiser step: 64, or fewer where that would leave too few steps."""
        wanted = self.images * self.epochs // ENOUGH_STEPS
        return max(self.batch, min(64, wanted))

    @property
    def warmup_epochs(self) -> float:
        return min(3.0, self.epochs / 10)

    @property
    def bn_momentum(self) -> float:
        """Of batch normalisation: Ultralytics' 0.03 for long runs, up to 0.2 for short ones."""
        return round(min(0.2, max(0.03, 100 / self.iterations)), 4)


def amount_of(recipe: Recipe, images: int) -> Amount:
    kept = math.ceil(images * float(recipe.hyper.get("fraction", 1.0)))
    return Amount(kept, recipe.batch, recipe.epochs)


def bn_momentum(recipe: Recipe, images: int) -> float:
    """The momentum of batch normalisation, as asked for or by the number of iterations."""
    given = recipe.hyper.get("bn_momentum")
    return float(given) if given is not None else amount_of(recipe, images).bn_momentum
