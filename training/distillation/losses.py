"""Knowledge-distillation losses between a student's and a teacher's outputs, a class for each.

Dimensions: B images, A anchors (of all levels of the head, concatenated), C classes that both
networks know, R bins of the distribution of a box side, M mask coefficients. `weight` is the
weight of each anchor in the sum; the sum is divided by `amount` (the summed confidence of the
teacher), so that the loss is a mean over the anchors where the teacher sees an object. Teacher
tensors carry no gradient. Each loss is 0 where student and teacher agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CANDIDATES = 256  # anchors of highest confidence in an image that are searched for objects
OVERLAP = 0.6  # IoU from which the boxes of two anchors count as the same object


class BernoulliDistillation:
    """Distillation loss for the class scores of a head with one sigmoid per class.

    Hinton et al. 2015 ("Distilling the Knowledge in a Neural Network") with a Bernoulli
    distribution per class in place of the softmax, as Yang et al. 2023 ("Bridging Cross-task
    Protocol Inconsistency for Distillation in Dense Object Detection") propose for detectors.
    Callers weight each anchor by the teacher's confidence; otherwise the thousands of background
    anchors would dominate the loss.

    Args:
        temperature: Divides the logits. The loss is multiplied by its square, which keeps the
            gradients about as large as at temperature 1 (Hinton et al., section 2).
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor, amount: Tensor) -> Tensor:
        """The loss, a scalar: T² Σ weight · KL(teacher ‖ student) / amount.

        The KL divergence is summed over the classes.

        Args:
            student: Logits (B, A, C).
            teacher: Logits (B, A, C).
            weight: Weights (B, A), not negative.
            amount: Scalar greater than 0.
        """
        taught, said = teacher / self.temperature, student / self.temperature
        target = taught.sigmoid()
        cross = F.binary_cross_entropy_with_logits(said, target, reduction="none")
        entropy = F.binary_cross_entropy_with_logits(taught, target, reduction="none")
        divergence = (cross - entropy).sum(-1)
        return self.temperature**2 * (divergence * weight).sum() / amount


class SoftmaxDistillation:
    """Distillation loss for the class scores of a classifier (Hinton et al. 2015, section 2).

    Args:
        temperature: See `BernoulliDistillation`.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
        """The loss, a scalar: T² · weight · KL(teacher ‖ student), a mean over the batch.

        Args:
            student: Logits (B, C).
            teacher: Logits (B, C).
            weight: Weights (B,); 0 where the teacher does not know the image's class.
        """
        target = (teacher / self.temperature).log_softmax(1)
        said = (student / self.temperature).log_softmax(1)
        divergence = F.kl_div(said, target, reduction="none", log_target=True).sum(1)
        return self.temperature**2 * (divergence * weight).mean()


class BoxDistillation:
    """Distillation loss for box sides that are predicted as distributions over bins.

    The distributions are those of the distribution focal loss (Li et al. 2020). Zheng et al. 2022
    ("Localization Distillation for Dense Object Detection", equation 4): the width of the
    teacher's distribution also conveys how uncertain a side's position is. Anchors are weighted
    by the teacher's confidence, not selected by the paper's valuable localisation region.

    Args:
        temperature: See `BernoulliDistillation`.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor, amount: Tensor) -> Tensor:
        """The loss, a scalar: T² Σ weight · KL(teacher ‖ student) / amount.

        The KL divergence is averaged over the four sides of a box.

        Args:
            student: Logits (B, A, 4, R).
            teacher: Logits (B, A, 4, R).
            weight: Weights (B, A), not negative.
            amount: Scalar greater than 0.
        """
        target = (teacher / self.temperature).log_softmax(-1)
        said = (student / self.temperature).log_softmax(-1)
        divergence = F.kl_div(said, target, reduction="none", log_target=True).sum(-1).mean(-1)
        return self.temperature**2 * (divergence * weight).sum() / amount


class FeatureDistillation(nn.Module):
    """Distillation loss for feature maps: 1 − r, with Pearson's correlation r of each channel.

    Cao et al. 2022 ("PKD: General Distillation Framework for Object Detectors via Pearson
    Correlation Coefficient", equation 5): each channel is standardised over images and positions;
    half the mean squared difference is then 1 − r. So the magnitudes of the features have no
    influence. They differ between networks of different width, and would dominate an L2 loss. A
    1×1 convolution per level maps the student's channels to the teacher's; it is trained together
    with the student and discarded afterwards.

    Args:
        student: Number of channels of each level of the student.
        teacher: Number of channels of each level of the teacher.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(
            nn.Conv2d(ours, theirs, 1, bias=False)
            for ours, theirs in zip(student, teacher, strict=True)
        )

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], weight: Tensor
    ) -> Tensor:
        """The loss, a scalar: weight · (1 − r), a mean over levels, images and channels.

        Args:
            student: Feature maps (B, student channels, H, W), one per level.
            teacher: Feature maps (B, teacher channels, H, W), one per level; they are resized to
                the student's H, W.
            weight: Weights of the images (B,).
        """
        levels = []
        for projector, ours, theirs in zip(self.projectors, student, teacher, strict=True):
            said, target = projector(ours), theirs
            if said.shape[2:] != target.shape[2:]:
                target = F.interpolate(target, said.shape[2:], mode="bilinear")
            distance = (_standardised(said) - _standardised(target)).square().mean((1, 2, 3)) / 2
            levels.append((distance * weight).mean())
        return torch.stack(levels).mean()


def _standardised(features: Tensor) -> Tensor:
    """Feature maps (B, C, H, W), standardised per channel over the batch and all positions."""
    features = features.float()
    mean = features.mean((0, 2, 3), keepdim=True)
    deviation = features.var((0, 2, 3), keepdim=True, unbiased=False).add(1e-6).sqrt()
    return (features - mean) / deviation


class MaskDistillation:
    """Pixel-wise distillation loss for the instance masks of a segmentation head.

    Liu et al. 2019 ("Structured Knowledge Distillation for Semantic Segmentation", section 3.1)
    for YOLO's masks, which are linear combinations of prototypes (Bolya et al. 2019, YOLACT).
    Prototypes and coefficients of two networks are not comparable on their own, so the resulting
    masks are compared, inside the teacher's box. About ten anchors predict each object; only the
    one of highest confidence is compared.

    Args:
        temperature: See `BernoulliDistillation`.
        most: Maximum number of objects per image, those of highest confidence.
    """

    def __init__(self, temperature: float, most: int = 16) -> None:
        self.temperature = temperature
        self.most = most

    def __call__(
        self,
        student: tuple[Tensor, Tensor],
        teacher: tuple[Tensor, Tensor],
        boxes: Tensor,
        confidence: Tensor,
        weight: Tensor,
    ) -> Tensor:
        """The loss, a scalar: T² Σ weight · confidence · KL(teacher ‖ student) / Σ confidence.

        The sums are over the objects, not over all anchors. The KL divergence is averaged over
        the pixels inside the box. Σ confidence is at least 1.

        Args:
            student: Coefficients (B, A, M) and prototypes (B, M, h, w).
            teacher: Coefficients and prototypes; M may differ, and the masks are resized to the
                student's h, w.
            boxes: The teacher's boxes, xyxy (B, A, 4), relative to the image, 0 to 1.
            confidence: The teacher's confidence (B, A), 0 to 1.
            weight: Weights of the images (B,), not negative.
        """
        chosen, anchors = _objects(boxes, confidence, self.most)  # (B, K)
        height, width = student[1].shape[2:]
        said = _masks(*student, anchors) / self.temperature
        taught = _masks(*teacher, anchors)
        if taught.shape[2:] != said.shape[2:]:
            taught = F.interpolate(taught, (height, width), mode="bilinear")
        taught = taught / self.temperature
        target = taught.sigmoid()
        cross = F.binary_cross_entropy_with_logits(said, target, reduction="none")
        entropy = F.binary_cross_entropy_with_logits(taught, target, reduction="none")
        inside = _inside(boxes.gather(1, anchors[..., None].expand(-1, -1, 4)), height, width)
        pixels = inside.sum((2, 3)).clamp(min=1)
        divergence = ((cross - entropy) * inside).sum((2, 3)) / pixels  # (B, K)
        amount = chosen.sum().clamp(min=1)
        return self.temperature**2 * (divergence * chosen * weight[:, None]).sum() / amount


def _objects(boxes: Tensor, confidence: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Confidence and anchor index (B, K) of each object, found by non-maximum suppression.

    An object's anchor is the one of highest confidence. A confidence of 0 is padding: images
    with fewer than K objects.

    Args:
        boxes: Boxes, xyxy (B, A, 4).
        confidence: Confidence (B, A).
        most: Upper limit of K.
    """
    from torchvision.ops import batched_nms  # the import takes a second

    sure, anchors = confidence.topk(min(CANDIDATES, confidence.shape[1]), dim=1)
    near = boxes.gather(1, anchors[..., None].expand(-1, -1, 4)).flatten(0, 1).float()
    picture = torch.arange(len(sure), device=sure.device).repeat_interleave(sure.shape[1])
    kept = batched_nms(near, sure.flatten().float(), picture, OVERLAP)
    peaks = torch.zeros_like(sure).flatten()
    peaks[kept] = sure.flatten()[kept]
    chosen, index = peaks.view_as(sure).topk(min(most, sure.shape[1]), dim=1)
    return chosen, anchors.gather(1, index)


def _masks(coefficients: Tensor, prototypes: Tensor, anchors: Tensor) -> Tensor:
    """Mask logits (B, K, h, w) of the chosen anchors (B, K)."""
    index = anchors[..., None].expand(-1, -1, coefficients.shape[2])
    return torch.einsum("bkm,bmhw->bkhw", coefficients.gather(1, index), prototypes)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Masks (B, K, height, width): 1 inside the relative boxes, xyxy (B, K, 4), 0 elsewhere."""
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    left, top, right, foot = boxes[..., None, None].unbind(2)
    across = (x >= left) & (x <= right)
    down = (y[:, None] >= top) & (y[:, None] <= foot)
    return (across & down).to(boxes.dtype)
