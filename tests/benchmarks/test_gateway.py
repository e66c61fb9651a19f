from __future__ import annotations

from benchmarks.gateway.bench import Sample, small_picture, table
from inference.images import decode


def test_the_table_has_the_median_of_the_rounds() -> None:
    rounds = [Sample(rate, 10.0, 20.0, 0, {"gateway": 2.0, "runner": 1.0}) for rate in (90, 110, 1)]
    (_, _, row) = table({("64×64", 2): rounds}).splitlines()
    assert row == "| 64×64 | 2 | 90 | 10.0 | 20.0 | 2.00 | 1.00 | 0.00 | 0.00 |"


def test_the_small_picture_is_one() -> None:
    assert decode(small_picture(), 10_000).shape == (64, 64, 3)
