"""What a student is taught by a teacher's outputs: one class a term.

Shapes: B pictures, A anchors (all levels of the head in a row), C classes that both networks
know, R bins of a side's distribution, M mask coefficients. `weight` says how much an anchor
counts; `amount` is what the sum is divided by, so that the result is a mean over what the teacher
is sure of. Teacher tensors carry no gradient. Every term is 0 where both say the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CANDIDATES = 256  # anchors of a picture among which objects are looked for, the surest
OVERLAP = 0.6  # intersection over union from which two anchors are of one object


class BernoulliDistillation:
    """Class scores of a head with a sigmoid for each class.

    Hinton et al. 2015 ("Distilling the Knowledge in a Neural Network") with a Bernoulli
    distribution for each class in place of the softmax, as Yang et al. 2023 ("Bridging Cross-task
    Protocol Inconsistency for Distillation in Dense Object Detection") argue for detectors. An
    anchor counts as much as the teacher believes that there is something: without that, the
    thousands of anchors on the background decide.

    Args:
        temperature: Logits are divided by it; the result is multiplied by its square, which keeps
            gradients as large as at 1 (Hinton, section 2).
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor, amount: Tensor) -> Tensor:
        """T² Σ weight · KL(teacher ‖ student) / amount, summed over classes.

        Args:
            student: Logits (B, A, C).
            teacher: Logits (B, A, C).
            weight: (B, A), not negative.
            amount: Scalar above 0.
        """
        taught, said = teacher / self.temperature, student / self.temperature
        target = taught.sigmoid()
        cross = F.binary_cross_entropy_with_logits(said, target, reduction="none")
        entropy = F.binary_cross_entropy_with_logits(taught, target, reduction="none")
        divergence = (cross - entropy).sum(-1)
        return self.temperature**2 * (divergence * weight).sum() / amount


class SoftmaxDistillation:
    """Class scores of a classifier (Hinton et al. 2015, section 2).

    Args:
        temperature: As above.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
        """T² · mean over B of weight · KL(teacher ‖ student).

        Args:
            student: Logits (B, C).
            teacher: Logits (B, C).
            weight: (B,); 0 where the teacher does not know the picture's class.
        """
        target = (teacher / self.temperature).log_softmax(1)
        said = (student / self.temperature).log_softmax(1)
        divergence = F.kl_div(said, target, reduction="none", log_target=True).sum(1)
        return self.temperature**2 * (divergence * weight).mean()


class BoxDistillation:
    """Where a box's sides are, as distributions over bins (Li et al. 2020, distribution focal).

    Zheng et al. 2022 ("Localization Distillation for Dense Object Detection", equation 4): the
    teacher's distribution also tells how blurred an edge is. Anchors count by the teacher's
    confidence in place of their valuable localisation region.

    Args:
        temperature: As above.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor, amount: Tensor) -> Tensor:
        """T² Σ weight · KL(teacher ‖ student) / amount, a mean over the four sides.

        Args:
            student: Logits (B, A, 4, R).
            teacher: Logits (B, A, 4, R).
            weight: (B, A), not negative.
            amount: Scalar above 0.
        """
        target = (teacher / self.temperature).log_softmax(-1)
        said = (student / self.temperature).log_softmax(-1)
        divergence = F.kl_div(said, target, reduction="none", log_target=True).sum(-1).mean(-1)
        return self.temperature**2 * (divergence * weight).sum() / amount


class FeatureDistillation(nn.Module):
    """Feature maps, compared by the pattern of each channel, not by its size.

    Cao et al. 2022 ("PKD: General Distillation Framework for Object Detectors via Pearson
    Correlation Coefficient", equation 5): channels are normalised over pictures and positions,
    then half their mean squared distance is 1 − r. Magnitudes, which differ between networks of
    different width and drown a plain L2, drop out. A 1×1 convolution for each level takes the
    student's channels to the teacher's; it is trained beside the student and thrown away.

    Args:
        student: Channels of each level.
        teacher: Channels of each level.
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
        """Mean over levels, pictures and channels of 1 − r, each picture times its weight.

        Args:
            student: (B, its channels, H, W) of each level.
            teacher: (B, its channels, H, W) of each level; resized to the student's H, W.
            weight: (B,).
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
    """Each channel with mean 0 and variance 1 over the batch (B, C, H, W)."""
    features = features.float()
    mean = features.mean((0, 2, 3), keepdim=True)
    deviation = features.var((0, 2, 3), keepdim=True, unbiased=False).add(1e-6).sqrt()
    return (features - mean) / deviation


class MaskDistillation:
    """Masks of objects, pixel by pixel.

    Liu et al. 2019 ("Structured Knowledge Distillation for Semantic Segmentation", section 3.1)
    for YOLO's masks, which are sums of prototypes (Bolya et al. 2019, YOLACT). Prototypes and
    coefficients mean something only together, so the masks that they give are compared, within
    the teacher's box. About ten anchors are sure of each object: the surest one stands for it.

    Args:
        temperature: As above.
        most: Objects of a picture that are compared, the surest.
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
        """T² Σ weight · confidence · mean over the box of KL(teacher ‖ student) / Σ confidence.

        The sums are over the objects, not over all anchors; that of the confidence counts as 1
        where it is less.

        Args:
            student: Coefficients (B, A, M) and prototypes (B, M, h, w).
            teacher: The same; M may differ, and h, w are resized to the student's.
            boxes: The teacher's xyxy (B, A, 4), relative to the picture, 0 to 1.
            confidence: The teacher's (B, A), 0 to 1.
            weight: Of the pictures (B,), not negative.
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
    """Confidence and index (B, K) of the surest anchor of each object; confidence 0: no object.

    Anchors of one object are those whose boxes overlap, as non-maximum suppression has it.

    Args:
        boxes: xyxy (B, A, 4).
        confidence: (B, A).
        most: K at most.
    """
    from torchvision.ops import batched_nms  # takes a second

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
    """1 within the boxes xyxy (B, K, 4), relative; (B, K, height, width)."""
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    left, top, right, foot = boxes[..., None, None].unbind(2)
    across = (x >= left) & (x <= right)
    down = (y[:, None] >= top) & (y[:, None] <= foot)
    return (across & down).to(boxes.dtype)
