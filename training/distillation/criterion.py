"""The loss of a student: Ultralytics' loss plus the weighted distillation losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.distillation.consistency import (
    ClassifierConsistency,
    DenseConsistency,
    ramp,
    strong_view,
    unchanged_statistics,
)
from training.distillation.losses import (
    BernoulliDistillation,
    BoxDistillation,
    FeatureDistillation,
    MaskDistillation,
    SoftmaxDistillation,
)
from training.distillation.partial_labels import PartialLabelBCE
from training.distillation.teacher import (
    Captured,
    Outputs,
    Teacher,
    has_same_bins,
    relative_boxes,
)
from training.planning.options import DistillationOptions
from training.replay.merged_dataset import is_replayed


@dataclass(frozen=True)
class Tuning:
    """Scale factors of the distillation losses: the real weights for a requested weight of 1.

    `python -m benchmarks.learning distillation --study` compares these values with factors twice
    as large, and with a decay over the epochs.

    Attributes:
        cls, box, feat, mask: Factors that bring each loss to the scale of Ultralytics' losses;
            `cls` also scales the consistency loss of a detector.
        picture: Factor of a classifier's class loss; its consistency loss is not scaled.
        last: Factor of all these losses in the last epoch; they decay to it by a cosine schedule,
            as in YOLOv6 3.0. 1: no decay.
    """

    cls: float = 0.5
    box: float = 0.5
    feat: float = 0.5
    mask: float = 1.0
    picture: float = 0.5
    last: float = 1.0


TUNING = Tuning()


@dataclass(frozen=True)
class CriterionContext:
    """What a criterion needs to know about its training.

    Attributes:
        classes: Ids of the classes that both networks know: in the student, and in the teacher.
        features: The feature loss; None if its weight is 0.
        captured: Features of a classifier, recorded by a hook: its outputs do not contain them.
        unlabelled: Ids of the classes that are not labelled in new, and in old images.
        log: Writes a line into the job's log.
    """

    options: DistillationOptions
    tuning: Tuning
    teacher: Teacher
    classes: tuple[list[int], list[int]]
    features: FeatureDistillation | None
    captured: Captured
    unlabelled: tuple[Sequence[int], Sequence[int]]
    log: Callable[[str], None]


class Criterion:
    """Base class of the losses that replace Ultralytics' criterion during distillation.

    Attributes:
        progress: Share of the epochs done, 0 to 1.
    """

    def __init__(self, context: CriterionContext, student: nn.Module, task_loss: Any) -> None:
        self.context = context
        self.student = student
        self.task_loss = task_loss
        self.progress = 0.0
        self.ours, self.theirs = context.classes

    def __deepcopy__(self, _: dict[int, Any]) -> None:
        """Copies of the student, such as its weight average, get no criterion."""

    def update(self) -> None:
        """Ultralytics calls this after each epoch; end-to-end heads reweight their branches."""
        if hasattr(self.task_loss, "update"):
            self.task_loss.update()

    @property
    def strength(self) -> float:
        """Factor of all distillation losses: decays from 1 to `Tuning.last`."""
        last = self.context.tuning.last
        return last + (1 - last) * (1 + math.cos(math.pi * self.progress)) / 2

    def importance(self, batch: dict[str, Any]) -> Tensor:
        """Weight of each image in the losses (B,): 1, or `replay_distill_boost` if replayed."""
        images, options = batch["img"], self.context.options
        weight = images.new_ones(len(images))
        if options.replays and "im_file" in batch:
            old = [is_replayed(file) for file in batch["im_file"]]
            weight[torch.tensor(old, device=images.device)] = options.replay_distill_boost
        return weight

    def sum(self, terms: dict[str, tuple[float, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses, and each weighted loss by name, for display.

        Args:
            terms: Name → weight and value of each loss.
        """
        strength = self.strength
        scaled = {name: factor * strength * value for name, (factor, value) in terms.items()}
        total = torch.stack([value.float() for value in scaled.values()]).sum()
        return total, {name: value.detach() for name, value in scaled.items()}


class DetectionCriterion(Criterion):
    """The loss of a student with a detection or segmentation head."""

    def __init__(self, context: CriterionContext, student: Any, task_loss: Any) -> None:
        super().__init__(context, student, task_loss)
        options = context.options
        self.scores = BernoulliDistillation(options.temperature)
        self.boxes = BoxDistillation(options.temperature)
        self.masks = MaskDistillation(options.temperature)
        self.consistency = DenseConsistency(options.pseudo_conf_threshold)
        self.has_bins = has_same_bins(student, context.teacher)
        self.strides = [int(stride) for stride in student.model[-1].stride]
        self.open = context.unlabelled
        if options.reg_weight and not self.has_bins:
            context.log(
                "The box loss is disabled, because the heads of teacher and student describe "
                "boxes with different bins."
            )

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        student, images = Outputs.of_head(preds), batch["img"]
        teacher = self.context.teacher(images)
        if any(self.open):
            self._complete(teacher, batch["im_file"])
        loss, items = self.task_loss(preds, batch)
        terms = self._terms(student, teacher, images, self.importance(batch))
        if terms:
            added, shown = self.sum(terms)
            loss, items = torch.cat([loss, added[None] * len(images)]), {**items, **shown}
        return loss, items

    def _complete(self, teacher: Outputs, files: Sequence[str]) -> None:
        """Let the teacher's predictions be the targets of classes that an image's dataset lacks."""
        taught = teacher.scores[..., self.theirs].sigmoid()
        targets = PartialLabelBCE(taught, self.ours, *self.open, files)
        branches = (getattr(self.task_loss, name, None) for name in ("one2many", "one2one"))
        for loss in (self.task_loss, *branches):
            if hasattr(loss, "bce"):
                loss.bce = targets

    def _terms(
        self, student: Outputs, teacher: Outputs, images: Tensor, weight: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        options, tuning = self.context.options, self.context.tuning
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
        if self.context.features is not None:
            value = self.context.features(student.features, teacher.features, weight)
            terms["distill_feat"] = (options.feat_weight * tuning.feat, value)
        if options.mask_weight and student.masks is not None and teacher.masks is not None:
            height, width = images.shape[2:]
            boxes = relative_boxes(teacher, self.strides, (height, width))
            value = self.masks(student.masks, teacher.masks, boxes, confidence, weight)
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


class ClassifierCriterion(Criterion):
    """The loss of a student that is a classifier."""

    def __init__(self, context: CriterionContext, student: Any, task_loss: Any) -> None:
        super().__init__(context, student, task_loss)
        self.scores = SoftmaxDistillation(context.options.temperature)
        self.consistency = ClassifierConsistency(context.options.pseudo_conf_threshold)

    def __call__(self, preds: Tensor, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, items = self.task_loss(preds, batch)
        context, images = self.context, batch["img"]
        options, tuning = context.options, context.tuning
        teacher = context.teacher(images)
        known = torch.isin(batch["cls"], batch["cls"].new_tensor(self.ours))
        weight = self.importance(batch)
        taught = Outputs(teacher.scores[:, self.theirs])
        terms = {}
        if options.cls_weight:
            value = self.scores(preds[:, self.ours], taught.scores, weight * known)
            terms["distill_cls"] = (options.cls_weight * tuning.picture, value)
        if context.features is not None:
            value = context.features(context.captured.features, teacher.features, weight)
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
