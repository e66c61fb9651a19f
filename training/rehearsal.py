"""Which old pictures are worth keeping for rehearsal: criteria in plain NumPy.

All of them share the memory fairly among the classes first: the class with the fewest objects in
the memory has the next choice among its pictures. They differ in which of these it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Criterion = Literal["random", "herding", "k_centre", "hardness"]
CRITERIA: tuple[Criterion, ...] = ("random", "herding", "k_centre", "hardness")
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
    held = np.zeros(counts.shape[1])
    while len(taken) < amount:
        here = counts[free].sum(axis=0) > 0
        cls: int | None = None
        candidates = np.flatnonzero(free)  # where only pictures without an object are left
        if here.any():
            cls = int(np.where(here, held, np.inf).argmin())
            candidates = np.flatnonzero(free & (counts[:, cls] > 0))
        index = pick(candidates, taken, cls)
        taken.append(index)
        free[index] = False
        held += counts[index]
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
    def __init__(self, features: Floats, counts: NDArray[np.int64]) -> None:
        self.features = features
        self.counts = counts > 0

    def __call__(self, candidates: NDArray[np.intp], taken: Sequence[int], cls: int | None) -> int:
        """The candidate that brings the mean of the taken closest to the mean of its class."""
        mine = np.asarray(~self.counts.any(axis=1) if cls is None else self.counts[:, cls])
        target = self.features[mine].mean(axis=0)
        own = [index for index in taken if mine[index]]
        total = self.features[own].sum(axis=0) if own else np.zeros_like(target)
        means = (total + self.features[candidates]) / (len(own) + 1)
        return int(candidates[np.linalg.norm(means - target, axis=1).argmin()])


class _Farthest:
    def __init__(self, features: Floats) -> None:
        self.features = features
        self.nearest = np.full(len(features), np.inf)  # distance to the nearest taken picture
        self.seen = 0

    def __call__(self, candidates: NDArray[np.intp], taken: Sequence[int], cls: int | None) -> int:
        for index in taken[self.seen :]:
            distances = np.linalg.norm(self.features - self.features[index], axis=1)
            self.nearest = np.minimum(self.nearest, distances)
        self.seen = len(taken)
        if not taken:  # start in the middle
            middle = self.features[candidates].mean(axis=0)
            distances = np.linalg.norm(self.features[candidates] - middle, axis=1)
            return int(candidates[distances.argmin()])
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
