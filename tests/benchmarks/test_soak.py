from __future__ import annotations

import pytest

from benchmarks.stress.soak import MEMORY_SLOPE, Sample, growth, rise, slope
from tests.support.seeds import rng

MINUTES = 20


def samples(
    per_hour: float = 0.0, noise: float = 2.0, descriptors: float = 0.0, jump: float = 0.0
) -> list[Sample]:
    """Of a process, every five seconds. Rises are per hour; `jump` in MiB, halfway."""
    chance = rng(0)
    found = []
    for number in range(MINUTES * 12):
        hours = number / 720
        memory = 200 + per_hour * hours + chance.normal(0, noise)
        memory += jump * (number > MINUTES * 6)
        files = int(40 + descriptors * hours + chance.integers(0, 4))
        found.append(Sample(number * 5.0, memory, files, 12))
    return found


def test_a_slope_is_per_hour_and_outliers_do_not_change_it() -> None:
    steady = samples(per_hour=60)
    x, y = [s.seconds for s in steady], [s.memory for s in steady]
    middle, surely = slope(x, y)
    assert middle == pytest.approx(60, abs=6)
    assert middle - 12 < surely < middle
    spoiled = [value + 500 * (number % 20 == 0) for number, value in enumerate(y)]
    assert slope(x, spoiled)[0] == pytest.approx(60, abs=10)
    assert rise(y) == pytest.approx(60 / 3 * 0.8, abs=2)


@pytest.mark.parametrize(
    ("given", "grown"),
    [
        ({}, []),
        ({"per_hour": MEMORY_SLOPE / 2}, []),
        ({"per_hour": 4 * MEMORY_SLOPE}, ["memory"]),
        ({"per_hour": 30.0, "noise": 30.0}, []),
        ({"jump": 5.0}, []),
        ({"descriptors": 9.0}, []),
        ({"descriptors": 90.0}, ["descriptors"]),
        ({"descriptors": 90.0, "per_hour": 100.0}, ["memory", "descriptors"]),
    ],
)
def test_only_what_clearly_grows_is_told(given: dict[str, float], grown: list[str]) -> None:
    assert growth(samples(**given)) == grown
