"""Which old pictures are worth keeping for rehearsal: criteria in plain NumPy.

All of them share the memory fairly among the classes first: the class with the fewest objects in
the memory has the next choice among its pictures. They differ in which of these it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.planning.options import Criterion

HARDEST = 0.9  # quantile of hardness from which a picture is rather mislabelled than instructive

Floats = NDArray[np.float32]
Pick = Callable[[NDArray[np.intp], list[int], int | None], int]  # candidates, taken, the class


def choose(
    counts: NDArray[np.int64],
    amount: int,
    criterion: Criterion,
    seed: int,
    features: Floats | None = None,
    hardness: Floats | None = None,
) -> list[int]:
    """The pictures to keep, in the order they were taken.

    Args:
        counts: Objects of each class in each picture, (pictures, classes).
        amount: How many pictures to keep.
        criterion: `random`; `herding`: the mean feature of each class is met as closely as
            possible (Welling 2009; Rebuffi et al. 2017, algorithm 4); `k_centre`: the picture
            farthest from all taken ones (Sener and Savarese 2018, algorithm 1); `hardness`: the
            highest loss of the old model, without the topmost tenth, which is mostly noise.
        seed: Of `random`, and of ties.
        features: (pictures, dimensions), for `herding` and `k_centre`.
        hardness: (pictures,), for `hardness`.
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
        pool = np.arange(len(free)) if cls is None else members[cls]  # None: no object is left
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
    """Sums of the taken are kept for each class, the last one for pictures without an object."""

    def __init__(self, features: Floats, counts: NDArray[np.int64]) -> None:
        self.features, self.squares = features, (features**2).sum(axis=1)
        empty = counts.sum(axis=1, keepdims=True) == 0
        self.mine = np.hstack([counts > 0, empty])
        sums = np.array([features[column].sum(axis=0) for column in self.mine.T])
        self.targets = sums / np.maximum(1, self.mine.sum(axis=0))[:, None]
        self.totals = np.zeros((self.mine.shape[1], features.shape[1]), np.float32)
        self.amounts = np.zeros(self.mine.shape[1])

    def __call__(self, candidates: NDArray[np.intp], taken: Sequence[int], cls: int | None) -> int:
        """The candidate that brings the mean of the taken closest to the mean of its class."""
        if taken:
            own = self.mine[taken[-1]]
            self.totals[own] += self.features[taken[-1]]
            self.amounts += own
        at = -1 if cls is None else cls
        n = self.amounts[at] + 1
        # |(total + f) / n − target|² n² is, but for what all have, |f|² + 2 f · (total − n target)
        toward = (self.totals[at] - n * self.targets[at]).astype(np.float32)
        if 4 * len(candidates) > len(self.features):  # quicker than to gather the rows
            along = (self.features @ toward)[candidates]
        else:
            along = self.features[candidates] @ toward
        return int(candidates[(self.squares[candidates] + 2 * along).argmin()])


class _Farthest:
    def __init__(self, features: Floats) -> None:
        self.features, self.squares = features, (features**2).sum(axis=1)
        self.nearest = np.full(len(features), np.inf)  # squared distance to the nearest taken one

    def __call__(self, candidates: NDArray[np.intp], taken: Sequence[int], cls: int | None) -> int:
        if not taken:  # start in the middle
            middle = self.features[candidates].mean(axis=0)
            away = self.squares[candidates] - 2 * (self.features[candidates] @ middle)
            return int(candidates[away.argmin()])
        last = self.features[taken[-1]]
        away = self.squares - 2 * (self.features @ last) + last @ last
        self.nearest = np.minimum(self.nearest, away)
        return int(candidates[self.nearest[candidates].argmax()])


class _Hardest:
    def __init__(self, hardness: Floats) -> None:
        self.hardness = np.where(hardness > np.quantile(hardness, HARDEST), -np.inf, hardness)

    def __call__(self, candidates: NDArray[np.intp], taken: Sequence[int], cls: int | None) -> int:
        return int(candidates[self.hardness[candidates].argmax()])


def _unit(features: Floats) -> Floats:
    """Rows of length one."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-8), dtype=np.float32)
