from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning.class_metrics import ClassMetrics, PairOfOrder, interval_over_orders
from tests.support.seeds import rng

NAMES = ("a", "b", "c")
EACH = 40  # images of a class


def classified(file: Path, right: tuple[float, ...], tracks: int = EACH) -> Path:
    """Predictions with a share right in each class; the frames of a track are right together."""
    true = np.repeat(np.arange(3), EACH)
    frames = EACH // tracks
    hits = np.concatenate([np.arange(EACH) // frames < share * tracks for share in right])
    images = [f"{i:06}-{i % EACH // frames}_{i % frames}.png" for i in range(3 * EACH)]
    pred = np.where(hits, true, (true + 1) % 3)
    np.savez(file, images=np.array(images), true=true, pred=pred, class_names=np.array(NAMES))
    return file


def test_the_mean_is_over_classes_of_their_own_metric(tmp_path: Path) -> None:
    found = ClassMetrics.load(classified(tmp_path / "a.npz", (1.0, 0.5, 0.0)), "accuracy")
    assert found.mean(("a", "b")) == pytest.approx(0.75)
    assert found.mean(("c",)) == 0
    assert found.mean(("unknown",)) == 0
    only_a = (np.arange(3 * EACH) < EACH).astype(np.int64)
    assert found.mean(NAMES, only_a) == 1  # the others have no image then


def test_frames_of_a_track_are_resampled_together(tmp_path: Path) -> None:
    file = classified(tmp_path / "a.npz", (0.5, 0.5, 0.5), tracks=4)
    alone, together = (ClassMetrics.load(file, "accuracy", tracks) for tracks in (False, True))
    assert (len(set(alone.groups)), len(set(together.groups))) == (3 * EACH, 12)
    weights = together.resample(rng(1))
    assert all(len(set(weights[together.groups == group])) == 1 for group in range(12))
    spread = [
        np.std([found.mean(NAMES, found.resample(rng(seed))) for seed in range(100)])
        for found in (alone, together)
    ]
    assert spread[1] > 2 * spread[0]


def test_average_precision_of_classes(tmp_path: Path) -> None:
    there = np.arange(20)
    np.savez(
        tmp_path / "d.npz",
        images=np.array([f"{i}.jpg" for i in there]),
        image=there,
        conf=np.linspace(0.9, 0.1, 20),
        pred=there % 2,
        tp=np.repeat((there % 2 == 0)[:, None], 10, axis=1),
        target=there % 2,
        target_image=there,
        class_names=np.array(NAMES),
    )
    found = ClassMetrics.load(tmp_path / "d.npz", "mAP50_95")
    assert found.mean(("a",)) == pytest.approx(1, abs=0.01)
    assert found.mean(("b",)) == 0
    assert found.mean(NAMES) == pytest.approx(0.5, abs=0.01)  # nothing of c is labelled


def test_the_interval_is_wider_where_the_orders_differ(tmp_path: Path) -> None:
    base = ClassMetrics.load(classified(tmp_path / "a.npz", (0.5,) * 3), "accuracy")
    better = ClassMetrics.load(classified(tmp_path / "b.npz", (0.7,) * 3), "accuracy")
    equal = interval_over_orders([PairOfOrder(base, better, NAMES)] * 4)
    mixed = [PairOfOrder(base, base, NAMES), PairOfOrder(base, better, NAMES)] * 2
    other = interval_over_orders(mixed)
    assert equal[0] == pytest.approx(0.2)
    assert other[0] == pytest.approx(0.1)
    assert equal[1] < 0.2 < equal[2]
    assert other[2] - other[1] > equal[2] - equal[1]
    same = interval_over_orders([PairOfOrder(base, base, NAMES)])
    assert same == (0, 0, 0)
