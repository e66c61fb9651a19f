from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models_store.description import Task
from training.planning.base_models import BaseNetwork
from training.planning.recipe import Recipe
from training.yolo.arguments import arguments


def chosen(
    task: Task = "detect",
    *,
    kind: Any = "scratch",
    images: int = 64,
    decoded: int = 10**6,
    epochs: int = 10,
    names: tuple[str, ...] = ("a", "b"),
    device: str = "cpu",
    bf16: bool = False,
    **hyper: Any,
) -> dict[str, Any]:
    base = BaseNetwork(
        kind=kind, value="x", family="yolo", task=task, default_name="x", sentence="From x."
    )
    recipe = Recipe(
        mode="regular",
        family="yolo",
        task=task,
        base=base,
        dataset="/data/data.yaml",
        name="x",
        epochs=epochs,
        imgsz=96,
        batch=8,
        patience=5,
        hyper=hyper,
    )
    return arguments(
        recipe,
        images=images,
        decoded=decoded,
        names=names,
        data=Path("/view/data.yaml"),
        folder=Path("/jobs/1"),
        device=device,
        cores=16,
        bf16=bf16,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"optimizer": "AdamW", "lr0": 0.002, "nbs": 8, "warmup_bias_lr": 0.0}),
        ({"kind": "model"}, {"optimizer": "AdamW", "lr0": 0.001}),
        ({"kind": "model", "names": tuple("abcdefghij")}, {"lr0": 0.000714}),
        ({"images": 50_000, "epochs": 100}, {"optimizer": "auto", "nbs": 64}),
        ({"lr0": 0.01}, {"optimizer": "SGD", "lr0": 0.01}),
        ({"lr0": 0.0005}, {"optimizer": "AdamW", "lr0": 0.0005, "warmup_bias_lr": 0.0}),
        ({"optimizer": "Adam", "lr0": 0.01}, {"optimizer": "Adam", "warmup_bias_lr": 0.0}),
        ({"optimizer": "SGD"}, {"optimizer": "SGD"}),
        ({"nbs": 32, "seed": 3}, {"nbs": 32, "seed": 3}),
        ({"cache": "false", "workers": 2}, {"cache": False, "workers": 2}),
        ({}, {"cache": "ram", "workers": 0, "amp": False, "plots": False}),
        ({"decoded": 10**9}, {"cache": False}),
        ({"device": "0", "bf16": True}, {"workers": 8, "amp": "bf16", "device": "0"}),
        ({"device": "0", "bf16": True, "amp": False}, {"amp": False}),
        ({"amp": True}, {"amp": False}),  # a CPU has none
        ({"task": "classify"}, {"fliplr": 0.0, "auto_augment": None}),
        ({"task": "classify", "fliplr": 0.5}, {"fliplr": 0.5}),
        ({"task": "classify", "auto_augment": "none"}, {"auto_augment": None}),
        ({"names": ("keep_right", "stop")}, {"fliplr": 0.0}),
    ],
)
def test_arguments(options: dict[str, Any], expected: dict[str, Any]) -> None:
    found = chosen(**options)
    assert {name: found[name] for name in expected} == expected


def test_mirroring_stays_on_where_no_class_has_a_side() -> None:
    assert "fliplr" not in chosen(names=("bright lamp", "copyright"))
    assert "bn_momentum" not in chosen(bn_momentum=0.05)  # ours, unknown to Ultralytics


def test_everything_is_an_argument_that_ultralytics_knows() -> None:
    from ultralytics.cfg import get_cfg

    for task in ("detect", "segment", "pose", "classify"):
        get_cfg(overrides=chosen(task))
