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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dataset.allowed_roots import data_roots
from dataset.inspection import check
from errors import ValidationFailed
from settings import Settings, get_settings
from training.checkpoints import save_checkpoint
from training.distillation.criterion import (
    TUNING,
    ClassifierCriterion,
    CriterionContext,
    DetectionCriterion,
    Tuning,
)
from training.distillation.losses import FeatureDistillation
from training.distillation.teacher import Captured, Teacher, check_fit
from training.incremental.class_prototypes import StorePrototypes
from training.planning.class_union import shared_classes, unite
from training.planning.options import DistillationOptions
from training.planning.recipe import Recipe
from training.prepare import announce
from training.publish import Trained
from training.replay.buffer import Replay, remember, share
from training.replay.merged_dataset import unite_data
from training.start_weights import load_start
from training.training_data import TrainingData
from training.yolo import mid_epoch
from training.yolo import trainer as yolo
from training.yolo.feature_extractor import ImageFeatures
from training.yolo.run import Run

if TYPE_CHECKING:
    from jobs.handle import JobHandle

STATE = "distillation.pt"  # beside last.pt: projectors of the feature loss, and their optimiser
PROJECTOR_RATE = 2e-3  # learning rate of the projectors


def train(recipe: Recipe, job: JobHandle, tuning: Tuning = TUNING) -> Trained:
    """Train a YOLO student with a teacher, from its start weights to its best epoch.

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

    run = Run(recipe, job, dataset, start, extensions=(StorePrototypes(),))
    if replayed:
        new = len(dataset.scan().splits["train"]) - replayed
        run.samples = new + share(new, options.replay_ratio)
        run.extensions = (Replay(options.replay_ratio), *run.extensions)
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


class DistillationSession:
    """Teacher, losses and projectors of a training in progress, kept outside the student.

    So the student, its moving average and its checkpoints contain nothing of the teacher.

    Args:
        context: The context of the criterion, still without the feature loss, which can only be
            built when the student exists.
        state_file: Where projectors and their optimiser are saved.
    """

    def __init__(self, context: CriterionContext, state_file: Path) -> None:
        self.context = context
        self.state_file = state_file
        self.features: FeatureDistillation | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.criterion: DetectionCriterion | ClassifierCriterion | None = None

    def install_criterion(self, trainer: Any) -> None:
        """Hook: install the distillation loss, once student, average and optimiser are built."""
        student, teacher = trainer.model, self.context.teacher
        teacher.to(trainer.device)
        if teacher.task != "classify":
            check_fit(student, teacher)
        if self.context.options.feat_weight:
            self.features = FeatureDistillation(channels(student), channels(teacher.model))
            self.features.to(trainer.device)
            self.optimizer = torch.optim.AdamW(self.features.parameters(), lr=PROJECTOR_RATE)
            if trainer.start_epoch:
                self._load(trainer.device)
        kind = ClassifierCriterion if teacher.task == "classify" else DetectionCriterion
        task_loss = getattr(student, "criterion", None) or student.init_criterion()
        context = replace(self.context, features=self.features)
        self.criterion = kind(context, student, task_loss)
        student.criterion = self.criterion

    def enter_epoch(self, trainer: Any) -> None:
        """Hook: tell the criterion how much of the training is done."""
        assert self.criterion is not None
        self.criterion.progress = trainer.epoch / trainer.epochs

    def capture_features(self, trainer: Any) -> None:
        """Hook: capture a classifier's features, which its outputs do not contain."""
        if self.features is not None and self.context.teacher.task == "classify":
            self.context.captured.next_input(trainer.model.model[-1])

    def step_projectors(self, _: Any) -> None:
        """Hook: an optimiser step of the projectors, after each batch with finite gradients.

        After a non-finite loss Ultralytics restores its checkpoint; the projectors would stay NaN.
        """
        if self.features is None or self.optimizer is None:
            return
        gradients = [p.grad for p in self.features.parameters() if p.grad is not None]
        if all(bool(gradient.isfinite().all()) for gradient in gradients):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def save_within_epoch(self, trainer: Any) -> None:
        """Hook: save within an epoch, after the projectors' step for the last batch."""
        self.step_projectors(trainer)
        self.save(trainer)

    def save(self, _: Any) -> None:
        """Hook: save the projectors and their optimiser."""
        if self.features is None or self.optimizer is None:
            return
        state = {"features": self.features.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_checkpoint(state, self.state_file)

    def _load(self, device: torch.device) -> None:
        assert self.features is not None
        assert self.optimizer is not None
        try:
            state = torch.load(self.state_file, map_location=device, weights_only=True)
            self.features.load_state_dict(state["features"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:  # a damaged file can raise anything
            self.context.log(
                f"The projectors start with new weights, because {self.state_file.name} cannot "
                f"be read ({error})."
            )


def channels(model: Any) -> list[int]:
    """Input channels of the head, for each level."""
    if not hasattr(model, "yaml"):  # MobileNet
        return [model.classifier[-1].in_features]
    head = model.model[-1]
    if hasattr(head, "cv2"):
        return [branch[0].conv.in_channels for branch in head.cv2]
    return [head.conv.conv.in_channels]
