"""A run of the YOLO trainer: its inputs, its saved state, and how a training mode changes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from files import atomic_write
from jobs.artifacts import CHECKPOINTS
from training.planning.recipe import Recipe
from training.start_weights import Start

if TYPE_CHECKING:
    from jobs.handle import JobHandle
    from training.training_data import TrainingData

Hook = Callable[[Any], None]  # called with the trainer
STATE = "state.json"  # in the checkpoint folder


class TrainerExtension:
    """Changes parts of a training run; every method here leaves the trainer as it is.

    `Run.extensions` lists the extensions of a run. The trainer calls them in order, and hands the
    result of each to the next. Plain reactions to Ultralytics' events go into `Run.hooks`.

    Attributes:
        metric_names: Metrics that this extension adds to Ultralytics' validation metrics. They
            are reported and stored under the same names.
    """

    metric_names: tuple[str, ...] = ()

    def train_loader(self, trainer: Any, loader: Any) -> Any:
        """Return the data loader of the training split: `loader`, or one in its place."""
        return loader

    def validator(self, validator: Any) -> Any:
        """Return the validator: Ultralytics' own, or one in its place."""
        return validator

    def before_save(self, trainer: Any) -> None:
        """Called once an epoch, before Ultralytics compares its fitness and writes checkpoints."""

    def model_saved(self, run: Run, model: nn.Module, folder: Path) -> None:
        """Called after the best network was written to `folder`; may store more files there."""


@dataclass
class Run:
    """One job's training: its inputs, and the state that a later process needs to resume it.

    Attributes:
        hooks: Ultralytics' event (`on_train_epoch_start`) → callback, called with the trainer.
        extensions: Changes to the trainer itself, in the order they apply.
        overrides: Ultralytics' training arguments, which take precedence over the recipe's.
        samples: Training samples in an epoch; None: each training image once.
        extra: Values to report beside the metrics.
        fitness: Ultralytics' fitness of each completed epoch.
        best: Metrics of the best epoch.
        finished: Whether training is complete.
        done: Number of batches that an earlier process has trained in the epoch to resume.
    """

    recipe: Recipe
    job: JobHandle
    dataset: TrainingData
    start: Start
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    extensions: tuple[TrainerExtension, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    samples: int | None = None
    extra: dict[str, float] = field(default_factory=dict)
    fitness: list[float] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    done: int = 0

    @property
    def checkpoints(self) -> Path:
        """The folder of the job's checkpoints."""
        return self.job.folder / CHECKPOINTS

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metrics that the extensions add to Ultralytics' own."""
        return tuple(name for extension in self.extensions for name in extension.metric_names)

    @property
    def images(self) -> int:
        """Training samples in an epoch, without unreadable images."""
        return self.samples or len(self.dataset.scan().splits["train"])

    @property
    def decoded(self) -> int:
        """Bytes of all decoded images: in full size for `classify`, else resized to imgsz."""
        scanned, imgsz = self.dataset.scan(), self.recipe.imgsz
        used = (image for split in ("train", "val") for image in scanned.splits.get(split, ()))
        images = [scanned.images[image] for image in used]
        if self.recipe.task == "classify":
            return sum(image.width * image.height * 3 for image in images)
        return len(images) * imgsz * imgsz * 3

    def save(self) -> None:
        """Write the state that a later process needs in addition to the checkpoints."""
        state = {"fitness": self.fitness, "best": self.best, "finished": self.finished}
        atomic_write(self.checkpoints / STATE, json.dumps(state))

    def load(self) -> None:
        """Read the state that an earlier attempt of the job saved, if any."""
        try:
            state = json.loads((self.checkpoints / STATE).read_text())
        except (OSError, ValueError):
            return
        self.fitness, self.best, self.finished = (
            state["fitness"],
            state["best"],
            state["finished"],
        )
