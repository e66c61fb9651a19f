"""Staged unfreezing: the head learns first, then the neck with it, then everything.

For start weights that know something worth keeping: layers are released from the output
backwards (Howard and Ruder 2018, section 3.3), so that the large errors of a fresh head never
reach a good backbone. Each stage lasts `min_epochs_per_stage`, the last one as long as there are
epochs. A stage that lasted while its metric rose took those epochs from the last one, and ended
below (docs/explanation/learning-benchmarks.md). One optimiser and one learning rate curve go
through all stages; the best checkpoint of all of them is kept.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.planning.recipe import Recipe
from training.prepare import open_training
from training.publish import Trained
from training.yolo import trainer as yolo
from training.yolo.run import Run

if TYPE_CHECKING:
    from jobs.handle import JobHandle


def train(recipe: Recipe, job: JobHandle) -> Trained:
    """Train a YOLO model in stages; plainly with `use_freeze_strategy` false.

    Raises:
        VisionLoopError: The data set, the start weights or the settings do not work out.
        JobCancelled: A stop was asked for.
    """
    dataset, start = open_training(recipe, job)
    run = Run(recipe, job, dataset, start)
    if not recipe.use_freeze_strategy:
        job.log("use_freeze_strategy is false: all layers train from the start.")
        return yolo.train(run)
    if start.model is None:
        job.log(
            "From scratch, the frozen layers are random: expect less than from a regular "
            "training until the last stage. Start from weights to gain from freezing."
        )
    parts = parts_of(start.architecture)
    starts = stage_starts(len(parts), recipe.min_epochs_per_stage)
    unfreezing = _Unfreezing(run, parts, starts)
    run.hooks = {"on_train_epoch_start": unfreezing.enter}
    return yolo.train(run)


@dataclass(frozen=True)
class LayerGroup:
    """Layers that are released together: `model.FIRST` up to, without, `model.END`."""

    name: str
    first: int
    end: int


def parts_of(architecture: dict[str, Any]) -> tuple[LayerGroup, ...]:
    """Head, neck and backbone of a model yaml, in the order they are released.

    The head is the last layer, the neck what the yaml has before it under `head`; a classifier
    has no neck.
    """
    backbone, rest = len(architecture["backbone"]), len(architecture["head"])
    last = backbone + rest - 1
    head, neck = LayerGroup("head", last, last + 1), LayerGroup("neck", backbone, last)
    parts = (head, neck, LayerGroup("backbone", 0, backbone))
    return tuple(part for part in parts if part.end > part.first)


def stage_starts(stages: int, least: int) -> tuple[int, ...]:
    """The first epoch (from 0) of each stage.

    Args:
        stages: How many there are.
        least: Epochs of each but the last.
    """
    return tuple(least * stage for stage in range(stages))


class _Unfreezing:
    """Sets which layers learn, at the start of each epoch."""

    def __init__(self, run: Run, parts: tuple[LayerGroup, ...], starts: tuple[int, ...]) -> None:
        self.run = run
        self.parts = parts
        self.starts = starts
        self._stage = -1

    def enter(self, trainer: Any) -> None:
        stage = bisect_right(self.starts, trainer.epoch) - 1
        last = stage == len(self.parts) - 1
        # Only the last stage may end the training early, counted from its own start.
        trainer.stopper.patience = (self.run.recipe.patience or math.inf) if last else math.inf
        if last:
            trainer.stopper.best_epoch = max(trainer.stopper.best_epoch, self.starts[-1])
        if stage == self._stage:
            return
        self._stage = stage
        self._freeze(trainer, stage)
        learning = " and ".join(part.name for part in reversed(self.parts[: stage + 1]))
        self.run.job.log(f"Stage {stage + 1} of {len(self.parts)}: {learning} learning.")
        self.run.extra |= {"stage": float(stage + 1), "stages": float(len(self.parts))}

    def _freeze(self, trainer: Any, stage: int) -> None:
        frozen = [i for part in self.parts[stage + 1 :] for i in range(part.first, part.end)]
        # ".dfl" is a fixed sum; Ultralytics keeps its BatchNorms by these names in eval mode too.
        trainer.freeze_layer_names = [f"model.{i}." for i in frozen] + [".dfl"]
        for name, parameter in trainer.model.named_parameters():
            held = any(part in name for part in trainer.freeze_layer_names)
            parameter.requires_grad = not held and parameter.dtype.is_floating_point
