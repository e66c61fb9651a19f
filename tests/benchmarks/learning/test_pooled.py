from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning.bench import Bench
from benchmarks.learning.pooled import gain, pooled_interval, predictions
from tests.support.seeds import rng

PICTURES = 200


def classified(file: Path, right: float, seed: int = 0) -> Path:
    """Predictions of which a share is right, at random places."""
    places = rng(seed).permutation(PICTURES) < right * PICTURES
    file.parent.mkdir(parents=True, exist_ok=True)
    true = np.zeros(PICTURES, np.int64)
    images = np.array([f"{i}.jpg" for i in range(PICTURES)])
    np.savez(file, images=images, true=true, pred=np.where(places, 0, 1))
    return file


def detected(file: Path, right: float) -> Path:
    """An object and a detection in each picture; the surest ones are right."""
    there = np.arange(PICTURES)
    tp = np.repeat((there < right * PICTURES)[:, None], 10, axis=1)
    zeros = np.zeros(PICTURES, np.int64)
    np.savez(
        file,
        images=np.array([f"{i}.jpg" for i in there]),
        image=there,
        conf=np.linspace(0.9, 0.1, PICTURES),
        pred=zeros,
        tp=tp,
        target=zeros,
        target_image=there,
    )
    return file


def test_a_gain_is_the_mean_of_the_seeds_and_its_interval_holds_it(tmp_path: Path) -> None:
    pairs = [
        (classified(tmp_path / f"a{s}.npz", 0.5, s), classified(tmp_path / f"b{s}.npz", top, s))
        for s, top in enumerate((0.6, 0.7))
    ]
    mean, low, high = pooled_interval(pairs, "accuracy")
    assert mean == pytest.approx(0.15)
    # 1.96 · σ/√n with the pictures' mean gains of the two seeds: σ is near 0.26
    assert mean - low == pytest.approx(0.036, abs=0.015)
    assert high - mean == pytest.approx(0.036, abs=0.015)


def test_the_same_predictions_gain_nothing_for_sure(tmp_path: Path) -> None:
    same = classified(tmp_path / "a.npz", 0.5)
    assert pooled_interval([(same, same)], "accuracy") == (0.0, 0.0, 0.0)


def test_average_precision_is_pooled_too(tmp_path: Path) -> None:
    pair = detected(tmp_path / "a.npz", 0.5), detected(tmp_path / "b.npz", 1.0)
    mean, low, high = pooled_interval([pair], "mAP50_95")
    assert mean == pytest.approx(0.5, abs=0.02)
    assert low < mean < high


def test_only_seeds_that_both_have_are_compared(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for arm, seed, right in (("alone", 0, 0.5), ("ours", 0, 0.6), ("ours", 1, 0.9)):
        classified(predictions(bench, f"{arm}-s{seed}"), right)
    assert gain(bench, "ours", "alone", (0, 1), "accuracy").startswith("+10.00 (")
    assert gain(bench, "ours", "builtin", (0, 1), "accuracy") == ""
    assert gain(bench, "ours", "ours", (0, 1), "accuracy") == ""
