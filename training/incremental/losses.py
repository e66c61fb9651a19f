"""Losses of incremental training: learn new classes, retain the old ones.

Learning without Forgetting (Li and Hoiem 2017): the frozen old model also predicts on each
augmented image. New images have no labels of old classes, so without its predictions objects of
old classes would be trained as background; the predictions are the targets instead. The same holds
in replayed images for old classes that the old data do not label: those of an earlier step.
Replayed images have no labels of new classes, and the old model does not know these; where the
network itself predicts a new class there, the loss is masked.

Each loss replaces Ultralytics' criterion during training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.distillation.losses import BoxDistillation, MaskDistillation, SoftmaxDistillation
from training.distillation.teacher import Outputs, Teacher, relative_boxes
from training.incremental.feature_translation import Translation, balanced_loss
from training.replay.merged_dataset import is_replayed

Items = dict[str, Tensor]


@dataclass(frozen=True)
class Strength:
    """Hyperparameters of knowledge retention.

    `python -m benchmarks.learning incremental` measures their effect. "Without replay" below
    means: there are no old images to train on.

    Attributes:
        box, mask, points: Weights of the box, mask and key point distillation losses, relative to
            Ultralytics' gains.
        scores: Weight of the distillation loss of a classifier's old classes, at `temperature`.
        logits: Weight of the mean squared error to the old logits of a classifier.
        temperature: Distillation temperature of `scores`.
        adjust: Factor of the logit adjustment of classifiers with replay.
        statistics: Whether batch normalisation keeps its old statistics; see `strength_of`.
        rows: Whether a classifier without replay trains only the new classes' rows of its last
            layer.
        spread: Factor of `PrototypeTranslation`, in a classifier without replay.
        margin: Margin of `WeightTranslation`, in a classifier without replay.
        confident: Score from which a prediction of the old model counts as an object.
        believed: Score from which the network's own prediction of a new class, at an unlabelled
            anchor of a replayed image, is masked in the loss rather than penalised.
        meets: IoU with a labelled box; anchors at or above it are trained on the label only.
    """

    box: float = 1.0
    mask: float = 1.0
    points: float = 1.0
    scores: float = 0.3
    logits: float = 0.0
    temperature: float = 2.0
    adjust: float = 1.0
    statistics: bool = True
    rows: bool = True
    spread: float = 1.5
    margin: float = 2.0
    confident: float = 0.25
    believed: float = 0.5
    meets: float = 0.5


class TeacherFilledBCE:
    """Binary cross-entropy whose targets the old model completes where labels are missing.

    Replaces `bce` in Ultralytics' detection losses (utils/loss.py, 8.4.190).

    Args:
        taught: The old model's probabilities of the K old classes (B, A, K); 0 at anchors where
            they are not to be used.
        replayed: Whether each image is a replayed one (B,).
        strength: The hyperparameters of knowledge retention.
    """

    def __init__(self, taught: Tensor, replayed: Tensor, strength: Strength) -> None:
        self.taught, self.replayed, self.strength = taught, replayed, strength

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each anchor and class (B, A, C), without reduction.

        At an anchor without a label, the target of an old class is the old model's probability;
        in a replayed image, new classes that the network itself predicts confidently are masked.
        The losses are scaled because the caller divides their sum by the sum of the labelled
        targets only.

        Args:
            logits: Logits (B, A, C); the first K of the C classes are the old ones.
            targets: Ultralytics' targets (B, A, C), 0 where nothing is labelled.
        """
        old = self.taught.shape[-1]
        open_ = targets.amax(-1, keepdim=True) <= 0  # (B, A, 1)
        taught = self.taught.to(targets.dtype) * open_
        completed = torch.cat([torch.maximum(targets[..., :old], taught), targets[..., old:]], -1)
        losses = F.binary_cross_entropy_with_logits(logits, completed, reduction="none")
        sure = logits.detach()[..., old:].sigmoid() > self.strength.believed
        unknown = sure & open_ & self.replayed[:, None, None]
        kept = torch.cat([torch.ones_like(taught), (~unknown).to(taught.dtype)], -1)
        labelled = targets.sum().clamp(min=1)
        added = (taught * (taught > self.strength.confident)).sum()
        return losses * kept * (labelled / (labelled + added))


class DetectionRetentionLoss:
    """Retention loss for detection, segmentation and pose heads, added to Ultralytics' loss.

    Args:
        task_loss: Ultralytics' criterion of the network; its `bce` is replaced.
        teacher: The old model.
        strides: Strides of the head's levels.
        strength: The hyperparameters of knowledge retention.
        keypoints: The loss of key points, for `pose`.
        unlabelled: Ids of the old classes that are not labelled in replayed images.
    """

    def __init__(
        self,
        task_loss: Any,
        teacher: Teacher,
        strides: list[int],
        strength: Strength,
        keypoints: PointRetentionLoss | None = None,
        unlabelled: Sequence[int] = (),
    ) -> None:
        self.keypoints, self.unlabelled = keypoints, list(unlabelled)
        self.task_loss, self.teacher = task_loss, teacher
        self.strides, self.strength = strides, strength
        self.boxes, self.masks = BoxDistillation(1.0), MaskDistillation(1.0)
        self.distances = DistanceRetentionLoss()
        branches = (getattr(task_loss, name, None) for name in ("one2many", "one2one"))
        self.scored = [loss for loss in (task_loss, *branches) if hasattr(loss, "bce")]
        if not self.scored:
            raise TypeError(f"{type(task_loss).__name__} has no `bce` that could be replaced.")

    def __deepcopy__(self, _: dict[int, Any]) -> None:
        """Copies of the network, such as its weight average, get no retention loss."""

    def update(self) -> None:
        """Ultralytics calls this after each epoch; end-to-end heads reweight their branches."""
        if hasattr(self.task_loss, "update"):
            self.task_loss.update()

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, Items]:
        images = batch["img"]
        replayed = torch.tensor(
            [is_replayed(file) for file in batch["im_file"]], device=images.device
        )
        old = self.teacher(images)
        boxes = relative_boxes(old, self.strides, (images.shape[2], images.shape[3]))
        open_ = ~meets_label(boxes, batch, self.strength.meets)
        taught = old.scores.sigmoid() * open_[..., None] * self._asked(replayed, old)
        targets = TeacherFilledBCE(taught, replayed, self.strength)
        for scored in self.scored:
            scored.bce = targets
        loss, items = self.task_loss(preds, batch)
        terms = self._terms(Outputs.of_head(preds), old, boxes, taught)
        if not terms:
            return loss, items
        added = torch.stack(list(terms.values())).float()
        shown = {name: value.detach() for name, value in terms.items()}
        return torch.cat([loss.reshape(-1), added * len(images)]), {**items, **shown}

    def _asked(self, replayed: Tensor, old: Outputs) -> Tensor:
        """Whether the old model answers for a class in an image (B, 1, K): 1 or 0."""
        asked = torch.ones_like(old.scores[:, :1])
        asked[replayed] = 0
        asked[..., self.unlabelled] = 1
        return asked

    def _terms(self, new: Outputs, old: Outputs, boxes: Tensor, taught: Tensor) -> Items:
        sure = taught.amax(-1)
        sure = sure * (sure > self.strength.confident)  # (B, A)
        amount = sure.sum().clamp(min=1)
        terms: Items = {}
        if self.strength.box and new.boxes is not None and old.boxes is not None:
            has_bins = old.boxes.shape[-1] > 1
            compare = self.boxes if has_bins else self.distances
            value = compare(new.boxes, old.boxes, sure, amount)
            terms["old_box"] = self.strength.box * value
        if self.strength.mask and new.masks is not None and old.masks is not None:
            value = self.masks(new.masks, old.masks, boxes, sure, sure.new_ones(len(sure)))
            terms["old_mask"] = self.strength.mask * value
        held = self.keypoints is not None and self.strength.points
        if held and new.points is not None and old.points is not None:
            assert self.keypoints is not None
            value = self.keypoints(new.points, old.points, self._areas(old, boxes), sure, amount)
            terms["old_points"] = self.strength.points * value
        return terms

    def _areas(self, old: Outputs, boxes: Tensor) -> Tensor:
        """Areas of the boxes (B, A), in squared strides of their anchors."""
        cells = [
            torch.full((level.shape[2] * level.shape[3],), float(level.shape[2] * level.shape[3]))
            for level in old.features
        ]
        sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
        return sides.prod(-1) * torch.cat(cells).to(boxes)


class PointRetentionLoss:
    """Retention loss for the key points of a pose head.

    1 − the similarity of COCO's OKS between the old model's point and the network's, as in
    Ultralytics' loss of labelled key points, and the cross-entropy of the visibilities.

    Args:
        shape: Number of key points, and of values of each (2, or 3 with the visibility).
        sigmas: Tolerance of each key point, as a share of the object's size (K,).
        unit: Strides per unit of the head's outputs.
    """

    def __init__(self, shape: tuple[int, int], sigmas: Tensor, unit: float) -> None:
        self.shape, self.sigmas, self.unit = shape, sigmas, unit

    def __call__(
        self, new: Tensor, old: Tensor, area: Tensor, weight: Tensor, amount: Tensor
    ) -> Tensor:
        """The loss, a scalar: Σ weight · loss of the anchor / amount.

        The loss of an anchor is a mean over its key points, weighted by their visibility in the
        old model.

        Args:
            new: Key points of the network (B, A, K · values).
            old: Key points of the old model (B, A, K · values).
            area: Areas of the objects in squared strides (B, A).
            weight: Weights (B, A), not negative.
            amount: Scalar greater than 0.
        """
        new, old = (points.float().unflatten(-1, self.shape) for points in (new, old))
        squared = (self.unit * (new[..., :2] - old[..., :2])).square().sum(-1)
        scale = 2 * (2 * self.sigmas.to(new)).square() * (area[..., None] + 1e-9)
        lost = 1 - torch.exp(-squared / scale)
        if self.shape[1] == 3:
            seen = old[..., 2].sigmoid()
            target = F.binary_cross_entropy_with_logits(old[..., 2], seen, reduction="none")
            cross = F.binary_cross_entropy_with_logits(new[..., 2], seen, reduction="none")
            lost = lost * seen + cross - target
        return (lost.mean(-1) * weight).sum() / amount


class DistanceRetentionLoss:
    """L1 retention loss for box sides, for heads that regress distances directly (YOLO26)."""

    def __call__(self, new: Tensor, old: Tensor, weight: Tensor, amount: Tensor) -> Tensor:
        """The loss, a scalar: Σ weight · |new − old| / amount, a mean over the four sides.

        Args:
            new: Distances of the network in strides (B, A, 4, 1).
            old: Distances of the old model (B, A, 4, 1).
            weight: Weights (B, A), not negative.
            amount: Scalar greater than 0.
        """
        distance = (new - old).abs().squeeze(-1).mean(-1)
        return (distance * weight).sum() / amount


def meets_label(boxes: Tensor, batch: dict[str, Any], overlap: float) -> Tensor:
    """Whether each box (B, A) overlaps a labelled box of its image by at least `overlap`.

    Args:
        boxes: Boxes, xyxy (B, A, 4), relative to the image.
        batch: Ultralytics' batch: `bboxes` xywh (N, 4), relative, and `batch_idx` (N,).
        overlap: Minimum IoU.
    """
    from torchvision.ops import box_convert, box_iou  # takes a second

    met = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    labels = box_convert(batch["bboxes"].to(boxes), "cxcywh", "xyxy")
    pictures = batch["batch_idx"].to(boxes.device).long()
    for index in pictures.unique().tolist():
        met[index] = (box_iou(boxes[index], labels[pictures == index]) >= overlap).any(1)
    return met


class PseudoFeatures:
    """Pseudo-features of old classes, for the loss of a classifier without replay (FeTrIL).

    Args:
        linear: The last layer of the network in training; a hook records its inputs.
        old: Number of old classes; they are the first ones.
        translation: Translates features of new images to old classes.
    """

    def __init__(self, linear: nn.Linear, old: int, translation: Translation) -> None:
        self.linear, self.old, self.translation = linear, old, translation
        self.features: Tensor | None = None
        linear.register_forward_pre_hook(self._watch)

    def _watch(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.linear.training:
            self.features = inputs[0].detach()

    def loss(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """The `balanced_loss` of the last batch.

        Args:
            own: Class ids of the images in the batch (B,).
        """
        assert self.features is not None
        features = self.features.float()
        return balanced_loss(self.linear, features, own, self.old, self.translation)


class ClassifierRetentionLoss:
    """Cross-entropy with a retention loss, for classifiers.

    With replay, the logarithm of each class's frequency is added to its logit in the
    cross-entropy (Menon et al. 2021, "Long-tail learning via logit adjustment"). Replayed classes
    are rare in an epoch; without the adjustment the network would learn a low prior for them.

    Without replay, features of new images are translated to old classes (`Translation`): each old
    class gets as many as a new class has. On them the new classes' rows learn low logits.

    Args:
        teacher: The old model.
        prior: Share of each class in an epoch (C,); None: no adjustment.
        strength: The hyperparameters of knowledge retention.
        stand_ins: Pseudo-features in place of old images; None with replay.
    """

    def __init__(
        self,
        teacher: Teacher,
        prior: Tensor | None,
        strength: Strength,
        stand_ins: PseudoFeatures | None = None,
    ) -> None:
        self.teacher, self.prior, self.strength = teacher, prior, strength
        self.stand_ins = stand_ins
        self.scores = SoftmaxDistillation(strength.temperature)

    def __deepcopy__(self, _: dict[int, Any]) -> None:
        """Copies of the network, such as its weight average, get no retention loss."""

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, Items]:
        logits = preds[1] if isinstance(preds, list | tuple) else preds
        shift = 0.0 if self.prior is None else self.strength.adjust * self.prior.log().to(logits)
        loss = F.cross_entropy(logits + shift, batch["cls"])
        items = {"loss": loss.detach()}
        if self.stand_ins is not None and logits.requires_grad:
            loss, value = self.stand_ins.loss(batch["cls"])
            items["stand_ins"] = value.detach()
        if not (self.strength.scores or self.strength.logits):
            return loss, items
        taught = self.teacher(batch["img"]).scores
        said = logits[:, : taught.shape[1]]
        if self.strength.scores:
            weight = said.new_ones(len(said))
            value = self.strength.scores * self.scores(said, taught, weight)
            loss, items["old_scores"] = loss + value, value.detach()
        if self.strength.logits:
            value = self.strength.logits * F.mse_loss(said, taught)
            loss, items["old_logits"] = loss + value, value.detach()
        return loss, items
