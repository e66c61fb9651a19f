"""Knowledge distillation: a small network learns from the labels and from a larger network.

The student is trained as in `training.modes.regular`, with additional losses
(`distillation.criterion`) on the teacher's class scores, box distributions, features and masks
(`distillation.losses`). With `enable_consistency`, the teacher's predictions are also pseudo-labels
for strongly augmented images (`distillation.consistency`). Teacher and student may differ in scale
and in the order of their classes: classes are matched by name, and those that the teacher does not
know are learned from labels only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dataset.allowed_roots import data_roots
from dataset.inspection import check
from errors import ValidationFailed
from jobs.artifacts import CHECKPOINTS
from settings import Settings, get_settings
from training.distillation.criterion import (
    TUNING,
    CriterionContext,
    Tuning,
)
from training.distillation.session import STATE, DistillationSession
from training.distillation.teacher import Captured, Teacher
from training.incremental.class_prototypes import StorePrototypes
from training.mobilenet import trainer as mobilenet
from training.modes.mobilenet import Distillation, MergedImages
from training.planning.class_union import shared_classes, unite
from training.planning.options import DistillationOptions
from training.planning.recipe import Recipe
from training.prepare import announce
from training.publish import Trained
from training.replay.buffer import Replay, remember, share
from training.replay.merged_dataset import MergedDataset, unite_data
from training.start_weights import load_start
from training.training_data import TrainingData
from training.yolo import mid_epoch
from training.yolo import trainer as yolo
from training.yolo.feature_extractor import ImageFeatures
from training.yolo.run import Run

if TYPE_CHECKING:
    from jobs.handle import JobHandle


def train(recipe: Recipe, job: JobHandle, tuning: Tuning = TUNING) -> Trained:
    """Train a student with a teacher, from its start weights to its best epoch.

    Raises:
        VisionLoopError: The dataset, the weights of student or teacher, or the settings cannot be
            used.
        JobCancelled: The job was cancelled, or the service stops.
    """
    settings = get_settings()
    options, named = recipe.distillation, recipe.teacher
    if options is None or named is None:
        raise ValidationFailed("teacher_model_path is missing: give a model id or a path.")
    announce(recipe, job)

    dataset, replayed = with_old_data(recipe, options, job, settings)
    start = load_start(recipe.base, job.folder / "base", settings)
    teacher = Teacher(load_start(named, job.folder / "teacher", settings), recipe.task)
    ours, theirs = shared_classes(dataset.names, teacher.names)
    job.log(f"The teacher {named.shown} knows {len(ours)} of the {len(dataset.names)} classes.")
    job.check()

    context = CriterionContext(
        options=options,
        tuning=tuning,
        teacher=teacher,
        classes=(ours, theirs),
        features=None,
        captured=Captured(),
        unlabelled=dataset.unlabelled_classes,
        log=job.log,
    )
    if recipe.family == "mobilenet":
        session = DistillationSession(context, job.folder / CHECKPOINTS / STATE)
        return mobilenet.train(
            recipe, job, dataset, start, Distillation(session, _merged(recipe, dataset, replayed))
        )
    run = Run(recipe, job, dataset, start, extensions=(StorePrototypes(),))
    if replayed:
        new = len(dataset.scan().splits["train"]) - replayed
        run.samples = new + share(new, options.replay_ratio)
        run.extensions = (Replay(options.replay_ratio), *run.extensions)
    session = DistillationSession(context, run.checkpoints / STATE)
    run.hooks = {
        "on_pretrain_routine_end": session.install_criterion,
        "on_train_epoch_start": session.enter_epoch,
        "on_train_batch_start": session.capture_features,
        "on_train_batch_end": session.step_projectors,
        "on_model_save": session.save,
        mid_epoch.EVENT: session.save_within_epoch,
    }
    return yolo.train(run)


def _merged(recipe: Recipe, dataset: TrainingData, replayed: int) -> MergedImages | None:
    """The replay of a MobileNet; None if no image is replayed."""
    if not replayed or not isinstance(dataset, MergedDataset):
        return None
    assert recipe.distillation is not None
    ratio, new = recipe.distillation.replay_ratio, len(dataset.new.splits["train"])
    return MergedImages(dataset, ratio, new + share(new, ratio), recipe.seed)


def with_old_data(
    recipe: Recipe, options: DistillationOptions, job: JobHandle, settings: Settings
) -> tuple[TrainingData, int]:
    """The dataset to train on: the recipe's, merged with a replay buffer if old data is given.

    Returns:
        The dataset, and the number of old images in its train split.
    """
    roots = data_roots(settings)
    dataset = check(recipe.dataset, recipe.task, roots)
    job.check()
    if not options.replays:
        return dataset, 0
    old = check(str(options.old_data), recipe.task, roots, min_classes=1)
    union = unite(dataset.names, old.names, old.counts["train"])
    buffer = remember(
        job.folder,
        old,
        union.ids(old.names),
        options.max_replay_samples,
        "random",
        recipe.seed,
        _no_features,
    )
    extra = f", which adds the classes {', '.join(union.added)}" if union.added else ""
    job.log(
        f"{len(buffer)} old images are replayed, {options.replay_ratio:.0%} of each epoch{extra}."
    )
    united = unite_data(union, dataset, old, buffer)
    if recipe.task != "classify":
        for kind, ids in zip(("new", "old"), united.unlabelled_classes, strict=True):
            if ids:
                names = ", ".join(union.names[i] for i in ids)
                job.log(f"In {kind} images the teacher supplies the labels of: {names}.")
    return united, len(buffer)


def _no_features(_: Sequence[Path]) -> ImageFeatures:
    raise AssertionError("random selection needs no features")
