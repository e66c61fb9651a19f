"""Confidence intervals of the difference between two models, by a paired bootstrap over images.

Each resample draws images with replacement, the same ones for both models, and computes the
metric's difference on them (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993,
chapters 13 and 16). A resample is a vector of weights: an image drawn three times has weight 3.
Nothing is copied, so a thousand resamples of thousands of images take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

RESAMPLES = 1000
LEVEL = 0.95
SEED = 0

_RECALLS = np.linspace(0, 1, 101)
_TRAPEZOID = np.full(101, 0.01)
_TRAPEZOID[[0, -1]] = 0.005
_EPS = 1e-16  # the same value as in `evaluation.average_precision`


@dataclass(frozen=True)
class Interval:
    """A difference, second model minus first, and its 95 % confidence interval."""

    difference: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | int]:
        ends = {"difference": self.difference, "low": self.low, "high": self.high}
        return {**{k: round(v, 6) for k, v in ends.items()}, "level": LEVEL, "resamples": RESAMPLES}


@dataclass(frozen=True)
class Matches:
    """The detections of one model on a split, matched with the objects.

    Attributes:
        image: (p,) image index of each detection.
        confidence: (p,) confidence of each detection.
        class_id: (p,) class id of each detection.
        tp: (p, t) whether each detection is a true positive at each of t IoU thresholds.
        target_image: (m,) image index of each object.
        target_class: (m,) class id of each object.
    """

    image: Counts
    confidence: NDArray[np.floating]
    class_id: Counts
    tp: NDArray[np.bool_]
    target_image: Counts
    target_class: Counts

    @cached_property
    def classes(self) -> int:
        """The number of classes: one more than the highest class id."""
        ids = np.concatenate((self.class_id, self.target_class))
        return int(ids.max(initial=-1)) + 1


class WeightedAveragePrecision:
    """Average precision of one model under integer image weights.

    The result equals `average_precision` on data in which each image is repeated as often as its
    weight says. The area under a curve depends only on its true positives. So one vector of weights
    costs a cumulative sum over the detections and a few passes over the true positives of all
    thresholds.
    """

    def __init__(self, matches: Matches) -> None:
        classes, thresholds = matches.classes, matches.tp.shape[1]
        order = np.lexsort((-matches.confidence, matches.class_id))
        self._image = matches.image[order]
        class_id = matches.class_id[order]
        first = np.searchsorted(class_id, np.arange(classes))
        # ranks of the true positives, sorted by threshold, class and rank
        threshold, self._at = np.nonzero(matches.tp[order].T)
        segment = threshold * classes + class_id[self._at]
        self._segment = segment
        self._starts = np.searchsorted(segment, np.arange(thresholds * classes))
        self._ends = np.searchsorted(segment, np.arange(thresholds * classes), "right")
        self._first = first[class_id[self._at]]
        self._fall = 2.0 * (thresholds * classes - segment)
        self._shape = (thresholds, classes)
        self._targets = matches.target_image, matches.target_class

    def ap(self, weights: Counts) -> Array:
        """(thresholds, classes) average precision; NaN for classes without objects.

        Args:
            weights: (images,) the weight of each image.
        """
        thresholds, classes = self._shape
        image, class_id = self._targets
        objects = np.bincount(class_id, weights[image], minlength=classes).astype(np.int64)
        area = np.where(objects > 0, 0.0, np.nan) * np.ones((thresholds, 1))
        if len(self._at) == 0:
            return area
        weight = weights.astype(np.int32)[self._image]  # int32: half the memory traffic
        ranked = np.concatenate(([0], np.cumsum(weight, dtype=np.int32)))
        taken = ranked[self._at + 1] - ranked[self._first]
        running = np.concatenate(([0], np.cumsum(weight[self._at])))
        right = running[1:] - running[self._starts][self._segment]
        precision = right / np.maximum(taken, 1)
        envelope = np.maximum.accumulate((precision + self._fall)[::-1])[::-1] - self._fall
        values = self._interpolated(objects, right, taken - right, envelope)
        return np.where(np.isnan(area), area, (values @ _TRAPEZOID).reshape(self._shape))

    def _interpolated(
        self, objects: Counts, right: Counts, wrong: Counts, envelope: Array
    ) -> Array:
        """(segments, 101) precision at COCO's 101 recalls, equal to `np.interp` on the envelope.

        A segment is one class at one IoU threshold. Between two true positives the envelope is
        constant at the precision of the second. The exception is a true positive that directly
        follows another, without a false positive in between: up to its recall the envelope is
        interpolated linearly.
        """
        thresholds, classes = self._shape
        wanted = _needed(objects)  # (classes, 101) true positives
        step = np.int64(right.max(initial=0) + objects.max(initial=0) + 2)
        segments = np.arange(thresholds * classes)
        asked = np.tile(wanted, (thresholds, 1)) + segments[:, None] * step
        found = np.searchsorted(right + self._segment * step, asked.ravel()).reshape(asked.shape)
        reached = found < self._ends[:, None]
        at = np.minimum(found, len(right) - 1)
        begins = found == self._starts[:, None]
        before = np.maximum(at - 1, 0)
        previous = np.where(begins, 0, right[before])
        sloped = (wrong[at] == np.where(begins, 0, wrong[before])) & (
            np.tile(wanted, (thresholds, 1)) == previous + 1
        )
        height = np.where(begins, 1.0, envelope[before])
        many = np.tile(objects, thresholds)[:, None] + _EPS
        part = (_RECALLS - previous / many) * many
        value = np.where(sloped, height + (envelope[at] - height) * part, envelope[at])
        return np.where(reached, value, 0.0)


def _needed(objects: Counts) -> Counts:
    """(classes, 101) the smallest number of true positives whose recall exceeds each of 101."""
    many = objects[:, None]
    near = np.floor(_RECALLS * many).astype(np.int64) - 1
    for _ in range(3):  # ties are decided by the same floating-point comparison as in np.interp
        near += near / (many + _EPS) <= _RECALLS
    return near


def mean_ap(ap: Array) -> tuple[float, float]:
    """mAP50 and mAP50-95 over the classes that have objects.

    Args:
        ap: (thresholds, classes) average precision; NaN for classes without objects.
    """
    present = ap[:, ~np.isnan(ap[0])]
    return (float(present[0].mean()), float(present.mean())) if present.size else (0.0, 0.0)


def map_intervals(a: Matches, b: Matches, images: int) -> dict[str, Interval]:
    """Intervals of the differences in mAP50 and mAP50-95, second model minus first.

    Args:
        a: Matches of the first model.
        b: Matches of the second model.
        images: Number of images in the split.
    """
    first, second = WeightedAveragePrecision(a), WeightedAveragePrecision(b)

    def differences(weights: Counts) -> Array:
        return np.subtract(mean_ap(second.ap(weights)), mean_ap(first.ap(weights)))

    observed = differences(np.ones(images, np.int64))
    resampled = np.array([differences(weights) for weights in _resamples(images)])
    return {
        name: _interval(observed[i], resampled[:, i])
        for i, name in enumerate(("mAP50", "mAP50_95"))
    }


def share_intervals(
    right: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], images: int
) -> dict[str, Interval]:
    """Intervals of the differences in metrics that are a share of the images, such as accuracy.

    Args:
        right: Metric name to two arrays (images,), one per model: whether it was right on each
            image.
        images: Number of images in the split.
    """
    gains = {name: b.astype(float) - a.astype(float) for name, (a, b) in right.items()}
    resampled = {name: np.empty(RESAMPLES) for name in gains}
    for row, weights in enumerate(_resamples(images)):
        for name, gain in gains.items():
            resampled[name][row] = weights @ gain / images
    return {name: _interval(float(gain.mean()), resampled[name]) for name, gain in gains.items()}


def _resamples(images: int) -> list[Counts]:
    """The weights (images,) of each bootstrap resample."""
    rng = np.random.default_rng(SEED)
    return [
        np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(RESAMPLES)
    ]


def _interval(observed: float, resampled: Array) -> Interval:
    """The percentile interval of the resampled differences."""
    low, high = np.percentile(resampled, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(observed), float(low), float(high))
