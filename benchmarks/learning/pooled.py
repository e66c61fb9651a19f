"""Measured on a test split, predictions kept: how sure a gain is that several seeds show."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.bench import Bench, Figures
from dataset.dataset import Dataset
from evaluation.bootstrap import Matches, WeightedAveragePrecision, mean_ap
from evaluation.store import PREDICTIONS

Pair = tuple[Path, Path]  # predictions.npz of the two arms, with the same seed
Weigh = Callable[[NDArray[np.int64]], float]

RESAMPLES = 1000
KINDS = {"mAP50_95": "tp", "mask_mAP50_95": "tp_mask"}


def metric_of(task: str) -> str:
    """The figure that a task's models are compared by."""
    return {"classify": "accuracy", "segment": "mask_mAP50_95"}.get(task, "mAP50_95")


def measured(bench: Bench, model: str, dataset: Dataset, folder: Path, key: str) -> Figures:
    """A model's figures on the test split (val where there is none); predictions are kept."""
    split = "test" if "test" in dataset.splits else "val"
    report = bench.measure(model, dataset, split, folder)
    kept = predictions(bench, key)
    kept.parent.mkdir(exist_ok=True)
    made = folder.glob(f"evaluation-*/{PREDICTIONS}")  # an interrupted run may have left others
    shutil.copy(max(made, key=lambda file: file.stat().st_mtime), kept)
    figures = {k: v for k, v in report["figures"].items() if isinstance(v, int | float)}
    return {"model": model, "split": split, "figures": figures}


def predictions(bench: Bench, key: str) -> Path:
    return bench.folder / "predictions" / f"{key}.npz"


def gain(bench: Bench, arm: str, other: str, seeds: Sequence[int], metric: str) -> str:
    """`+1.20 (+0.50 … +1.90)`: points of `arm` over `other`, seeds that both have."""
    files = [[predictions(bench, f"{a}-s{seed}") for a in (other, arm)] for seed in seeds]
    pairs = [(a, b) for a, b in files if a.is_file() and b.is_file()]
    if not pairs or arm == other:
        return ""
    mean, low, high = (100 * x for x in pooled_interval(pairs, metric))
    return f"{mean:+.2f} ({low:+.2f} … {high:+.2f})"


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

    def difference(weights: NDArray[np.int64]) -> float:
        return float(np.mean([b[0](weights) - a[0](weights) for a, b in models]))

    chance = np.random.default_rng(0)
    drawn = [
        difference(np.bincount(chance.integers(images, size=images), minlength=images))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return difference(np.ones(images, np.int64)), float(low), float(high)


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
    weighted = WeightedAveragePrecision(matches)
    return lambda weights: mean_ap(weighted.ap(weights))[1], images
