"""Which file trains what; the only place that knows all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from errors import ValidationFailed
from training.publication import Trained
from training.recipe import Recipe

if TYPE_CHECKING:
    from training.worker import JobHandle

Trainer = Callable[[Recipe, "JobHandle"], Trained]


def trainer(recipe: Recipe) -> Trainer:
    """The trainer of a recipe. Imports torch."""
    if recipe.family == "mobilenet":
        from training import mobilenet

        return mobilenet.train
    if recipe.mode == "regular":
        from training import regular

        return regular.train
    if recipe.mode == "freeze_strategy":
        from training import freeze

        return freeze.train
    raise ValidationFailed(f"There is no trainer for mode {recipe.mode!r} yet.")
