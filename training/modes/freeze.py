"""Staged unfreezing: the head is trained first, then head and neck, then all layers.

For pretrained start weights: layers are unfrozen from the output backwards, as in the "gradual
unfreezing" of ULMFiT (Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text
Classification", section 3.3), so that the large gradients of a newly initialised head do not
change the pretrained backbone. Each stage lasts `min_epochs_per_stage` epochs; the last one takes
all remaining epochs. Stages that last as long as the metric improves were tried too: they left
fewer epochs for the last stage, and the final metric was lower
(docs/explanation/learning-benchmarks.md). One optimiser and one learning rate schedule span all
stages, and the best checkpoint of all stages is published.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.incremental.class_prototypes import StorePrototypes
from training.mobilenet import trainer as mobilenet
from training.modes.mobilenet import FrozenFeatures, StoredPrototypes
from training.planning.recipe import Recipe
from training.prepare import prepare_training
from training.publish import Trained
from training.yolo import trainer as yolo
from training.yolo.run import Run

if TYPE_CHECKING:
    from jobs.handle import JobHandle
    from training.start_weights import Start
    from training.training_data import TrainingData


def train(recipe: Recipe, job: JobHandle) -> Trained:
    """Train a model in stages, or in a single stage if `use_freeze_strategy` is false.

    Raises:
        VisionLoopError: The dataset, the start weights or the settings cannot be used.
        JobCancelled: The job was cancelled, or the service stops.
    """
    dataset, start = prepare_training(recipe, job)
    is_mobilenet = recipe.family == "mobilenet"
    if not recipe.use_freeze_strategy:
        job.log("use_freeze_strategy is false: all layers train from the start.")
        if is_mobilenet:
            return mobilenet.train(recipe, job, dataset, start, StoredPrototypes())
    elif start.model is None:
        job.log(
            "Training starts from scratch, so the frozen layers are random: until the last "
            "stage, expect lower metrics than from a regular training. Freezing helps only if "
            "the training starts from weights."
        )
    if is_mobilenet:
        staged = FrozenFeatures(recipe.min_epochs_per_stage, job)
        return mobilenet.train(recipe, job, dataset, start, staged)
    return yolo.train(yolo_run(recipe, job, dataset, start))


def yolo_run(recipe: Recipe, job: JobHandle, dataset: TrainingData, start: Start) -> Run:
    """The run of the YOLO trainer, with its stages unless `use_freeze_strategy` is false."""
    run = Run(recipe, job, dataset, start, extensions=(StorePrototypes(),))
    if recipe.use_freeze_strategy:
        groups = layer_groups(start.architecture)
        starts = stage_starts(len(groups), recipe.min_epochs_per_stage)
        run.hooks = {"on_train_epoch_start": StagedUnfreezing(run, groups, starts).enter_epoch}
    return run


@dataclass(frozen=True)
class LayerGroup:
    """Layers that are unfrozen together: `model.FIRST` up to, not including, `model.END`."""

    name: str
    first: int
    end: int


def layer_groups(architecture: dict[str, Any]) -> tuple[LayerGroup, ...]:
    """Head, neck and backbone of a model yaml, in the order they are unfrozen.

    The head is the last layer; the neck is the rest of the yaml's `head` section. A classifier
    has no neck.
    """
    backbone, rest = len(architecture["backbone"]), len(architecture["head"])
    last = backbone + rest - 1
    head, neck = LayerGroup("head", last, last + 1), LayerGroup("neck", backbone, last)
    groups = (head, neck, LayerGroup("backbone", 0, backbone))
    return tuple(group for group in groups if group.end > group.first)


def stage_starts(stages: int, epochs: int) -> tuple[int, ...]:
    """The first epoch (from 0) of each stage.

    Args:
        stages: The number of stages.
        epochs: Number of epochs of each stage except the last.
    """
    return tuple(epochs * stage for stage in range(stages))


class StagedUnfreezing:
    """Sets which layers are trained, at the start of each epoch.

    Args:
        run: The training run; its log and reported values show the stage.
        groups: Layer groups in the order they are unfrozen.
        starts: The first epoch of each stage.
    """

    def __init__(self, run: Run, groups: tuple[LayerGroup, ...], starts: tuple[int, ...]) -> None:
        self.run = run
        self.groups = groups
        self.starts = starts
        self._stage = -1

    def enter_epoch(self, trainer: Any) -> None:
        """Hook: enter the epoch's stage."""
        stage = bisect_right(self.starts, trainer.epoch) - 1
        last = stage == len(self.groups) - 1
        # Early stopping applies to the last stage only, and counts from its start.
        trainer.stopper.patience = (self.run.recipe.patience or math.inf) if last else math.inf
        if last:
            trainer.stopper.best_epoch = max(trainer.stopper.best_epoch, self.starts[-1])
        if stage == self._stage:
            return
        self._stage = stage
        self._freeze(trainer, stage)
        learning = " and ".join(group.name for group in reversed(self.groups[: stage + 1]))
        self.run.job.log(f"Stage {stage + 1} of {len(self.groups)}: {learning} learning.")
        self.run.extra |= {"stage": float(stage + 1), "stages": float(len(self.groups))}

    def _freeze(self, trainer: Any, stage: int) -> None:
        frozen = [i for group in self.groups[stage + 1 :] for i in range(group.first, group.end)]
        # ".dfl" has fixed weights. Ultralytics keeps the BatchNorms of these layers in eval mode.
        trainer.freeze_layer_names = [f"model.{i}." for i in frozen] + [".dfl"]
        for name, parameter in trainer.model.named_parameters():
            is_frozen = any(part in name for part in trainer.freeze_layer_names)
            parameter.requires_grad = not is_frozen and parameter.dtype.is_floating_point
