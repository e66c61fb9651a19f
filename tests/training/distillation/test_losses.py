"""Each term against a value worked out by hand, and what all of them must keep to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.seeds import derived
from training.distillation.losses import (
    BernoulliDistillation,
    BoxDistillation,
    FeatureDistillation,
    MaskDistillation,
    SoftmaxDistillation,
)

ONE = torch.ones(())
ONES = torch.ones(2)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def bernoulli(p: float, q: float) -> float:
    """KL of two coins."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_class_scores_of_a_detector_are_coins_weighted_by_confidence() -> None:
    teacher = torch.tensor([[[2 * logit(0.9), 2 * logit(0.2)], [2 * logit(0.1), 2 * logit(0.1)]]])
    student = torch.tensor([[[2 * logit(0.6), 2 * logit(0.5)], [2 * logit(0.7), 2 * logit(0.1)]]])
    weight = torch.tensor([[0.8, 0.25]])
    loss = BernoulliDistillation(temperature=2)(student, teacher, weight, torch.tensor(1.5))
    first = bernoulli(0.9, 0.6) + bernoulli(0.2, 0.5)
    second = bernoulli(0.1, 0.7)
    assert loss.item() == pytest.approx(4 * (0.8 * first + 0.25 * second) / 1.5, rel=1e-5)


def test_class_scores_of_a_classifier_are_a_softmax() -> None:
    teacher = torch.tensor([[3 * math.log(0.7), 3 * math.log(0.3)], [0.0, 0.0]])
    student = torch.tensor([[3 * math.log(0.4), 3 * math.log(0.6)], [9.0, -9.0]])
    loss = SoftmaxDistillation(temperature=3)(student, teacher, torch.tensor([1.0, 0.0]))
    expected = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)
    assert loss.item() == pytest.approx(9 * expected / 2, rel=1e-5)


def test_a_boxs_sides_are_distributions_over_bins() -> None:
    taught, said = [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]
    teacher = torch.zeros(1, 2, 4, 3)
    student = torch.zeros(1, 2, 4, 3)
    teacher[0, 0, 1] = torch.tensor(taught).log() * 2  # one of the four sides
    student[0, 0, 1] = torch.tensor(said).log() * 2
    student[0, 1] = torch.randn(4, 3)  # nothing is there: not counted
    weight = torch.tensor([[0.9, 0.0]])
    loss = BoxDistillation(temperature=2)(student, teacher, weight, torch.tensor(3.0))
    divergence = sum(t * math.log(t / s) for t, s in zip(taught, said, strict=True))
    assert loss.item() == pytest.approx(4 * 0.9 * divergence / 4 / 3, rel=1e-4)


def test_features_are_compared_by_correlation_not_size() -> None:
    pattern = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 2, 2)
    other = torch.tensor([1.0, 2, 4, 3]).view(1, 1, 2, 2)
    loss = FeatureDistillation([1], [1])
    torch.nn.init.constant_(loss.projectors[0].weight, 1)  # type: ignore[arg-type]
    one = torch.ones(1)
    assert loss([pattern * 100 + 7], [pattern], one).item() == pytest.approx(0, abs=1e-4)
    assert loss([-pattern], [pattern], one).item() == pytest.approx(2, rel=1e-4)  # 1 − r, r = −1
    assert loss([other], [pattern], one).item() == pytest.approx(0.2, rel=1e-4)  # r = 0.8
    assert loss([other], [pattern], one * 3).item() == pytest.approx(0.6, rel=1e-4)


def test_features_of_other_widths_and_sizes_are_projected_and_resized() -> None:
    loss = FeatureDistillation([3, 5], [4, 8])
    student = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
    teacher = [torch.randn(2, 4, 4, 4), torch.randn(2, 8, 4, 4)]
    value = loss(student, teacher, torch.ones(2))
    assert 0 < value.item() < 2
    value.backward()
    assert all(layer.weight.grad is not None for layer in loss.projectors)


def test_masks_are_compared_within_the_teachers_box() -> None:
    prototypes = torch.zeros(1, 1, 2, 4)
    prototypes[0, 0, :, 0] = logit(0.9)  # of each box, only the left column is inside
    coefficients = torch.tensor([[[1.0], [1.0]]])
    said = torch.zeros(1, 1, 2, 4)  # 0.5 everywhere
    said[..., 1:] = 50.0  # outside: may be anything
    boxes = torch.tensor([[[0.0, 0.0, 0.25, 1.0], [0.0, 0.0, 0.25, 1.0]]])
    confidence = torch.tensor([[0.5, 0.1]])
    loss = MaskDistillation(temperature=1, most=1)
    value = loss((coefficients, said), (coefficients, prototypes), boxes, confidence, ONES[:1])
    assert value.item() == pytest.approx(0.5 * bernoulli(0.9, 0.5), rel=1e-4)


def test_each_object_has_one_mask_however_many_anchors_are_sure_of_it() -> None:
    prototypes = torch.zeros(1, 2, 2, 4)
    prototypes[0, 0, :, 0] = logit(0.9)  # the mask of the object on the left
    prototypes[0, 1, :, 3] = logit(0.8)  # and on the right
    left, right = [0.0, 0.0, 0.25, 1.0], [0.75, 0.0, 1.0, 1.0]
    boxes = torch.tensor([[*([left] * 9), right, [0.3, 0.3, 0.4, 0.4]]])
    coefficients = torch.tensor([[*([[1.0, 0.0]] * 9), [0.0, 1.0], [1.0, 1.0]]])
    confidence = torch.tensor([[*([0.9] * 9), 0.8, 0.0]])
    blank = torch.zeros(1, 2, 2, 4)
    loss = MaskDistillation(temperature=1, most=2)
    value = loss((coefficients, blank), (coefficients, prototypes), boxes, confidence, ONES[:1])
    expected = (0.9 * bernoulli(0.9, 0.5) + 0.8 * bernoulli(0.8, 0.5)) / 1.7
    assert value.item() == pytest.approx(expected, rel=1e-4)
    boosted = loss(
        (coefficients, blank), (coefficients, prototypes), boxes, confidence, ONES[:1] * 3
    )
    assert boosted.item() == pytest.approx(3 * expected, rel=1e-4)


def test_masks_compare_whatever_the_prototypes_are() -> None:
    """Another basis of prototypes, the same masks: nothing to learn."""
    prototypes, coefficients = torch.randn(2, 4, 6, 6), torch.randn(2, 9, 4)
    turn = torch.linalg.qr(torch.randn(4, 4)).Q
    turned = torch.einsum("mn,bnhw->bmhw", turn, prototypes)
    boxes, confidence = torch.tensor([0.0, 0, 1, 1]).expand(2, 9, 4), torch.rand(2, 9)
    value = MaskDistillation(2)(
        (coefficients @ turn.T, turned), (coefficients, prototypes), boxes, confidence, ONES
    )
    assert value.item() == pytest.approx(0, abs=1e-5)


def classes(ours: Tensor, theirs: Tensor) -> Tensor:
    return BernoulliDistillation(2)(ours, theirs, torch.rand(2, 5), ONE)


def picture(ours: Tensor, theirs: Tensor) -> Tensor:
    return SoftmaxDistillation(2)(ours[:, 0], theirs[:, 0], torch.rand(2))


def boxes(ours: Tensor, theirs: Tensor) -> Tensor:
    student, teacher = (x.unflatten(2, (4, 3)) for x in (ours, theirs))
    return BoxDistillation(2)(student, teacher, torch.rand(2, 5), ONE)


def features(ours: Tensor, theirs: Tensor) -> Tensor:
    loss = FeatureDistillation([12], [12])
    projector: Any = loss.projectors[0]
    torch.nn.init.dirac_(projector.weight)
    maps = [x.transpose(1, 2).unflatten(2, (1, 5)) for x in (ours, theirs)]
    return loss(maps[:1], maps[1:], torch.rand(2))


def masks(ours: Tensor, theirs: Tensor) -> Tensor:
    prototypes, where = torch.rand(2, 12, 4, 4), torch.tensor([0.0, 0, 1, 1]).expand(2, 5, 4)
    student, teacher = (ours, prototypes), (theirs, prototypes)
    return MaskDistillation(2)(student, teacher, where, torch.rand(2, 5), ONES)


@pytest.mark.parametrize("term", [classes, picture, boxes, features, masks])
def test_every_term_is_zero_at_the_teacher_and_moves_only_the_student(
    term: Callable[[Tensor, Tensor], Tensor],
) -> None:
    torch.manual_seed(derived(0))
    teacher = torch.randn(2, 5, 12)
    assert term(teacher.clone(), teacher).item() == pytest.approx(0, abs=1e-5)
    student = torch.randn(2, 5, 12, requires_grad=True)
    torch.manual_seed(derived(1))
    loss = term(student, teacher)
    loss.backward()
    assert student.grad is not None
    assert teacher.grad is None
    nearer = student.detach() - 0.05 * student.grad / student.grad.norm()
    torch.manual_seed(derived(1))
    assert 0 < term(nearer, teacher).item() < loss.item()
