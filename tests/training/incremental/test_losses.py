"""The losses of incremental learning against values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.support.seeds import derived
from training.distillation.teacher import Outputs
from training.incremental.feature_translation import WeightTranslation
from training.incremental.losses import (
    ClassifierRetentionLoss,
    PseudoFeatures,
    Strength,
    TeacherFilledBCE,
    meets_label,
)

OPEN = math.log(0.2 / 0.8)  # the logit of 0.2


def bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def test_the_old_model_answers_for_old_classes_where_nothing_is_labelled() -> None:
    logits = torch.tensor([[[0.5, -1.0, 2.0], [1.0, 0.0, -2.0]]])  # two anchors, old 2, new 1
    targets = torch.tensor([[[0.0, 0.0, 0.6], [0.0, 0.0, 0.0]]])  # the first is a new object
    taught = torch.tensor([[[0.9, 0.1], [0.8, 0.1]]])
    loss = TeacherFilledBCE(taught, torch.tensor([False]), Strength(confident=0.25))
    found = loss(logits, targets)
    # The label speaks alone on the first anchor; what is sure on the second (0.8) is added to
    # the 1 (at least) that the caller divides by.
    scale = 1 / (1 + 0.8)
    expected = [
        [bce(0.5, 0.0), bce(-1.0, 0.0), bce(2.0, 0.6)],
        [bce(1.0, 0.8), bce(0.0, 0.1), bce(-2.0, 0.0)],
    ]
    assert torch.allclose(found[0], scale * torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize(("replayed", "kept"), [(True, 0.0), (False, 1.0)])
def test_an_unlabelled_new_object_in_an_old_picture_is_not_background(
    replayed: bool, kept: float
) -> None:
    logits = torch.tensor([[[0.0, 3.0], [0.0, OPEN], [0.0, 3.0]]])
    targets = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]])  # the third: an old object
    loss = TeacherFilledBCE(torch.zeros(1, 3, 1), torch.tensor([replayed]), Strength())
    found = loss(logits, targets)[0, :, 1]
    assert found[0].item() == pytest.approx(kept * bce(3.0, 0))
    assert found[1].item() == pytest.approx(bce(OPEN, 0))  # it is not sure of this one
    assert found[2].item() == pytest.approx(bce(3.0, 0))  # here a label says what it is


def test_a_silent_old_model_leaves_ultralytics_loss() -> None:
    logits, targets = torch.randn(2, 5, 4), torch.rand(2, 5, 4)
    loss = TeacherFilledBCE(torch.zeros(2, 5, 3), torch.tensor([False, False]), Strength())
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert torch.allclose(loss(logits, targets), expected)


def test_boxes_that_meet_a_label() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]]]).expand(2, 2, 4)
    batch = {"bboxes": torch.tensor([[0.2, 0.2, 0.4, 0.3]]), "batch_idx": torch.tensor([1.0])}
    assert meets_label(boxes, batch, 0.5).tolist() == [[False, False], [True, False]]
    assert not meets_label(boxes, batch, 0.8).any()  # the overlap is 3 / 4
    nothing = {"bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
    assert not meets_label(boxes, nothing, 0.5).any()


class Says:
    """An old model that says the same of every picture."""

    def __init__(self, *logits: float) -> None:
        self.logits = torch.tensor([logits])

    def __call__(self, images: Tensor) -> Outputs:
        return Outputs(self.logits.expand(len(images), -1))


def test_a_classifiers_loss_is_balanced_and_held_by_its_old_scores() -> None:
    prior = torch.tensor([0.1, 0.3, 0.6])
    strength = Strength(scores=0.5, logits=0.25, temperature=2.0)
    teacher: Any = Says(1.0, 3.0)
    memory = ClassifierRetentionLoss(teacher, prior, strength)
    logits = torch.tensor([[2.0, 0.0, 1.0]])
    loss, items = memory(logits, {"img": torch.zeros(1, 3, 4, 4), "cls": torch.tensor([0])})

    weights = [0.1 * math.exp(2.0), 0.3, 0.6 * math.e]
    labels = -math.log(weights[0] / sum(weights))
    taught, said = 1 / (1 + math.e), 1 / (1 + math.exp(-1.0))  # of class 0, at temperature 2
    divergence = taught * math.log(taught / said)
    divergence += (1 - taught) * math.log((1 - taught) / (1 - said))
    distance = ((2.0 - 1.0) ** 2 + (0.0 - 3.0) ** 2) / 2
    assert items["loss"].item() == pytest.approx(labels)
    assert items["old_scores"].item() == pytest.approx(0.5 * 4 * divergence)
    assert items["old_logits"].item() == pytest.approx(0.25 * distance)
    assert loss.item() == pytest.approx(labels + 0.5 * 4 * divergence + 0.25 * distance)


def test_without_a_memory_labels_are_compared_as_they_are() -> None:
    memory: Any = ClassifierRetentionLoss(Says(0.0, 0.0), None, Strength(scores=0, logits=0))  # type: ignore[arg-type]
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    loss, items = memory(logits, {"img": torch.zeros(1, 3, 4, 4), "cls": torch.tensor([2])})
    assert loss.item() == pytest.approx(F.cross_entropy(logits, torch.tensor([2])).item())
    assert set(items) == {"loss"}


def test_new_features_stand_for_old_classes() -> None:
    torch.manual_seed(derived(0))
    old, linear = torch.nn.Linear(32, 6), torch.nn.Linear(32, 8)
    with torch.no_grad():
        linear.weight[:6], linear.bias[:6] = old.weight, old.bias
        linear.weight[6:], linear.bias[6:] = 0.0, -100.0  # rows that say no to everything
    stand_ins = PseudoFeatures(linear, 6, WeightTranslation(old, margin=30.0))
    own = torch.tensor([6, 6, 7, 7, 7])
    linear(torch.randn(5, 32))
    loss, of_old = stand_ins.loss(own)
    assert of_old.item() < 1e-3  # moved by so much, each is its old class
    assert loss.item() == pytest.approx(100 / 4, rel=0.05)  # six old classes beside two new ones
    with torch.no_grad():
        linear.bias[6:] = 1000.0
    linear(torch.randn(5, 32))
    assert stand_ins.loss(own)[1].item() > 500  # new rows that take them pay for it
