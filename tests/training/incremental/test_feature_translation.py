from __future__ import annotations

import torch

from training.incremental.feature_translation import PrototypeTranslation, WeightTranslation


def layer() -> torch.nn.Linear:
    linear = torch.nn.Linear(2, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        linear.bias.zero_()
    return linear


def test_features_keep_their_distance_to_the_mean() -> None:
    means = torch.tensor([[0.0, 8.0], [4.0, 0.0], [1.0, 1.0]])  # of two old classes and a new one
    features = torch.tensor([[1.5, 1.0], [0.0, 2.0], [3.0, 0.0]])
    moved, arrived = PrototypeTranslation(means)(
        features, torch.tensor([2, 2, 1]), torch.tensor([0, 1, 0])
    )
    assert moved.tolist() == [[0.5, 8.0], [3.0, 1.0], [-1.0, 8.0]]
    assert arrived.all()
    moved, _ = PrototypeTranslation(means, spread=2.0)(
        features[:1], torch.tensor([2]), torch.tensor([0])
    )
    assert moved.tolist() == [[1.0, 8.0]]


def test_features_move_until_the_old_class_is_ahead() -> None:
    linear = layer()
    features = torch.tensor([[0.0, 3.0], [5.0, 0.0], [0.0, 0.0]])
    classes = torch.tensor([0, 0, 2])
    moved, arrived = WeightTranslation(linear, margin=1.0)(
        features, torch.tensor([3, 3, 3]), classes
    )
    assert arrived.all()
    logits = linear(moved)
    for row, cls in zip(logits, classes.tolist(), strict=True):
        others = [value for i, value in enumerate(row.tolist()) if i != cls]
        assert row[cls].item() - max(others) > 1.0 - 1e-4
    assert torch.equal(moved[1], features[1])  # it was ahead by five
    # (0, 3) is behind by 3 and must be ahead by 1; along (1, 0) each step gains 1.
    assert torch.allclose(moved[0], torch.tensor([4.0, 3.0]))
