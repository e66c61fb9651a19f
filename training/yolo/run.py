"""A run of Ultralytics' trainer, and the hook by which a training mode changes it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.artifacts import CHECKPOINTS
from training.planning.recipe import Recipe
from training.start_weights import Start

if TYPE_CHECKING:
    from dataset.training_data import TrainingData
    from jobs.handle import JobHandle

Hook = Callable[[Any], None]  # gets the trainer


@dataclass
class Run:
    """One job's training: what it needs, and what must outlive the process."""

    recipe: Recipe
    job: JobHandle
    dataset: TrainingData
    start: Start
    hooks: Mapping[str, Hook] = field(default_factory=dict)  # Ultralytics' events
    extensions: tuple[type, ...] = ()  # mixed in before Ultralytics' trainer
    samples: int | None = None  # in an epoch; None: each training picture once
    extra: dict[str, float] = field(default_factory=dict)  # reported beside the metrics
    fitness: list[float] = field(default_factory=list)  # of each finished epoch
    best: dict[str, float] = field(default_factory=dict)  # metrics of the best epoch
    finished: bool = False
    done: int = 0  # batches of the first epoch that an earlier process trained

    @property
    def checkpoints(self) -> Path:
        return self.job.folder / CHECKPOINTS

    @property
    def images(self) -> int:
        """Training pictures of an epoch, without unreadable ones."""
        return self.samples or len(self.dataset.scan().splits["train"])

    @property
    def decoded(self) -> int:
        """Bytes of the pictures in memory: a classifier's are kept in full, others scaled."""
        scanned, imgsz = self.dataset.scan(), self.recipe.imgsz
        used = (image for split in ("train", "val") for image in scanned.splits.get(split, ()))
        pictures = [scanned.images[image] for image in used]
        if self.recipe.task == "classify":
            return sum(picture.width * picture.height * 3 for picture in pictures)
        return len(pictures) * imgsz * imgsz * 3

    def save(self) -> None:
        state = {"fitness": self.fitness, "best": self.best, "finished": self.finished}
        temporary = self.checkpoints / "state.json.writing"
        temporary.write_text(json.dumps(state))
        os.replace(temporary, self.checkpoints / "state.json")

    def load(self) -> None:
        """What an earlier attempt noted, if it did."""
        try:
            state = json.loads((self.checkpoints / "state.json").read_text())
        except (OSError, ValueError):
            return
        self.fitness, self.best, self.finished = (
            state["fitness"],
            state["best"],
            state["finished"],
        )
