"""The arms of the incremental benchmark: how each of them trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from training.planning.recipe import Recipe


def changes_of(arm: str) -> dict[str, float]:
    """The changed settings in the name of an arm.

    Examples:
        >>> changes_of("ours-random+ratio=0.5+scores=0")
        {'ratio': 0.5, 'scores': 0.0}
    """
    pairs = (change.split("=") for change in arm.split("+")[1:])
    return {name: float(value) for name, value in pairs}


def joint(recipe: Recipe, job: Any) -> Any:
    """Train in mode regular."""
    from training.incremental.epoch_selection import LastEpoch
    from training.prepare import prepare_training
    from training.yolo import trainer as yolo
    from training.yolo.run import Run

    run = Run(recipe, job, *prepare_training(recipe, job))
    run.extensions = (LastEpoch(),)
    return yolo.train(run)


def plain(recipe: Recipe, job: Any) -> Any:
    """Train with the extended head and the replay of mode incremental, without retention loss."""
    from settings import get_settings
    from training.incremental.epoch_selection import LastEpoch
    from training.modes.incremental import set_up
    from training.yolo import trainer as yolo
    from training.yolo.run import Run

    setup = set_up(recipe, job, get_settings())
    run = Run(recipe, job, setup.dataset, setup.start, samples=setup.samples)
    run.extensions = (LastEpoch(), setup.replay)
    return yolo.train(run)


def ours(recipe: Recipe, job: Any, changes: Mapping[str, float]) -> Any:
    """Train in mode incremental, with `changes` of `Strength`, up to the last epoch."""
    from settings import get_settings
    from training.incremental.losses import Strength
    from training.modes.incremental import fit, set_up
    from training.replay.buffer import share

    setup = set_up(recipe, job, get_settings())
    known = {field.name for field in fields(Strength)}
    given = {name: value for name, value in changes.items() if name in known}
    strength = replace(setup.strength, **given)  # type: ignore[arg-type]
    changed: dict[str, Any] = {"strength": strength, "criteria": None}
    if not changes.get("recovered", 1):
        changed["recovery"] = None
    if "ratio" in changes:
        new, ratio = len(setup.dataset.new.splits["train"]), changes["ratio"]
        changed |= {"ratio": ratio, "samples": new + share(new, ratio)}
    if not changes.get("prepared", 1):
        forget_new_rows(setup.start.model, len(setup.old.names))
    return fit(replace(setup, **changed), job)


def forget_new_rows(model: Any, first: int) -> None:
    """Give the new rows of a classifier's last layer random values like those of the old rows."""
    import torch

    from training.start_weights import last_layer

    layer = last_layer(model)
    with torch.no_grad():
        layer.weight[first:].normal_(0, float(layer.weight[:first].std()))
        layer.bias[first:] = layer.bias[:first].mean()


def frozen(recipe: Recipe, job: Any) -> Any:
    """Train like `plain`, with a frozen backbone."""
    from settings import get_settings
    from training.incremental.epoch_selection import LastEpoch
    from training.modes.incremental import set_up
    from training.yolo import trainer as yolo
    from training.yolo.run import Run

    setup = set_up(recipe, job, get_settings())
    run = Run(recipe, job, setup.dataset, setup.start, samples=setup.samples)
    layers = len(setup.start.architecture["backbone"])

    def freeze(trainer: Any) -> None:
        trainer.freeze_layer_names = [*(f"model.{i}." for i in range(layers)), ".dfl"]
        for name, parameter in trainer.model.named_parameters():
            held = any(part in name for part in trainer.freeze_layer_names)
            parameter.requires_grad = not held and parameter.dtype.is_floating_point

    run.hooks = {"on_pretrain_routine_end": freeze}
    run.extensions = (LastEpoch(), setup.replay)
    return yolo.train(run)
