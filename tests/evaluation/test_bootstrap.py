"""Average precision of weighted images, and intervals with known answers."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from evaluation.average_precision import average_precision
from evaluation.bootstrap import (
    Matches,
    WeightedAveragePrecision,
    map_intervals,
    mean_ap,
    share_intervals,
)
from tests.support.seeds import rng

THRESHOLDS = np.linspace(0.5, 0.95, 10)


def drawn(images: int, classes: int, seed: int, found: float = 0.7, noise: float = 2.0) -> Matches:
    """Objects of which a share is found, with wrong detections in between."""
    chance = rng(seed)
    target_image = np.repeat(np.arange(images), chance.integers(0, 6, images))
    target_class = chance.integers(0, classes, len(target_image))
    seen = chance.random(len(target_image)) < found
    wrong = int(noise * images)
    overlap = chance.uniform(0.5, 1.0, int(seen.sum()))
    return Matches(
        image=np.concatenate((target_image[seen], chance.integers(0, images, wrong))),
        confidence=np.concatenate((chance.beta(3, 2, seen.sum()), chance.beta(1, 3, wrong))),
        class_id=np.concatenate((target_class[seen], chance.integers(0, classes, wrong))),
        tp=np.concatenate((overlap[:, None] >= THRESHOLDS, np.zeros((wrong, 10), bool))),
        target_image=target_image,
        target_class=target_class,
    )


@pytest.mark.parametrize("seed", range(12))
def test_an_image_that_weighs_three_stands_three_times(seed: int) -> None:
    chance = rng(seed)
    images = int(chance.integers(1, 30))
    matches = drawn(images, int(chance.integers(1, 6)), seed, noise=chance.uniform(0, 3))
    weighted = WeightedAveragePrecision(matches)
    for weights in (np.ones(images, np.int64), chance.integers(0, 4, images)):
        copies = np.repeat(np.arange(images), weights)
        rows = [np.flatnonzero(matches.image == i) for i in copies]
        objects = [np.flatnonzero(matches.target_image == i) for i in copies]
        taken = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
        there = np.concatenate([*objects, np.empty(0, np.int64)]).astype(np.int64)
        classes, expected = average_precision(
            matches.tp[taken],
            matches.confidence[taken],
            matches.class_id[taken],
            matches.target_class[there],
        )
        found = weighted.ap(weights)
        np.testing.assert_allclose(found[:, classes].T, expected, atol=1e-9)
        assert np.isnan(np.delete(found, classes, axis=1)).all()
        assert mean_ap(found)[1] == pytest.approx(expected.mean() if expected.size else 0.0)


def test_a_model_compared_with_itself_differs_by_nothing() -> None:
    matches = drawn(40, 3, 1)
    for interval in map_intervals(matches, matches, 40).values():
        assert (interval.difference, interval.low, interval.high) == (0, 0, 0)


def test_a_clear_gain_lies_above_zero_and_the_same_seed_gives_the_same_interval() -> None:
    worse, better = drawn(60, 3, 2, found=0.5), drawn(60, 3, 2, found=0.9)
    first = map_intervals(worse, better, 60)
    assert 0 < first["mAP50"].low < first["mAP50"].difference < first["mAP50"].high
    assert first == map_intervals(worse, better, 60)
    turned = map_intervals(better, worse, 60)["mAP50"]
    assert turned.high == pytest.approx(-first["mAP50"].low)


def test_nothing_detected_is_no_error() -> None:
    some = drawn(10, 2, 3)
    nothing = Matches(
        image=np.empty(0, np.int64),
        confidence=np.empty(0),
        class_id=np.empty(0, np.int64),
        tp=np.empty((0, 10), bool),
        target_image=some.target_image,
        target_class=some.target_class,
    )
    assert map_intervals(nothing, some, 10)["mAP50"].difference > 0


def test_of_an_accuracy_it_is_the_interval_of_the_textbook() -> None:
    """Of n images b are only right in the first, c only in the second: the difference is
    (c - b) / n with variance ((b + c) - (c - b)² / n) / n²."""
    n, only_first, only_second = 1000, 60, 110
    first, second = np.zeros(n, bool), np.zeros(n, bool)
    first[:only_first] = second[only_first : only_first + only_second] = True
    first[500:] = second[500:] = True
    found = share_intervals({"accuracy": (first, second)}, n)["accuracy"]
    gain = only_second - only_first
    deviation = (only_first + only_second - gain**2 / n) ** 0.5 / n
    reach = NormalDist().inv_cdf(0.975) * deviation
    assert found.difference == pytest.approx(gain / n)
    assert found.low == pytest.approx(gain / n - reach, abs=0.1 * reach)
    assert found.high == pytest.approx(gain / n + reach, abs=0.1 * reach)
