"""Metrics of single classes from stored predictions, and intervals over images and class orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.phases import track
from benchmarks.learning.pooled import matches_of
from evaluation.bootstrap import WeightedAveragePrecision

RESAMPLES = 1000
POOL = 200  # resamples of the images of an order, from which the resamples of orders draw

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of a model on one split.

    Attributes:
        names: The class names.
        groups: For each image, the number of its group; the images of a group are resampled
            together (the frames of a track are not independent).
        of: Weights of the images (images,) → the metric of each class (classes,), NaN without
            objects.
    """

    names: tuple[str, ...]
    groups: Counts
    of: Callable[[Counts], Array]

    @classmethod
    def load(cls, file: Path, metric: str, tracks: bool = False) -> ClassMetrics:
        """Read predictions.npz.

        Args:
            file: The stored predictions.
            metric: `accuracy`, `mAP50_95` or `mask_mAP50_95`.
            tracks: Whether images are named TRACK_FRAME.
        """
        with np.load(file, allow_pickle=False) as found:
            arrays = dict(found)
        names, images = tuple(arrays["class_names"].tolist()), arrays["images"].tolist()
        keys = [track(image) if tracks else image for image in images]
        if metric == "accuracy":
            true, right = arrays["true"], (arrays["true"] == arrays["pred"]).astype(float)
            keys = [f"{own}/{key}" for own, key in zip(true, keys, strict=True)]

            def of(weights: Counts) -> Array:
                known = np.bincount(true, weights, minlength=len(names))
                hits = np.bincount(true, weights * right, minlength=len(names))
                return np.where(known > 0, hits / np.maximum(known, 1), np.nan)

        else:
            weighted = WeightedAveragePrecision(matches_of(arrays, metric))

            def of(weights: Counts) -> Array:
                found = weighted.ap(weights).mean(0)
                return np.pad(found, (0, len(names) - len(found)), constant_values=np.nan)

        return cls(names, np.unique(keys, return_inverse=True)[1].astype(np.int64), of)

    @property
    def ones(self) -> Counts:
        """Each image once."""
        return np.ones(len(self.groups), np.int64)

    def mean(self, classes: Sequence[str], weights: Counts | None = None) -> float:
        """The mean over some classes, of those with objects; 0 if there are none."""
        values = self.of(self.ones if weights is None else weights)
        chosen = values[[self.names.index(name) for name in classes if name in self.names]]
        known = chosen[~np.isnan(chosen)]
        return float(known.mean()) if len(known) else 0.0

    def resample(self, chance: np.random.Generator) -> Counts:
        """Weights of the images in which whole groups are drawn with replacement."""
        count = int(self.groups.max()) + 1
        drawn = np.bincount(chance.integers(count, size=count), minlength=count)
        return drawn[self.groups].astype(np.int64)


@dataclass(frozen=True)
class PairOfOrder:
    """Two arms of one class order, measured on the same images, and the classes to average."""

    first: ClassMetrics
    second: ClassMetrics
    classes: tuple[str, ...]

    def gain(self, weights: Counts | None = None) -> float:
        """The mean of the second arm minus that of the first."""
        return self.second.mean(self.classes, weights) - self.first.mean(self.classes, weights)


def interval_over_orders(pairs: Sequence[PairOfOrder]) -> tuple[float, float, float]:
    """The mean gain over the orders, and its 95 % interval over resampled orders and images.

    Each resample draws orders with replacement, and for each drawn order its images, the same ones
    for both arms.
    """
    chance = np.random.default_rng(0)
    pools = np.array(
        [[pair.gain(pair.first.resample(chance)) for _ in range(POOL)] for pair in pairs]
    )
    orders = chance.integers(len(pairs), size=(RESAMPLES, len(pairs)))
    drawn = pools[orders, chance.integers(POOL, size=orders.shape)].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.mean([pair.gain() for pair in pairs])), float(low), float(high)
