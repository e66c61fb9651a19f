"""A classifier's rows for new classes, taught on what the old network makes of their pictures.

No picture is looked at twice for it, and nothing but these rows changes: where the training
then begins, new classes are told apart from each other and from the old ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.translation import Translation

STEPS = 200
RATE = 0.005
AT_ONCE = 64


def balanced_loss(
    linear: nn.Linear, features: Tensor, own: Tensor, first: int, translation: Translation
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of features of new pictures, and of the same moved into old classes.

    Args:
        linear: The last layer.
        features: Its inputs (B, d).
        own: Their classes (B,).
        first: The first new class.
        translation: Moves features into old classes.

    Returns:
        The mean of both, so that each class has about as much say, and the latter alone.
    """
    again = max(1, round(first / (linear.out_features - first)))
    many, classes = features.repeat(again, 1), torch.randint(first, (again * len(own),))
    classes = classes.to(features.device)
    moved, arrived = translation(many, own.repeat(again), classes)
    losses = F.cross_entropy(linear(moved), classes, reduction="none")
    old = (losses * arrived).sum() / arrived.sum().clamp(min=1)
    new = F.cross_entropy(linear(features), own)
    return (new + again * old) / (1 + again), old


def teach_rows(
    linear: nn.Linear,
    features: Tensor,
    own: Tensor,
    first: int,
    translation: Translation,
    seed: int,
) -> None:
    """Teach the rows from `first` on; see `balanced_loss` for the other arguments."""
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    linear.requires_grad_(True)
    optimizer = torch.optim.AdamW(linear.parameters(), RATE, weight_decay=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
            some = torch.randint(len(own), (AT_ONCE,))
            optimizer.zero_grad()
            balanced_loss(linear, features[some], own[some], first, translation)[0].backward()
            optimizer.step()
            with torch.no_grad():
                linear.weight[:first], linear.bias[:first] = weight[:first], bias[:first]
    linear.zero_grad()
