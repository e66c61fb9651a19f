"""Selection criteria for the images of the replay buffer, in NumPy.

The buffer is class-balanced: each step adds an image of the class that has the fewest objects in
the buffer so far. The criteria differ in which image of this class they choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.planning.options import Criterion

HARDEST = 0.9  # quantile of hardness above which images are excluded as probably mislabelled

Floats = NDArray[np.float32]
Pick = Callable[[NDArray[np.intp], list[int], int | None], int]  # candidates, chosen ones, class


def choose(
    counts: NDArray[np.int64],
    amount: int,
    criterion: Criterion,
    seed: int,
    features: Floats | None = None,
    hardness: Floats | None = None,
) -> list[int]:
    """Indices of the images to keep, in the order they were chosen.

    Args:
        counts: Number of objects of each class in each image, (images, classes).
        amount: Number of images to keep.
        criterion: `random`; `herding`: the images whose mean feature is closest to the mean
            feature of the class (Welling 2009; Rebuffi et al. 2017, algorithm 4); `k_centre`: the
            image farthest from all chosen ones (Sener and Savarese 2018, algorithm 1);
            `hardness`: the highest loss of the old model, without the highest tenth, which is
            mostly label noise.
        seed: Seed of `random`.
        features: Feature vectors (images, dimensions), for `herding` and `k_centre`.
        hardness: Loss of the old model (images,), for `hardness`.
    """
    if amount >= len(counts):
        return list(range(len(counts)))
    random = np.random.default_rng(seed)
    pick = _picker(criterion, random, counts, features, hardness)
    taken: list[int] = []
    free = np.ones(len(counts), bool)
    members = [np.flatnonzero(column) for column in counts.T]
    held, left = np.zeros(counts.shape[1]), counts.sum(axis=0)
    while len(taken) < amount:
        cls = int(np.where(left > 0, held, np.inf).argmin()) if left.any() else None
        pool = np.arange(len(free)) if cls is None else members[cls]  # None: no objects remain
        index = pick(pool[free[pool]], taken, cls)
        taken.append(index)
        free[index] = False
        held += counts[index]
        left -= counts[index]
    return taken


def _picker(
    criterion: Criterion,
    random: np.random.Generator,
    counts: NDArray[np.int64],
    features: Floats | None,
    hardness: Floats | None,
) -> Pick:
    if criterion == "herding":
        assert features is not None
        return _Herding(_unit(features), counts)
    if criterion == "k_centre":
        assert features is not None
        return _Farthest(_unit(features))
    if criterion == "hardness":
        assert hardness is not None
        return _Hardest(hardness)
    return lambda candidates, taken, cls: int(random.choice(candidates))


class _Herding:
    """Herding: chooses images whose mean feature approximates the mean feature of the class.

    The feature sums of the chosen images are kept per class. The last column is a pseudo-class
    for images without objects.
    """

    def __init__(self, features: Floats, counts: NDArray[np.int64]) -> None:
        self.features, self.squares = features, (features**2).sum(axis=1)
        empty = counts.sum(axis=1, keepdims=True) == 0
        self.mine = np.hstack([counts > 0, empty])
        sums = np.array([features[column].sum(axis=0) for column in self.mine.T])
        self.targets = sums / np.maximum(1, self.mine.sum(axis=0))[:, None]
        self.totals = np.zeros((self.mine.shape[1], features.shape[1]), np.float32)
        self.amounts = np.zeros(self.mine.shape[1])

    def __call__(self, candidates: NDArray[np.intp], taken: Sequence[int], cls: int | None) -> int:
        """The candidate that brings the mean of the chosen ones closest to the class mean."""
        if taken:
            own = self.mine[taken[-1]]
            self.totals[own] += self.features[taken[-1]]
            self.amounts += own
        at = -1 if cls is None else cls
        n = self.amounts[at] + 1
        # Minimise |(total + f) / n − target|² n². Without terms that do not depend on f, this is
        # |f|² + 2 f · (total − n target).
        toward = (self.totals[at] - n * self.targets[at]).astype(np.float32)
        if 4 * len(candidates) > len(self.features):  # faster than copying the candidates' rows
            along = (self.features @ toward)[candidates]
        else:
            along = self.features[candidates] @ toward
        return int(candidates[(self.squares[candidates] + 2 * along).argmin()])


class _Farthest:
    """k-centre greedy: chooses the image farthest from its nearest chosen image."""

    def __init__(self, features: Floats) -> None:
        self.features, self.squares = features, (features**2).sum(axis=1)
        self.nearest = np.full(len(features), np.inf)  # squared distance to the nearest chosen one

    def __call__(self, candidates: NDArray[np.intp], taken: Sequence[int], cls: int | None) -> int:
        if not taken:  # start with the image closest to the mean
            middle = self.features[candidates].mean(axis=0)
            away = self.squares[candidates] - 2 * (self.features[candidates] @ middle)
            return int(candidates[away.argmin()])
        last = self.features[taken[-1]]
        away = self.squares - 2 * (self.features @ last) + last @ last
        self.nearest = np.minimum(self.nearest, away)
        return int(candidates[self.nearest[candidates].argmax()])


class _Hardest:
    """Chooses the image of highest loss; those above the quantile `HARDEST` come last."""

    def __init__(self, hardness: Floats) -> None:
        self.hardness = np.where(hardness > np.quantile(hardness, HARDEST), -np.inf, hardness)

    def __call__(self, candidates: NDArray[np.intp], taken: Sequence[int], cls: int | None) -> int:
        return int(candidates[self.hardness[candidates].argmax()])


def _unit(features: Floats) -> Floats:
    """The feature vectors, scaled to unit length."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-8), dtype=np.float32)
