"""Consistency: when it counts, how much, and what it leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.support.seeds import derived
from training.distillation.consistency import (
    ANCHORS,
    ClassifierConsistency,
    DenseConsistency,
    ramp,
    strong_view,
    unchanged_statistics,
)
from training.distillation.teacher import Outputs


def test_the_ramp_grows_smoothly_to_one() -> None:
    values = [ramp(i / 100) for i in range(100)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(math.exp(-5))
    assert values[15] == pytest.approx(math.exp(-5 / 4))
    assert values[30:] == [1.0] * 70


def test_only_what_the_teacher_is_sure_of_counts_divided_by_the_pictures() -> None:
    teacher = torch.full((2, 6, 3), -9.0)
    teacher[0, 1, 2] = 3.0  # 0.95
    teacher[1, 4, 0] = 0.5  # 0.62: unsure
    student = torch.zeros(2, 6, 3)
    loss = DenseConsistency(0.7)(Outputs(student), Outputs(teacher), torch.ones(2))
    sure = 1 / (1 + math.exp(-3))
    entropy = -sure * math.log(sure) - (1 - sure) * math.log(1 - sure)
    other = 2 * (math.log(2) - 9 * math.exp(-9))  # of the two classes that it is sure are absent
    expected = (math.log(2) - entropy + other) / (2 * ANCHORS)
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    # As many pictures, twice as many sure anchors: twice as much.
    teacher[1, 4, 0] = 3.0
    both = DenseConsistency(0.7)(Outputs(student), Outputs(teacher), torch.ones(2))
    assert both.item() == pytest.approx(2 * loss.item(), rel=1e-4)


def test_boxes_count_where_both_describe_them_alike() -> None:
    scores = torch.full((1, 2, 1), 30.0)
    boxes = torch.zeros(1, 2, 4, 16)
    alone = DenseConsistency(0.7)(Outputs(scores), Outputs(scores, boxes=boxes), torch.ones(1))
    assert alone.item() == pytest.approx(0, abs=1e-6)
    same = Outputs(scores, boxes=boxes)
    assert DenseConsistency(0.7)(same, same, torch.ones(1)).item() == pytest.approx(0, abs=1e-6)
    edges = torch.full_like(boxes, -50.0)
    edges[..., 3] = 0.0  # the teacher knows all four sides exactly
    loss = DenseConsistency(0.7)(same, Outputs(scores, boxes=edges), torch.ones(1))
    assert loss.item() == pytest.approx(2 * math.log(16) / ANCHORS, rel=1e-4)


def test_a_classifiers_pseudo_label_is_the_teachers_first_class() -> None:
    teacher = torch.tensor([[math.log(0.8), math.log(0.2)], [math.log(0.6), math.log(0.4)]])
    student = torch.tensor([[0.0, 0.0], [5.0, -5.0]])
    loss = ClassifierConsistency(0.7)(Outputs(student), Outputs(teacher), torch.ones(2))
    assert loss.item() == pytest.approx(math.log(2) / 2, rel=1e-4)
    nothing = ClassifierConsistency(0.7)(Outputs(student), Outputs(teacher), torch.zeros(2))
    assert nothing.item() == 0


def test_a_strong_view_is_another_picture_in_the_same_place() -> None:
    torch.manual_seed(derived(0))
    images = torch.zeros(4, 3, 32, 32)
    images[:, :, 8:24, 8:24] = 1
    view = strong_view(images)
    assert view.shape == images.shape
    assert view.min() >= 0
    assert view.max() <= 1
    assert not torch.allclose(view, images, atol=0.05)
    assert len({round(float(picture.mean()), 4) for picture in view}) == 4
    inside, outside = view[:, :, 10:22, 10:22].mean((1, 2, 3)), view[:, :, :6].mean((1, 2, 3))
    assert (inside > outside).all()


def test_running_statistics_do_not_see_strong_views() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.2)).train()
    before = {name: value.clone() for name, value in model[1].state_dict().items()}
    with unchanged_statistics(model):
        model(torch.rand(2, 3, 4, 4)).sum().backward()
    assert all(
        torch.equal(value, before[name])
        for name, value in model[1].state_dict().items()
        if name.startswith("running")
    )
    assert model[1].momentum == 0.2
    assert model[0].weight.grad is not None
