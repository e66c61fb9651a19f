"""New rows of a last layer, taught without a picture of the old classes."""

from __future__ import annotations

import copy

import torch

from tests.support.seeds import derived
from training.incremental.feature_translation import (
    PrototypeTranslation,
    balanced_loss,
    train_new_rows,
)

MEANS = 6 * torch.eye(5, 8)  # where five classes lie, three old ones and two new


def last_layer() -> torch.nn.Linear:
    """Knows the first three; the new rows say nothing."""
    linear = torch.nn.Linear(8, 5)
    with torch.no_grad():
        linear.weight.copy_(MEANS / 6)
        linear.bias.zero_()
        linear.weight[3:] = 0.0
    return linear


def drawn(classes: list[int], each: int) -> tuple[torch.Tensor, torch.Tensor]:
    own = torch.tensor(classes).repeat_interleave(each)
    return MEANS[own] + torch.randn(len(own), 8), own


def test_new_classes_are_told_from_old_ones_never_seen() -> None:
    torch.manual_seed(derived(0))
    linear = last_layer()
    before = copy.deepcopy(linear)
    features, own = drawn([3, 4], 40)
    train_new_rows(linear, features, own, 3, PrototypeTranslation(MEANS), seed=1)
    assert torch.equal(linear.weight[:3], before.weight[:3])
    assert torch.equal(linear.bias[:3], before.bias[:3])
    unseen, classes = drawn([0, 1, 2, 3, 4], 100)
    right = [model(unseen).argmax(1) == classes for model in (before, linear)]
    assert right[0][classes >= 3].float().mean() < 0.3
    assert right[1].float().mean() > 0.95


def test_a_seed_decides() -> None:
    torch.manual_seed(derived(0))
    features, own = drawn([3, 4], 40)
    rows = []
    for seed in (1, 1, 2):
        linear = last_layer()
        train_new_rows(linear, features, own, 3, PrototypeTranslation(MEANS), seed)
        rows.append(linear.weight.detach())
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_each_class_has_about_as_much_say() -> None:
    linear = torch.nn.Linear(8, 8)  # six old classes beside two
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([0.0] * 6 + [2.0, 2.0]))
    means = torch.zeros(8, 8)
    features, own = torch.randn(4, 8), torch.tensor([6, 6, 7, 7])
    loss, of_old = balanced_loss(linear, features, own, 6, PrototypeTranslation(means))
    total = torch.tensor([0.0] * 6 + [2.0, 2.0]).logsumexp(0)
    assert torch.allclose(of_old, total)
    assert torch.allclose(loss, (3 * total + (total - 2)) / 4)
