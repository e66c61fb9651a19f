"""Ultralytics' training arguments for a recipe, chosen by the amount of training.

Ultralytics' defaults are made for hundreds of thousands of iterations. A user with 64 images has
a few hundred. Then the defaults mean one optimiser step per epoch (`nbs` 64), normalisation
statistics that lag behind (momentum 0.03) and three epochs of warm-up: the loss falls, but mAP
stays 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.data_workers import data_workers
from training.planning.recipe import Recipe
from training.schedule import Amount, amount_of

LONG = 10_000  # iterations from which Ultralytics chooses the optimiser (`auto`)
CACHE = 512 * 1024**2  # bytes of decoded images up to which they are cached in memory
SIDED = re.compile(r"(?<![a-z])(left|right|links|rechts|gauche|droite|izquierd|derech)", re.I)


def arguments(
    recipe: Recipe,
    *,
    images: int,
    decoded: int,
    names: Sequence[str],
    data: Path,
    folder: Path,
    device: str,
    cores: int,
    bf16: bool = False,
) -> dict[str, Any]:
    """The training arguments (`overrides`) of an Ultralytics trainer.

    Args:
        recipe: The requested training; its hyperparameters override the choices made here.
        images: Number of training images.
        decoded: Bytes of all images as Ultralytics would cache them in memory.
        names: Class names.
        data: The data.yaml or class-folder root that the trainer reads.
        folder: Folder in which Ultralytics writes `run/` (results.csv, plots).
        device: `cpu` or a CUDA index.
        cores: CPU cores that data loading may use.
        bf16: Whether the device supports bfloat16 natively.
    """
    amount = amount_of(recipe, images)
    # One byte per value. Factor 5: 1 for training, and 2 · 2 for the validation, which Ultralytics
    # 8.4 runs with twice the batch and twice the processes.
    batch_bytes = 5 * recipe.batch * 3 * recipe.imgsz**2
    chosen: dict[str, Any] = {
        "task": recipe.task,
        "mode": "train",
        "model": "yolov8n.yaml",  # never read: the network comes from the start weights
        "data": str(data),
        "epochs": recipe.epochs,
        "imgsz": recipe.imgsz,
        "batch": recipe.batch,
        "patience": recipe.patience,
        "seed": recipe.seed,
        "device": device,
        "workers": 0 if device == "cpu" else data_workers(cores, batch_bytes),
        "cache": "ram" if decoded <= CACHE else False,
        "amp": "bf16" if bf16 else False,  # Ultralytics' check of fp16 downloads weights
        "deterministic": False,
        "plots": False,
        "verbose": False,
        "project": str(folder.resolve()),
        "name": "run",
        "exist_ok": True,
        "nbs": amount.nominal_batch,
        "warmup_epochs": amount.warmup_epochs,
    }
    chosen |= _optimizer(recipe, amount, len(names))
    if recipe.task == "classify":
        chosen["fliplr"] = 0.0
        if amount.iterations < LONG:
            chosen |= {"auto_augment": None, "erasing": 0.1}
    elif any(SIDED.search(name) for name in names):
        chosen["fliplr"] = 0.0  # a mirrored `turn left` belongs to another class
    own = {key: value for key, value in recipe.hyper.items() if key != "bn_momentum"}
    if own.get("cache") == "false":
        own["cache"] = False
    if own.get("auto_augment") == "none":
        own["auto_augment"] = None
    if own.get("amp") is True:
        own["amp"] = chosen["amp"]
    return chosen | own


def _optimizer(recipe: Recipe, amount: Amount, classes: int) -> dict[str, Any]:
    asked = recipe.hyper
    if "optimizer" in asked:
        return {} if str(asked["optimizer"]) in ("SGD", "MuSGD") else {"warmup_bias_lr": 0.0}
    if "lr0" in asked:
        adaptive = float(asked["lr0"]) < 0.005
        return {"optimizer": "AdamW", "momentum": 0.9, "warmup_bias_lr": 0.0} if adaptive else {
            "optimizer": "SGD"
        }  # fmt: skip
    if amount.iterations >= LONG:
        return {"optimizer": "auto"}
    fine = round(0.002 * 5 / (4 + classes), 6)  # the learning rate of Ultralytics' `auto`
    rate = 0.002 if recipe.base.kind == "scratch" else min(0.001, fine)
    return {"optimizer": "AdamW", "lr0": rate, "momentum": 0.9, "warmup_bias_lr": 0.0}
