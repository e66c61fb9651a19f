"""Distillation: a small network learns from the labels and from what a large one says.

The student trains as it would alone (`training.yolo.trainer`); its loss gets further terms
(`distillation_criteria`), each a class of `distillation_losses`: the teacher's class scores, its
box distributions, its features, its masks, and with `enable_consistency` its pseudo-labels on
disturbed pictures (`consistency`). Teacher and student may differ in scale and in the order of
their classes: names join them, and classes that the teacher does not know are left to the labels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dataset.allowed_roots import data_roots
from dataset.inspection import check
from dataset.training_data import TrainingData
from errors import ValidationFailed
from settings import Settings, get_settings
from training.distillation.criterion import (
    TUNING,
    ClassifierCriterion,
    CriterionContext,
    DetectionCriterion,
    Tuning,
)
from training.distillation.losses import FeatureDistillation
from training.distillation.partial_labels import unlabelled
from training.distillation.teacher import Captured, Teacher, check_fit
from training.planning.class_union import shared_classes, unite
from training.planning.options import DistillationOptions
from training.planning.recipe import Recipe
from training.prepare import announce
from training.publish import Trained
from training.replay.buffer import Replaying, remember, share
from training.replay.merged_dataset import unite_data
from training.start_weights import load_start
from training.yolo import mid_epoch
from training.yolo import trainer as yolo
from training.yolo.feature_extractor import ImageFeatures
from training.yolo.run import Run

if TYPE_CHECKING:
    from jobs.handle import JobHandle

STATE = "distillation.pt"  # beside last.pt: what only the training needs


def train(recipe: Recipe, job: JobHandle, tuning: Tuning = TUNING) -> Trained:
    """Train a YOLO student with a teacher, from its start weights to its best epoch.

    Raises:
        VisionLoopError: The data set, the weights of either, or the settings do not work out.
        JobCancelled: A stop was asked for.
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

    run = Run(recipe, job, dataset, start)
    if replayed:
        fresh = len(dataset.scan().splits["train"]) - replayed
        run.samples = fresh + share(fresh, options.replay_ratio)
        run.extensions = (type("Replay", (Marking, Replaying), {"ratio": options.replay_ratio}),)
    lesson = DistillationSession(run, options, teacher, (ours, theirs), tuning)
    run.hooks = {
        "on_pretrain_routine_end": lesson.begin,
        "on_train_epoch_start": lesson.enter_epoch,
        "on_train_batch_start": lesson.watch,
        "on_train_batch_end": lesson.step,
        "on_model_save": lesson.save,
        mid_epoch.EVENT: lesson.save_within,
    }
    return yolo.train(run)


def with_old_data(
    recipe: Recipe, options: DistillationOptions, job: JobHandle, settings: Settings
) -> tuple[TrainingData, int]:
    """The data set, together with a memory of old pictures where that was asked for.

    Returns:
        What to train on, and how many old pictures are in it.
    """
    roots = data_roots(settings)
    dataset = check(recipe.dataset, recipe.task, roots)
    job.check()
    if not options.replays:
        return dataset, 0
    old = check(str(options.old_data), recipe.task, roots, min_classes=1)
    union = unite(dataset.names, old.names, old.counts["train"])
    memory = remember(
        job.folder,
        old,
        union.ids(old.names),
        options.max_replay_samples,
        "random",
        recipe.seed,
        _unseen,
    )
    extra = f", which adds the classes {', '.join(union.added)}" if union.added else ""
    job.log(
        f"{len(memory)} old pictures are replayed, {options.replay_ratio:.0%} of each epoch{extra}."
    )
    united = unite_data(union, dataset, old, memory)
    if recipe.task != "classify":
        for kind, ids in zip(("new", "old"), unlabelled(united), strict=True):
            if ids:
                names = ", ".join(union.names[i] for i in ids)
                job.log(f"In {kind} pictures the teacher stands in for labels of: {names}.")
    return united, len(memory)


def _unseen(_: Sequence[Path]) -> ImageFeatures:
    raise AssertionError("pictures that chance chooses are not looked at")


class Marking:
    """Mixed into a classifier's trainer: batches say which files they are of, as others do."""

    def build_dataset(self: Any, img_path: Any, mode: str = "train", batch: Any = None) -> Any:
        dataset = super().build_dataset(img_path, mode, batch)  # type: ignore[misc]
        if mode == "train" and hasattr(dataset, "samples"):
            kind = type(dataset)

            def item(self: Any, index: int) -> dict[str, Any]:
                return {**kind.__getitem__(self, index), "im_file": self.samples[index][0]}

            dataset.__class__ = type("Marked", (kind,), {"__getitem__": item})
        return dataset


class DistillationSession:
    """Keeps teacher, losses and projectors beside a running trainer, never inside its model."""

    def __init__(
        self,
        run: Run,
        options: DistillationOptions,
        teacher: Teacher,
        classes: tuple[list[int], list[int]],
        tuning: Tuning = TUNING,
    ) -> None:
        self.run = run
        self.options = options
        self.teacher = teacher
        self.classes = classes
        self.tuning = tuning
        self.captured = Captured()  # the student's features, where its outputs do not hold them
        self.features: FeatureDistillation | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.criterion: DetectionCriterion | ClassifierCriterion | None = None

    def begin(self, trainer: Any) -> None:
        """Once the student, its average and its optimiser are there."""
        student, options, teacher = trainer.model, self.options, self.teacher
        teacher.to(trainer.device)
        if teacher.task != "classify":
            check_fit(student, teacher)
        if options.feat_weight:
            self.features = FeatureDistillation(channels(student), channels(teacher.model))
            self.features.to(trainer.device)
            self.optimizer = torch.optim.AdamW(self.features.parameters(), lr=2e-3)
            if trainer.start_epoch:
                self._load(trainer)
        kind = ClassifierCriterion if teacher.task == "classify" else DetectionCriterion
        task_loss = getattr(student, "criterion", None) or student.init_criterion()
        context = CriterionContext(
            options=options,
            tuning=self.tuning,
            teacher=teacher,
            classes=self.classes,
            features=self.features,
            captured=self.captured,
            unlabelled=unlabelled(self.run.dataset),
            log=self.run.job.log,
        )
        self.criterion = kind(context, student, task_loss)
        student.criterion = self.criterion

    def enter_epoch(self, trainer: Any) -> None:
        assert self.criterion is not None
        self.criterion.progress = trainer.epoch / trainer.epochs

    def watch(self, trainer: Any) -> None:
        """A classifier's outputs do not hold its features: they are taken on their way."""
        if self.features is not None and self.teacher.task == "classify":
            self.captured.next_input(trainer.model.model[-1])

    def step(self, _: Any) -> None:
        """The projectors learn beside the student, each batch that has a finite loss.

        Ultralytics goes back to its checkpoint after another; the projectors would stay spoilt.
        """
        if self.features is None or self.optimizer is None:
            return
        gradients = [p.grad for p in self.features.parameters() if p.grad is not None]
        if all(bool(gradient.isfinite().all()) for gradient in gradients):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def save_within(self, trainer: Any) -> None:
        """An epoch is cut after a batch, the step of which the projectors have not made yet."""
        self.step(trainer)
        self.save(trainer)

    def save(self, _: Any) -> None:
        if self.features is None or self.optimizer is None:
            return
        target = self.run.checkpoints / STATE
        temporary = target.with_name(f"{STATE}.writing")
        state = {"features": self.features.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, temporary)
        os.replace(temporary, target)

    def _load(self, trainer: Any) -> None:
        path: Path = self.run.checkpoints / STATE
        assert self.features is not None
        assert self.optimizer is not None
        try:
            state = torch.load(path, map_location=trainer.device, weights_only=True)
            self.features.load_state_dict(state["features"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:  # whatever a damaged file provokes
            self.run.job.log(f"The projectors start afresh: {STATE} cannot be read ({error}).")


def channels(model: Any) -> list[int]:
    """What the head gets from each level."""
    if not hasattr(model, "yaml"):  # MobileNet
        return [model.classifier[-1].in_features]
    head = model.model[-1]
    if hasattr(head, "cv2"):
        return [branch[0].conv.in_channels for branch in head.cv2]
    return [head.conv.conv.in_channels]
