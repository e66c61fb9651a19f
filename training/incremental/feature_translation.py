"""Feature translation: pseudo-features of old classes, made from features of new images.

For classifiers that learn new classes without old images, after Petit et al. 2023, "FeTrIL:
Feature Translation for Exemplar-Free Class-Incremental Learning".
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 4  # number of steps of a `WeightTranslation`
LEAST_GAIN = 0.1  # lower bound of the gain in logit margin per step, as a share of |r|²
FIT_STEPS = 200  # optimiser steps when the rows of new classes are trained
FIT_RATE = 0.005
FIT_BATCH = 64


class Translation(Protocol):
    """Translates features of new images to old classes."""

    def __call__(self, features: Tensor, own: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Translate features (n, d) of images of the classes `own` (n,) to `classes` (n,).

        Returns:
            The translated features (n, d), and whether each is valid, that is, classified as its
            target class (n,).
        """
        ...


class PrototypeTranslation:
    """Translates a feature by the difference of two class means (Petit et al., equation 1).

    Args:
        means: Mean features of all classes (C, d), in the feature space of the translated ones.
        spread: Factor of a feature's distance from its class mean. A network overfits its training
            images: features of unseen images are farther from the class mean.
    """

    def __init__(self, means: Tensor, spread: float = 1.0) -> None:
        self.means, self.spread = means, spread

    def __call__(self, features: Tensor, own: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """See `Translation`; all are valid."""
        moved = self.means[classes] + self.spread * (features.detach() - self.means[own])
        return moved, torch.ones_like(classes, dtype=torch.bool)


class WeightTranslation:
    """Translates a feature along the old class's weights, for models without class prototypes.

    The feature is moved until the old model predicts the class with the given margin.

    Args:
        linear: The old model's last layer.
        margin: Required margin between the logit of the class and those of the other old classes.
    """

    def __init__(self, linear: nn.Linear, margin: float) -> None:
        self.weight, self.bias = linear.weight.detach().clone(), linear.bias.detach().clone()
        self.rows = self.weight - self.weight.mean(0)
        self.margin = margin

    def __call__(self, features: Tensor, own: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """See `Translation`. Features that have the margin already are not moved.

        r is the class's row of weights, minus the mean row. Moving along r by its length raises
        the class's logit by |r|² relative to the mean of all logits. Each of the `STEPS` is as
        long as needed to reach the margin to the class with the next highest logit.
        """
        moved = features.detach()
        rows = self.rows[classes]
        least = LEAST_GAIN * rows.square().sum(1)  # similar rows would need huge steps
        for _ in range(STEPS):  # after a step, another class may have the next highest logit
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
    """Cross-entropy of features of new images, and of their translations to random old classes.

    Args:
        linear: The last layer.
        features: Inputs of the last layer (B, d).
        own: Class ids of the features (B,).
        first: Id of the first new class.
        translation: Translates features to old classes.

    Returns:
        The loss over new and old classes, weighted by their numbers of classes, and the part of
        the old classes; both scalars, means over the features.
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
    """Train the rows from `first` on with `balanced_loss`, which explains the other arguments."""
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
