"""Measures models on a test split, and computes the confidence interval of a gain over all seeds.

The predictions are stored, because the interval is computed from them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    """The name of the metric by which the models of a task are compared."""
    return {"classify": "accuracy", "segment": "mask_mAP50_95"}.get(task, "mAP50_95")


def measured(bench: Bench, model: str, dataset: Dataset, folder: Path, key: str) -> Figures:
    """Measure a model on the test split (on val if there is none), and store its predictions."""
    split = "test" if "test" in dataset.splits else "val"
    report = keep_predictions(bench, model, dataset, split, folder, key)
    figures = {k: v for k, v in report["figures"].items() if isinstance(v, int | float)}
    return {"model": model, "split": split, "figures": figures}


def keep_predictions(
    bench: Bench, model: str, dataset: Dataset, split: str, folder: Path, key: str
) -> dict[str, Any]:
    """Evaluate a model on a split, and store its predictions; returns the report."""
    report = bench.measure(model, dataset, split, folder)
    kept = predictions(bench, key)
    kept.parent.mkdir(exist_ok=True)
    made = folder.glob(f"evaluation-*/{PREDICTIONS}")  # an interrupted run may have left others
    shutil.copy(max(made, key=lambda file: file.stat().st_mtime), kept)
    return report


def predictions(bench: Bench, key: str) -> Path:
    return bench.folder / "predictions" / f"{key}.npz"


def gain(bench: Bench, arm: str, other: str, seeds: Sequence[int], metric: str) -> str:
    """The gain of `arm` over `other` in percentage points, such as `+1.20 (+0.50 … +1.90)`.

    It is computed over the seeds with stored predictions of both arms; empty if there are none.
    """
    files = [[predictions(bench, f"{a}-s{seed}") for a in (other, arm)] for seed in seeds]
    pairs = [(a, b) for a, b in files if a.is_file() and b.is_file()]
    if not pairs or arm == other:
        return ""
    mean, low, high = (100 * x for x in pooled_interval(pairs, metric))
    return f"{mean:+.2f} ({low:+.2f} … {high:+.2f})"


def pooled_interval(pairs: Sequence[Pair], metric: str) -> tuple[float, float, float]:
    """The mean gain over the seeds, and its 95 % interval over resampled images.

    Each resample draws the images once, for both arms and all seeds, and computes the mean of the
    differences over the seeds. The interval does not contain the variation between seeds; the
    standard deviation over the seeds, which the table shows as well, measures this variation.

    Args:
        pairs: The predictions of the two arms for each seed; the gain is that of the second arm.
        metric: `accuracy`, `mAP50_95` or `mask_mAP50_95`.

    Returns:
        Mean, lower and upper bound, as fractions.
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
    """The metric of a model as a function of the weights of the images, and their number."""
    with np.load(file, allow_pickle=False) as found:
        arrays = dict(found)
    images = len(arrays["images"])
    if metric == "accuracy":
        right = (arrays["true"] == arrays["pred"]).astype(float)
        return lambda weights: float(weights @ right / weights.sum()), images
    weighted = WeightedAveragePrecision(matches_of(arrays, metric))
    return lambda weights: mean_ap(weighted.ap(weights))[1], images


def matches_of(arrays: Mapping[str, NDArray[Any]], metric: str) -> Matches:
    """The matches in the stored predictions of a detector.

    Args:
        arrays: The content of predictions.npz.
        metric: A key of `KINDS`.
    """
    return Matches(
        image=arrays["image"],
        confidence=arrays["conf"],
        class_id=arrays["pred"],
        tp=arrays[KINDS[metric]],
        target_image=arrays["target_image"],
        target_class=arrays["target"],
    )
