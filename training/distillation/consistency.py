"""Consistency: a picture that is hard to see must be seen as the easy one was.

The teacher labels the batch as it is (weakly augmented); where it is sure, the student must say
the same of a strongly augmented copy: FixMatch (Sohn et al. 2020) for classifiers, Dense Teacher
(Zhou et al. 2022) for detectors, whose pseudo-labels are the head's own outputs, not boxes. The
strong augmentation moves nothing, so anchors stay comparable. The sums are divided by the number
of pictures, not of pseudo-labels: a batch with a single sure anchor must not weigh as much as one
full of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.distillation.teacher import Outputs

ANCHORS = 10  # of an object; what Ultralytics' assigner gives it
RAMP = 0.3  # share of the training over which the term grows


def ramp(progress: float) -> float:
    """How far the term counts after a share of the training: exp(−5(1 − t)²), then 1.

    Laine and Aila 2017 ("Temporal Ensembling for Semi-Supervised Learning", section 2.1): early
    on the student cannot follow, and the term only disturbs it.
    """
    t = min(1.0, progress / RAMP)
    return math.exp(-5 * (1 - t) ** 2)


def strong_view(images: Tensor) -> Tensor:
    """Other colours, blur, noise and covered patches, each picture its own; nothing is moved.

    Args:
        images: (B, 3, H, W), 0 to 1.
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
    for _ in range(2):  # DeVries and Taylor 2017, cutout
        side, x, y = random(0.05, 0.2), random(0, 1), random(0, 1)
        covered = ((ys - y * height).abs() < side * height / 2) & (
            (xs - x * width).abs() < side * width / 2
        )
        view = torch.where(covered, random(0, 1), view)
    return view.clamp(0, 1)


@contextmanager
def unchanged_statistics(model: nn.Module) -> Iterator[None]:
    """Batch normalisation uses the batch's statistics, but its running ones are left alone."""
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
    """For detection heads.

    Args:
        threshold: Confidence from which an anchor of the teacher is a pseudo-label.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, student: Outputs, teacher: Outputs, weight: Tensor) -> Tensor:
        """KL(teacher ‖ student) of the classes, and of the boxes where both have the same bins.

        Args:
            student: Of the strong view; scores (B, A, C) of the classes that both know.
            teacher: Of the weak view; the same shapes.
            weight: (B,) of the pictures.
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
    """For classifiers.

    Args:
        threshold: Probability from which the teacher's answer is a pseudo-label.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, student: Outputs, teacher: Outputs, weight: Tensor) -> Tensor:
        """Cross-entropy with the teacher's first class; a mean over the batch, sure or not.

        Args:
            student: Of the strong view; scores (B, C) of the classes that both know.
            teacher: Of the weak view; the same shape.
            weight: (B,) of the pictures; 0 where the teacher does not know the class.
        """
        probability, label = teacher.scores.softmax(1).max(1)
        sure = (probability >= self.threshold).to(probability.dtype) * weight
        return (F.cross_entropy(student.scores, label, reduction="none") * sure).mean()
