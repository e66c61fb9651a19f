"""Consistency losses: the student must predict on strong augmentations what the teacher predicts.

The teacher predicts on the weakly augmented batch. Where it is confident, its predictions are
pseudo-labels for the student's predictions on a strongly augmented copy: FixMatch (Sohn et al.
2020) for classifiers, Dense Teacher (Zhou et al. 2022) for detectors, whose pseudo-labels are the
head's raw outputs, not boxes. The strong augmentation is not geometric, so anchors correspond.
The sums are divided by the number of images, not of pseudo-labels; otherwise a batch with a
single pseudo-label would weigh as much as one with many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.distillation.teacher import Outputs

ANCHORS = 10  # positive anchors per object, as in Ultralytics' assigner
RAMP = 0.3  # share of the training over which the weight of the loss grows


def ramp(progress: float) -> float:
    """Ramp-up of the loss weight with the share of the training done: exp(−5(1 − t)²), then 1.

    Laine and Aila 2017 ("Temporal Ensembling for Semi-Supervised Learning", section 2.1): a high
    weight early in the training would keep the student from learning from the labels.
    """
    t = min(1.0, progress / RAMP)
    return math.exp(-5 * (1 - t) ** 2)


def strong_view(images: Tensor) -> Tensor:
    """A strongly augmented copy: random colours, blur, noise and cutout; no geometric changes.

    Each image of the batch gets its own random parameters.

    Args:
        images: Images (B, 3, H, W), 0 to 1.
    """
    count, _, height, width = images.shape

    def random(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1, 1, device=images.device).uniform_(low, high)

    grey = images.mean(1, keepdim=True)
    view = grey + (images - grey) * random(0.2, 1.8)
    mean = view.mean((1, 2, 3), keepdim=True)
    view = (mean + (view - mean) * random(0.5, 1.5)) * random(0.6, 1.4)
    blurred = F.avg_pool2d(F.pad(view, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    view = torch.where(random(0, 1) < 0.3, blurred, view)
    view = view + torch.randn_like(view) * random(0, 0.05)
    ys = torch.arange(height, device=images.device).view(1, 1, -1, 1)
    xs = torch.arange(width, device=images.device).view(1, 1, 1, -1)
    for _ in range(2):  # cutout (DeVries and Taylor 2017)
        side, x, y = random(0.05, 0.2), random(0, 1), random(0, 1)
        covered = ((ys - y * height).abs() < side * height / 2) & (
            (xs - x * width).abs() < side * width / 2
        )
        view = torch.where(covered, random(0, 1), view)
    return view.clamp(0, 1)


@contextmanager
def unchanged_statistics(model: nn.Module) -> Iterator[None]:
    """Context in which batch normalisation does not update its running statistics."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class DenseConsistency:
    """Consistency loss for detection heads.

    Args:
        threshold: Confidence from which the teacher's output at an anchor is a pseudo-label.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, student: Outputs, teacher: Outputs, weight: Tensor) -> Tensor:
        """The loss, a scalar: KL(teacher ‖ student) of classes and boxes at confident anchors.

        It is divided by `ANCHORS` · B. Boxes are compared if both outputs have them.

        Args:
            student: Outputs on strongly augmented images; scores (B, A, C) of the shared classes.
            teacher: Outputs on weakly augmented images, of the same shapes.
            weight: Weights of the images (B,).
        """
        target = teacher.scores.sigmoid()
        sure = (target.amax(-1) >= self.threshold).to(target.dtype) * weight[:, None]  # (B, A)
        amount = ANCHORS * len(target)
        cross = F.binary_cross_entropy_with_logits(student.scores, target, reduction="none")
        entropy = F.binary_cross_entropy_with_logits(teacher.scores, target, reduction="none")
        loss = ((cross - entropy).sum(-1) * sure).sum() / amount
        if student.boxes is not None and teacher.boxes is not None:
            said, taught = student.boxes.log_softmax(-1), teacher.boxes.log_softmax(-1)
            sides = F.kl_div(said, taught, reduction="none", log_target=True).sum(-1).mean(-1)
            loss = loss + (sides * sure).sum() / amount
        return loss


class ClassifierConsistency:
    """Consistency loss for classifiers.

    Args:
        threshold: Probability from which the teacher's top class is a pseudo-label.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, student: Outputs, teacher: Outputs, weight: Tensor) -> Tensor:
        """The loss, a scalar: cross-entropy with the teacher's top class where it is confident.

        It is a mean over all images of the batch, those without a pseudo-label counting as 0.

        Args:
            student: Outputs on strongly augmented images; scores (B, C) of the shared classes.
            teacher: Outputs on weakly augmented images, of the same shape.
            weight: Weights of the images (B,); 0 where the teacher does not know the class.
        """
        probability, label = teacher.scores.softmax(1).max(1)
        sure = (probability >= self.threshold).to(probability.dtype) * weight
        return (F.cross_entropy(student.scores, label, reduction="none") * sure).mean()
