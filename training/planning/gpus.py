"""Decides on how many GPUs a training runs."""

from __future__ import annotations

from settings import Settings
from training.planning.recipe import Mode, Recipe

MODES: tuple[Mode, ...] = ("regular", "freeze_strategy")  # that can use several GPUs


def with_gpus(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe with the number of GPUs of the settings, or with one GPU and a note why."""
    wanted = settings.train_gpus
    if wanted == 1:
        return recipe
    if recipe.mode not in MODES:
        why = f"mode {recipe.mode} cannot use several"
    elif recipe.family != "yolo":
        why = "only YOLO models can use several"
    elif recipe.batch % wanted:
        why = f"batch {recipe.batch} is not a multiple of {wanted}"
    else:
        note = f"Trains on {wanted} GPUs, with {recipe.batch // wanted} images of a batch on each."
        return recipe.model_copy(update={"gpus": wanted, "notes": (*recipe.notes, note)})
    note = f"Trains on one GPU instead of {wanted} (VISIONLOOP_TRAIN_GPUS): {why}."
    return recipe.model_copy(update={"notes": (*recipe.notes, note)})
