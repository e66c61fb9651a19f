"""Drawn data sets to spoil, and what is found in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dataset.dataset import Dataset
from dataset.inspection import check
from models_store.description import Task

Shapes = Callable[..., Path]


def checked(folder: Path, task: Task = "detect") -> Dataset:
    return check(folder, task, [folder.resolve()])


def kinds(dataset: Dataset) -> dict[str, int]:
    return {finding.kind: finding.count for finding in dataset.findings}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def line(folder: Path, text: str, split: str = "train", name: str = "0000.txt") -> None:
    with (folder / "labels" / split / name).open("a") as file:
        file.write(f"{text}\n")
