"""The settings that an incremental training chooses by itself, from the numbers of images.

Measured with `python -m benchmarks.learning incremental`; docs/explanation/learning-benchmarks.md
has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

from models_store.description import Task
from training.planning.options import REPLAY_RATIO

MOST_REPLAY = 0.75  # largest share of old images that is chosen for a classifier
# With more old images, detectors learned new classes less well: a limit, and the part of the share
# at which all classes are equally frequent.
MOST_REPLAY_OF_DETECTORS, REPLAY_PART_OF_DETECTORS = 0.4, 0.7
# Images per old and per new class below which a classifier's features are held.
FEW_OLD, FEW_NEW = 5, 5


@dataclass(frozen=True)
class ImageNumbers:
    """The numbers that the settings are chosen from.

    Attributes:
        new: New training images.
        kept: Old images in the replay buffer.
        old_classes, added: Old classes, and classes that are added.
        absent: Old classes of which no image is kept.
    """

    new: int
    kept: int
    old_classes: int
    added: int
    absent: int = 0


@dataclass(frozen=True)
class OwnSettings:
    """The chosen settings, and a sentence on each that is not the requested one.

    Attributes:
        ratio: Share of old images in an epoch.
        hold_features: Whether a classifier's features stay as they are: it trains without replay,
            only the rows of its new classes.
        balanced: Whether all classes of a classifier are equally frequent.
    """

    ratio: float
    hold_features: bool = False
    sentences: tuple[str, ...] = ()
    balanced: bool = False


def choose_settings(
    task: Task, numbers: ImageNumbers, ratio: float, has_prototypes: bool
) -> OwnSettings:
    """Choose the share of old images, and whether the features are held.

    For a classifier that gets new classes the share is that of the old classes, so that the images
    of all classes are equally frequent, up to a limit. Other models take seven tenths of it. No old
    image is used more often than a new one. If a classifier keeps only a few old images, replaying
    them again and again would cost most of what it knows about the others; if it gets only a few
    new ones, training all layers learns less of them than their rows alone.

    Args:
        task: The task.
        numbers: The numbers of images and classes.
        ratio: The requested `replay_ratio`; its default leaves the choice to the training.
        has_prototypes: Whether the base model was published with class prototypes.
    """
    if not numbers.kept:
        return OwnSettings(0.0)
    if ratio != REPLAY_RATIO or not numbers.added:
        return OwnSettings(ratio)
    classes = numbers.old_classes + numbers.added
    if task == "classify" and has_prototypes and (reason := _too_few(numbers)):
        return OwnSettings(
            0.0,
            True,
            (
                f"Only the last layer's rows of the {numbers.added} new classes are trained, on "
                f"the features of the old model, because {reason}. Give more images, or a "
                f"replay_ratio other than the default {ratio:g}, to train all layers.",
            ),
        )
    balanced = numbers.old_classes / classes
    once = numbers.kept / (numbers.kept + numbers.new)
    if task == "classify":
        wanted = min(balanced, MOST_REPLAY)
    else:
        wanted = min(balanced * REPLAY_PART_OF_DETECTORS, MOST_REPLAY_OF_DETECTORS)
    chosen = round(max(ratio, min(wanted, once)), 2)
    equal = task == "classify" and ratio <= balanced <= min(once, MOST_REPLAY)
    equal = equal and not numbers.absent  # nothing else would hold the classes without images
    sentences = []
    if chosen != ratio:
        reason = (
            f"{numbers.old_classes} of {classes} classes are old"
            if wanted <= once
            else f"{numbers.kept} old images are kept for {numbers.new} new ones"
        )
        sentences.append(
            f"replay_ratio is {chosen:g} instead of the default {ratio:g}, because {reason}. Any "
            "other value is used as given."
        )
    if equal:
        sentences.append(
            "No loss holds the scores of old classes, because all classes are equally frequent."
        )
    return OwnSettings(chosen, False, tuple(sentences), equal)


def _too_few(numbers: ImageNumbers) -> str:
    """Why a classifier's features are held; empty if there are enough images."""
    if numbers.kept < FEW_OLD * numbers.old_classes:
        return (
            f"{numbers.kept} old images are kept for {numbers.old_classes} old classes: with fewer "
            f"than {FEW_OLD} a class, replay loses old classes"
        )
    if numbers.new < FEW_NEW * numbers.added:
        return (
            f"there are {numbers.new} new images for {numbers.added} new classes: with fewer than "
            f"{FEW_NEW} a class, training all layers learns less of them"
        )
    return ""
