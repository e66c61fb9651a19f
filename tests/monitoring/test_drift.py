from __future__ import annotations

import math

import numpy as np
import pytest

from monitoring.drift import stability
from tests.support.seeds import rng


def test_by_hand() -> None:
    # (9.5 / 11, 1.5 / 11) against (5.5 / 11, 5.5 / 11)
    expected = (4 / 11) * math.log(9.5 / 5.5) + (-4 / 11) * math.log(1.5 / 5.5)
    found = stability([9, 1], [5, 5])
    assert found is not None
    assert found.index == pytest.approx(expected)
    assert found.index == pytest.approx(0.6712, abs=1e-4)
    assert found.by_chance == pytest.approx((1 / 10 + 1 / 10) * (1 + 1.645 * math.sqrt(2)))


@pytest.mark.parametrize(
    ("live", "training", "verdict"),
    [
        ([50, 50], [500, 500], "stable"),
        ([5000, 5000], [50, 50], "stable"),
        ([700, 300], [500, 500], "moderate shift"),
        ([900, 100], [500, 500], "large shift"),
        ([9, 1], [5000, 5000], "large shift"),
        ([7, 3], [5000, 5000], "within chance"),
        ([0, 1000], [1000, 0], "large shift"),
    ],
)
def test_verdicts(live: list[int], training: list[int], verdict: str) -> None:
    found = stability(live, training)
    assert found is not None
    assert math.isfinite(found.index)
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("live", "training"), [([0, 0], [5, 5]), ([5, 5], [0, 0]), ([7], [9]), ([], [])]
)
def test_nothing_to_compare(live: list[int], training: list[int]) -> None:
    assert stability(live, training) is None


def test_without_a_shift_it_stays_below_chance_19_times_of_20() -> None:
    random = rng(0)
    shares = random.dirichlet(np.full(34, 5.0))
    training = random.multinomial(100_000, shares).tolist()
    found = [stability(random.multinomial(400, shares).tolist(), training) for _ in range(400)]
    below = sum(one.index <= one.by_chance for one in found if one is not None)
    assert 0.9 <= below / 400 <= 1
