"""Drawn data sets that follow the seed of the run."""

from __future__ import annotations

from pathlib import Path

from synthetic import shapes
from tests.support.seeds import derived


def write_shapes(
    folder: Path, task: shapes.Task, train: int = 64, val: int = 16, imgsz: int = 96, seed: int = 0
) -> Path:
    """As `synthetic.shapes.write_shapes`; another seed of the run draws other images."""
    return shapes.write_shapes(folder, task, train, val, imgsz, derived(seed))
