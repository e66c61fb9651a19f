"""Losses that let a network learn new classes and keep the old ones.

The frozen old model looks at each augmented picture too (Li and Hoiem 2017, "Learning without
Forgetting"). What the labels leave open, it answers: old classes are not labelled in new
pictures, and without its answer they would be taught as background. What nobody can answer is
left out: new classes are not labelled in replayed pictures.

Each takes the place of Ultralytics' criterion while the network trains.
"""

from __future__ import annotations

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
    """How strongly the old model holds on; measured by `python -m benchmarks.learning incremental`.

    Attributes:
        box, mask: Weights of its boxes and masks, beside Ultralytics' own gains.
        scores: Weight of a classifier's softened old scores.
        logits: Weight of a classifier's distance to its old logits.
        temperature: Of the softened scores.
        adjust: Of the logarithm of how often a class is drawn, for classifiers with a memory.
        statistics: Whether the old normalisation statistics stay; see `strength_of`.
        rows: Whether only the rows of new classes learn, in a classifier without a memory.
        spread: Of features moved between class means, there; see `PrototypeTranslation`.
        margin: Of features moved along rows, there; see `WeightTranslation`.
        confident: Score from which the old model's answer counts as an object.
        believed: Score from which the network's own answer for a new class, on an unlabelled
            place of a replayed picture, is not held against it.
        meets: Overlap with a label from which the label alone speaks.
    """

    box: float = 1.0
    mask: float = 1.0
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
    """Binary cross-entropy in which the old model fills in what labels leave open.

    Takes the place of the `bce` of Ultralytics' detection losses (utils/loss.py, 8.4.190).

    Args:
        taught: The old model's probabilities of the old classes (B, A, K); zero where it is not
            asked.
        replayed: Which pictures are old (B,).
        strength: See there.
    """

    def __init__(self, taught: Tensor, replayed: Tensor, strength: Strength) -> None:
        self.taught, self.replayed, self.strength = taught, replayed, strength

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Losses (B, A, C).

        Where an anchor has no label, the target of an old class is what the old model says, and
        in a replayed picture a new class that the network itself is sure of is left out. The sum
        is on the scale of the labels alone: the caller divides by these.

        Args:
            logits: (B, A, C), the first K of C old classes.
            targets: (B, A, C), 0 where nothing is labelled.
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
    """For detection, segmentation and pose heads.

    Args:
        task_loss: Ultralytics' criterion of the network.
        teacher: The old model.
        strides: Of the head's levels.
        strength: See there.
    """

    def __init__(
        self, task_loss: Any, teacher: Teacher, strides: list[int], strength: Strength
    ) -> None:
        self.task_loss, self.teacher = task_loss, teacher
        self.strides, self.strength = strides, strength
        self.boxes, self.masks = BoxDistillation(1.0), MaskDistillation(1.0)
        self.distances = DistanceRetentionLoss()
        branches = (getattr(task_loss, name, None) for name in ("one2many", "one2one"))
        self.scored = [loss for loss in (task_loss, *branches) if hasattr(loss, "bce")]
        if not self.scored:
            raise TypeError(f"{type(task_loss).__name__} has no `bce` that could be replaced.")

    def __deepcopy__(self, _: dict[int, Any]) -> None:
        """A copy of the network, like its average, has no old model."""

    def update(self) -> None:
        """Ultralytics calls this after each epoch; end-to-end heads shift weights then."""
        if hasattr(self.task_loss, "update"):
            self.task_loss.update()

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, Items]:
        images = batch["img"]
        replayed = torch.tensor(
            [is_replayed(file) for file in batch["im_file"]], device=images.device
        )
        old = self.teacher(images)
        boxes = relative_boxes(old, self.strides, (images.shape[2], images.shape[3]))
        open_ = ~replayed[:, None] & ~meets_label(boxes, batch, self.strength.meets)
        taught = old.scores.sigmoid() * open_[..., None]
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
        return terms


class DistanceRetentionLoss:
    """Where a box's sides are, for heads that say their distances (YOLO26)."""

    def __call__(self, new: Tensor, old: Tensor, weight: Tensor, amount: Tensor) -> Tensor:
        """Σ weight · |new − old|, mean over the sides, / amount.

        Args:
            new: Distances in strides (B, A, 4, 1).
            old: The old model's (B, A, 4, 1).
            weight: (B, A), not negative.
            amount: Scalar above 0.
        """
        distance = (new - old).abs().squeeze(-1).mean(-1)
        return (distance * weight).sum() / amount


def meets_label(boxes: Tensor, batch: dict[str, Any], overlap: float) -> Tensor:
    """Which boxes overlap a labelled one by at least so much, (B, A).

    Args:
        boxes: xyxy (B, A, 4), relative to the picture.
        batch: Ultralytics': `bboxes` xywh (N, 4), relative, and `batch_idx` (N,).
        overlap: Intersection over union.
    """
    from torchvision.ops import box_convert, box_iou  # takes a second

    met = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    labels = box_convert(batch["bboxes"].to(boxes), "cxcywh", "xyxy")
    pictures = batch["batch_idx"].to(boxes.device).long()
    for index in pictures.unique().tolist():
        met[index] = (box_iou(boxes[index], labels[pictures == index]) >= overlap).any(1)
    return met


class PseudoFeatures:
    """Old classes' share in the loss of a classifier that has no old pictures.

    Args:
        linear: The last layer of the network that learns; its inputs are watched.
        old: How many old classes there are, the first.
        translation: Moves features into them.
    """

    def __init__(self, linear: nn.Linear, old: int, translation: Translation) -> None:
        self.linear, self.old, self.translation = linear, old, translation
        self.features: Tensor | None = None
        linear.register_forward_pre_hook(self._watch)

    def _watch(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.linear.training:
            self.features = inputs[0].detach()

    def loss(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """See `balanced_loss`.

        Args:
            own: The classes of the batch (B,).
        """
        assert self.features is not None
        features = self.features.float()
        return balanced_loss(self.linear, features, own, self.old, self.translation)


class ClassifierRetentionLoss:
    """For classifiers.

    With replay, logits are shifted by the logarithm of how often each class is drawn while they
    are compared with the labels (Menon et al. 2021, "Long-tail learning via logit adjustment"):
    replayed classes are rare in an epoch, and without it the network learns that they are rare.

    Without, features of the new pictures stand for old ones (`Translation`): as many for each old
    class as a new one has, so that new rows learn where to stay low.

    Args:
        teacher: The old model.
        prior: Share of each class in an epoch (C,); None: no adjustment.
        strength: See there.
        stand_ins: For old pictures; None with a memory.
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
        """A copy of the network, like its average, has no old model."""

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
