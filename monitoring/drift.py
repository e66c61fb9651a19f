"""Drift of class frequencies: the population stability index of live and training counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

SMOOTHING = 0.5  # pseudo-count of every class on both sides; avoids log(0)
MODERATE, LARGE = 0.1, 0.25  # index from which a shift is moderate or large (Siddiqi, 2006)
NORMAL_95 = 1.645  # 95th percentile of the standard normal distribution

ShiftLevel = Literal["stable", "moderate shift", "large shift", "within chance"]


@dataclass(frozen=True)
class Stability:
    """A population stability index with its chance level.

    Attributes:
        index: The population stability index, 0 or more.
        by_chance: 95th percentile of the index if both samples come from the same distribution.
    """

    index: float
    by_chance: float

    @property
    def verdict(self) -> ShiftLevel:
        """The size of the shift by the rule of thumb; `within chance` if chance can explain it."""
        if self.index < MODERATE:
            return "stable"
        if self.index <= self.by_chance:
            return "within chance"
        return "moderate shift" if self.index < LARGE else "large shift"


def stability(live: Sequence[int], training: Sequence[int]) -> Stability | None:
    """The population stability index of live against training counts, class by class.

        PSI = sum over classes of (p - q) · ln(p / q)
        p = (live + 0.5) / (all live + 0.5 · classes), q likewise of training

    The formula and its rule of thumb (below 0.1 stable, from 0.25 a large shift) are from Siddiqi,
    *Credit Risk Scorecards*, 2006. Its 95th percentile without a shift,
    (1/n + 1/m) · (k - 1 + 1.645 · sqrt(2 (k - 1))) for k classes and n and m objects, is from
    Yurdakul and Naranjo, *Statistical properties of the population stability index*, 2020. It
    assumes independent objects, which those of one video are not.

    Args:
        live: Objects per class in live traffic.
        training: Objects per class in the training data, in the same order.

    Returns:
        None if either side has no objects, or there are fewer than two classes.
    """
    p, q = np.asarray(live, np.float64), np.asarray(training, np.float64)
    n, m, classes = float(p.sum()), float(q.sum()), len(p)
    if classes < 2 or n == 0 or m == 0:
        return None
    p = (p + SMOOTHING) / (n + SMOOTHING * classes)
    q = (q + SMOOTHING) / (m + SMOOTHING * classes)
    index = float(((p - q) * np.log(p / q)).sum())
    free = classes - 1
    return Stability(index, (1 / n + 1 / m) * (free + NORMAL_95 * math.sqrt(2 * free)))
