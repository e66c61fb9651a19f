"""The settings that an incremental training chooses by itself, from the numbers of images.

Measured with `python -m benchmarks.learning incremental`; docs/explanation/learning-benchmarks.md
has the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from models_store.description import Task
from training.planning.options import REPLAY_RATIO
from training.replay.buffer import share

MOST_REPLAY = 0.75  # largest share of old images that is chosen
LEAST_STEPS = 100  # batches of a training below which it is made longer
TRIAL = 4  # epochs up to which a training is a trial, and is never made longer
MOST_TIMES = 10  # largest factor of the requested epochs


@dataclass(frozen=True)
class ImageNumbers:
    """The numbers that the settings are chosen from.

    Attributes:
        new: New training images.
        kept: Old images in the replay buffer.
        old_classes, added: Old classes, and classes that are added.
    """

    new: int
    kept: int
    old_classes: int
    added: int


@dataclass(frozen=True)
class OwnSettings:
    """The chosen settings, and a sentence on each that is not the requested one."""

    ratio: float
    epochs: int
    sentences: tuple[str, ...] = ()


def choose_settings(
    task: Task, numbers: ImageNumbers, ratio: float, epochs: int, batch: int
) -> OwnSettings:
    """Choose the share of old images and the epochs of a training.

    Args:
        task: The task.
        numbers: The numbers of images and classes.
        ratio: The requested `replay_ratio`; its default leaves the choice to the training.
        epochs: The requested epochs.
        batch: Images in a batch.
    """
    chosen, why = _ratio(task, numbers, ratio)
    longer, reason = _epochs(numbers.new + share(numbers.new, chosen), epochs, batch)
    return OwnSettings(chosen, longer, tuple(text for text in (why, reason) if text))


def _ratio(task: Task, numbers: ImageNumbers, requested: float) -> tuple[float, str]:
    """The share of old images in an epoch, and why.

    For a classifier that gets new classes it is the share of the old classes, so that the images
    of all classes are equally frequent. No old image is used more often than a new one.
    """
    if not numbers.kept:
        return 0.0, ""
    if requested != REPLAY_RATIO or task != "classify" or not numbers.added:
        return requested, ""
    balanced = numbers.old_classes / (numbers.old_classes + numbers.added)
    once = numbers.kept / (numbers.kept + numbers.new)
    chosen = round(max(requested, min(balanced, once, MOST_REPLAY)), 2)
    if chosen == requested:
        return requested, ""
    reason = (
        f"{numbers.old_classes} of {numbers.old_classes + numbers.added} classes are old"
        if balanced <= once
        else f"{numbers.kept} old images are kept for {numbers.new} new ones"
    )
    return chosen, (
        f"replay_ratio is {chosen:g} instead of the default {requested:g}, because {reason}. "
        "Any other value is used as given."
    )


def _epochs(samples: int, requested: int, batch: int) -> tuple[int, str]:
    """The number of epochs, and why it is not the requested one."""
    batches = math.ceil(samples / batch)
    if requested <= TRIAL or requested * batches >= LEAST_STEPS:
        return requested, ""
    chosen = min(MOST_TIMES * requested, math.ceil(LEAST_STEPS / batches))
    return chosen, (
        f"The training lasts {chosen} epochs instead of {requested}: {samples} images in batches "
        f"of {batch} make only {requested * batches} steps in {requested} epochs, and with less "
        f"than {LEAST_STEPS} steps old classes are lost before new ones are learned."
    )
