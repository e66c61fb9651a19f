"""How sure a gain is that several seeds show on the same test pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import Matches, Weighted, mean_ap

Pair = tuple[Path, Path]  # predictions.npz of the two arms, with the same seed
Weigh = Callable[[NDArray[np.int64]], float]

RESAMPLES = 1000
KINDS = {"mAP50_95": "tp", "mask_mAP50_95": "tp_mask"}


def pooled_interval(pairs: Sequence[Pair], metric: str) -> tuple[float, float, float]:
    """The mean gain over the seeds and its 95 % interval over resampled pictures.

    Each resample draws the pictures once, for both arms and all seeds, and takes the mean of the
    seeds' differences again. What another choice of seeds would give is not in the interval: the
    spread of the seeds, given beside it, shows that.

    Args:
        pairs: Of each seed; the second's gain over the first.
        metric: `accuracy`, `mAP50_95` or `mask_mAP50_95`.
    """
    models = [tuple(_figure(file, metric) for file in pair) for pair in pairs]
    images = models[0][0][1]

    def gain(weights: NDArray[np.int64]) -> float:
        return float(np.mean([b[0](weights) - a[0](weights) for a, b in models]))

    chance = np.random.default_rng(0)
    drawn = [
        gain(np.bincount(chance.integers(images, size=images), minlength=images))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return gain(np.ones(images, np.int64)), float(low), float(high)


def _figure(file: Path, metric: str) -> tuple[Weigh, int]:
    """A model's figure as a function of how often each picture counts, and the pictures."""
    with np.load(file, allow_pickle=False) as found:
        arrays = dict(found)
    images = len(arrays["images"])
    if metric == "accuracy":
        right = (arrays["true"] == arrays["pred"]).astype(float)
        return lambda weights: float(weights @ right / weights.sum()), images
    matches = Matches(
        image=arrays["image"],
        confidence=arrays["conf"],
        class_id=arrays["pred"],
        tp=arrays[KINDS[metric]],
        target_image=arrays["target_image"],
        target_class=arrays["target"],
    )
    weighted = Weighted(matches)
    return lambda weights: mean_ap(weighted.ap(weights))[1], images
