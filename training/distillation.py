"""Distillation: a small network learns from the labels and from what a large one says.

The student trains as it would alone (`training.yolo`); its loss gets further terms, each a class
of `distillation_losses`: the teacher's class scores, its box distributions, its features, its
masks, and with `enable_consistency` its pseudo-labels on disturbed pictures (`consistency`).
Teacher and student may differ in scale and in the order of their classes: names join them, and
classes that the teacher does not know are left to the labels.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from errors import ValidationFailed
from settings import get_settings
from training import yolo
from training.consistency import (
    DenseConsistency,
    PictureConsistency,
    ramp,
    strong_view,
    unchanged_statistics,
)
from training.data_roots import data_roots
from training.datasets import check
from training.distillation_losses import (
    BernoulliDistillation,
    BoxDistillation,
    FeatureDistillation,
    MaskDistillation,
    SoftmaxDistillation,
)
from training.distillation_options import DistillationOptions
from training.publication import Trained
from training.recipe import Recipe
from training.start_weights import load_start
from training.teacher import (
    Captured,
    Outputs,
    Teacher,
    check_fit,
    has_same_bins,
    relative_boxes,
    shared_classes,
)

if TYPE_CHECKING:
    from training.worker import JobHandle

STATE = "distillation.pt"  # beside last.pt: what only the training needs


def train(recipe: Recipe, job: JobHandle) -> Trained:
    """Train a YOLO student with a teacher, from its start weights to its best epoch.

    Raises:
        VisionLoopError: The data set, the weights of either, or the settings do not work out.
        JobCancelled: A stop was asked for.
    """
    settings = get_settings()
    options, named = recipe.distillation, recipe.teacher
    if options is None or named is None:
        raise ValidationFailed("teacher_model_path is missing: give a model id or a path.")
    job.report(fraction=0.0, epoch=0, epochs=recipe.epochs)
    for note in recipe.notes:
        job.log(note)

    dataset = check(recipe.dataset, recipe.task, data_roots(settings))
    job.check()
    start = load_start(recipe.base, job.folder / "base", settings)
    teacher = Teacher(load_start(named, job.folder / "teacher", settings), recipe.task)
    ours, theirs = shared_classes(dataset.names, teacher.names)
    job.log(f"The teacher {named.shown} knows {len(ours)} of the {len(dataset.names)} classes.")
    job.check()

    run = yolo.Run(recipe, job, dataset, start)
    lesson = Lesson(run, options, teacher, (ours, theirs))
    run.hooks = {
        "on_pretrain_routine_end": lesson.begin,
        "on_train_epoch_start": lesson.enter_epoch,
        "on_train_batch_start": lesson.watch,
        "on_train_batch_end": lesson.step,
        "on_model_save": lesson.save,
    }
    return yolo.train(run)


@dataclass(frozen=True)
class Tuning:
    """What weights of 1 mean; measured by `python -m benchmarks.learning distillation --study`.

    Attributes:
        cls, box, feat, mask: Factors that bring each term to the scale of Ultralytics' losses.
        picture: The same for the class term of a classifier.
        last: Share of the terms' strength that is left in the last epoch, after a cosine.
    """

    cls: float = 0.5
    box: float = 0.5
    feat: float = 0.5
    mask: float = 1.0
    picture: float = 0.5
    last: float = 0.1


TUNING = Tuning()


class Lesson:
    """Keeps teacher, losses and projectors beside a running trainer, never inside its model."""

    def __init__(
        self,
        run: yolo.Run,
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
        self.criterion: DenseCriterion | PictureCriterion | None = None

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
        kind = PictureCriterion if teacher.task == "classify" else DenseCriterion
        task_loss = getattr(student, "criterion", None) or student.init_criterion()
        self.criterion = kind(self, student, task_loss)
        student.criterion = self.criterion

    def enter_epoch(self, trainer: Any) -> None:
        assert self.criterion is not None
        self.criterion.progress = trainer.epoch / trainer.epochs

    def watch(self, trainer: Any) -> None:
        """A classifier's outputs do not hold its features: they are taken on their way."""
        if self.features is not None and self.teacher.task == "classify":
            self.captured.next_input(trainer.model.model[-1])

    def step(self, _: Any) -> None:
        """The projectors learn beside the student, each batch."""
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()

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


class _Criterion:
    """Takes the place of Ultralytics' criterion while the student trains.

    Attributes:
        progress: Share of the epochs that is done.
    """

    def __init__(self, lesson: Lesson, student: nn.Module, task_loss: Any) -> None:
        self.lesson = lesson
        self.student = student
        self.task_loss = task_loss
        self.progress = 0.0
        self.ours, self.theirs = lesson.classes

    def __deepcopy__(self, _: dict[int, Any]) -> None:
        """A copy of the student, like its average, has no teacher."""

    def update(self) -> None:
        """Ultralytics calls this after each epoch; end-to-end heads shift weights then."""
        if hasattr(self.task_loss, "update"):
            self.task_loss.update()

    @property
    def strength(self) -> float:
        """From 1 down to `Tuning.last`: in the end the labels decide (as in YOLOv6 3.0)."""
        last = self.lesson.tuning.last
        return last + (1 - last) * (1 + math.cos(math.pi * self.progress)) / 2

    def sum(self, terms: dict[str, tuple[float, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted terms added up, and each of them to be shown."""
        strength = self.strength
        scaled = {name: factor * strength * value for name, (factor, value) in terms.items()}
        total = torch.stack([value.float() for value in scaled.values()]).sum()
        return total, {name: value.detach() for name, value in scaled.items()}


class DenseCriterion(_Criterion):
    """For detection and segmentation heads."""

    def __init__(self, lesson: Lesson, student: Any, task_loss: Any) -> None:
        super().__init__(lesson, student, task_loss)
        options = lesson.options
        self.scores = BernoulliDistillation(options.temperature)
        self.boxes = BoxDistillation(options.temperature)
        self.masks = MaskDistillation(options.temperature)
        self.consistency = DenseConsistency(options.pseudo_conf_threshold)
        self.has_bins = has_same_bins(student, lesson.teacher)
        self.strides = [int(stride) for stride in student.model[-1].stride]
        if options.reg_weight and not self.has_bins:
            lesson.run.job.log(
                "The box term is left out: the heads do not describe boxes by the same bins."
            )

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, items = self.task_loss(preds, batch)
        student, images = Outputs.of_head(preds), batch["img"]
        teacher = self.lesson.teacher(images)
        weight = images.new_ones(len(images))
        terms = self._terms(student, teacher, images, weight)
        if terms:
            added, shown = self.sum(terms)
            loss, items = torch.cat([loss, added[None] * len(images)]), {**items, **shown}
        return loss, items

    def _terms(
        self, student: Outputs, teacher: Outputs, images: Tensor, weight: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        options, tuning = self.lesson.options, self.lesson.tuning
        said, taught = student.scores[..., self.ours], teacher.scores[..., self.theirs]
        confidence = taught.sigmoid().amax(-1)
        anchors, amount = confidence * weight[:, None], confidence.sum().clamp(min=1)
        terms = {}
        if options.cls_weight:
            value = self.scores(said, taught, anchors, amount)
            terms["distill_cls"] = (options.cls_weight * tuning.cls, value)
        if options.reg_weight and self.has_bins:
            assert student.boxes is not None
            assert teacher.boxes is not None
            value = self.boxes(student.boxes, teacher.boxes, anchors, amount)
            terms["distill_box"] = (options.reg_weight * tuning.box, value)
        if self.lesson.features is not None:
            value = self.lesson.features(student.features, teacher.features, weight)
            terms["distill_feat"] = (options.feat_weight * tuning.feat, value)
        if options.mask_weight and student.masks is not None and teacher.masks is not None:
            height, width = images.shape[2:]
            boxes = relative_boxes(teacher, self.strides, (height, width))
            value = self.masks(student.masks, teacher.masks, boxes, anchors, amount)
            terms["distill_mask"] = (options.mask_weight * tuning.mask, value)
        if options.enable_consistency:
            with unchanged_statistics(self.student):
                strong = Outputs.of_head(self.student(strong_view(images)))
            bins = self.has_bins
            value = self.consistency(
                Outputs(strong.scores[..., self.ours], boxes=strong.boxes if bins else None),
                Outputs(taught, boxes=teacher.boxes if bins else None),
                weight,
            )
            factor = options.consistency_weight * tuning.cls * ramp(self.progress)
            terms["consistency"] = (factor, value)
        return terms


class PictureCriterion(_Criterion):
    """For classifiers."""

    def __init__(self, lesson: Lesson, student: Any, task_loss: Any) -> None:
        super().__init__(lesson, student, task_loss)
        self.scores = SoftmaxDistillation(lesson.options.temperature)
        self.consistency = PictureConsistency(lesson.options.pseudo_conf_threshold)

    def __call__(self, preds: Tensor, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, items = self.task_loss(preds, batch)
        lesson, images = self.lesson, batch["img"]
        options, tuning = lesson.options, lesson.tuning
        teacher = lesson.teacher(images)
        known = torch.isin(batch["cls"], batch["cls"].new_tensor(self.ours))
        weight = images.new_ones(len(images))
        taught = Outputs(teacher.scores[:, self.theirs])
        terms = {}
        if options.cls_weight:
            value = self.scores(preds[:, self.ours], taught.scores, weight * known)
            terms["distill_cls"] = (options.cls_weight * tuning.picture, value)
        if lesson.features is not None:
            value = lesson.features(lesson.captured.features, teacher.features, weight)
            terms["distill_feat"] = (options.feat_weight * tuning.feat, value)
        if options.enable_consistency:
            with unchanged_statistics(self.student):
                strong = Outputs(self.student(strong_view(images))[:, self.ours])
            value = self.consistency(strong, taught, weight * known)
            factor = options.consistency_weight * ramp(self.progress)
            terms["consistency"] = (factor, value)
        if terms:
            added, shown = self.sum(terms)
            loss, items = loss + added, {**items, **shown}
        return loss, items
