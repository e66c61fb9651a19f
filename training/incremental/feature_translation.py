"""Features of old classes where there are no old pictures: new ones, moved.

After Petit et al. 2023, "FeTrIL: Feature Translation for Exemplar-Free Class-Incremental
Learning".
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 4
LEAST_GAIN = 0.1  # of |r|², a step
FIT_STEPS = 200  # of the rows of new classes
FIT_RATE = 0.005
FIT_BATCH = 64


class Translation(Protocol):
    def __call__(self, features: Tensor, own: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, d) of the classes `own` (n,) moved into the old classes (n,).

        Returns:
            The moved features (n, d), and which of them arrived (n,).
        """
        ...


class PrototypeTranslation:
    """From the mean of their own class to that of the old one (Petit et al., equation 1).

    Args:
        means: Mean features of all classes (C, d), as the features that are moved have them.
        spread: Their distance from the mean grows by it. A network knows the pictures that it was
            trained on too well: unseen ones lie farther from their mean, and towards each other.
    """

    def __init__(self, means: Tensor, spread: float = 1.0) -> None:
        self.means, self.spread = means, spread

    def __call__(self, features: Tensor, own: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """See `Translation`."""
        moved = self.means[classes] + self.spread * (features.detach() - self.means[own])
        return moved, torch.ones_like(classes, dtype=torch.bool)


class WeightTranslation:
    """For a model that kept no means: along the old class's row in the last layer.

    They are moved just until the old model would have taken the picture for that class.

    Args:
        linear: The old model's last layer.
        margin: By how much the old class's logit is ahead of the other old ones afterwards.
    """

    def __init__(self, linear: nn.Linear, margin: float) -> None:
        self.weight, self.bias = linear.weight.detach().clone(), linear.bias.detach().clone()
        self.rows = self.weight - self.weight.mean(0)
        self.margin = margin

    def __call__(self, features: Tensor, own: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """See `Translation`. Those that are there already stay where they are.

        A step along the class's centred row r raises its logit ahead of the mean of all by
        |r|² a step; the rival's own row is taken into account by moving on until it is behind.
        """
        moved = features.detach()
        rows = self.rows[classes]
        least = LEAST_GAIN * rows.square().sum(1)  # else a rival alike would send it far off
        for _ in range(STEPS):  # each rival that turns up needs a step of its own
            logits = moved @ self.weight.T + self.bias
            ahead = logits.gather(1, classes[:, None])[:, 0]
            others = logits.scatter(1, classes[:, None], -torch.inf)
            rival = others.argmax(1)
            behind = (others.amax(1) + self.margin - ahead).clamp(min=0)
            gain = (rows * (self.weight[classes] - self.weight[rival])).sum(1)
            moved = moved + (behind / torch.maximum(gain, least))[:, None] * rows
        logits = moved @ self.weight.T + self.bias
        return moved, logits.argmax(1) == classes


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


def train_new_rows(
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
    optimizer = torch.optim.AdamW(linear.parameters(), FIT_RATE, weight_decay=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(FIT_STEPS):
            optimizer.param_groups[0]["lr"] = FIT_RATE * (1 - step / FIT_STEPS)
            some = torch.randint(len(own), (FIT_BATCH,))
            optimizer.zero_grad()
            balanced_loss(linear, features[some], own[some], first, translation)[0].backward()
            optimizer.step()
            with torch.no_grad():
                linear.weight[:first], linear.bias[:first] = weight[:first], bias[:first]
    linear.zero_grad()
