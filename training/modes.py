"""Which file trains what; the only place that knows all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from training.publication import Trained
from training.recipe import Recipe

if TYPE_CHECKING:
    from training.worker import JobHandle

Trainer = Callable[[Recipe, "JobHandle"], Trained]


def trainer(recipe: Recipe) -> Trainer:
    """The trainer of a recipe. Imports torch, and what this mode needs of Ultralytics."""
    if recipe.family == "mobilenet":
        from training.mobilenet import train
    elif recipe.mode == "regular":
        from training.regular import train
    elif recipe.mode == "freeze_strategy":
        from training.freeze import train
    elif recipe.mode == "incremental":
        from training.incremental import train
    else:
        from training.distillation import train
    return train
