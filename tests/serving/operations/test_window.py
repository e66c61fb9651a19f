"""Steps of the last minutes, from readings of counters."""

from __future__ import annotations

from collections import Counter

import pytest

from serving.operations.counters import EDGES, Counters
from serving.operations.window import Window, quantile_ms


def counts(**of: int) -> list[float]:
    """Requests by bucket; `under_50` are those from 25 to 50 milliseconds."""
    found = [0.0] * len(EDGES)
    for name, number in of.items():
        edge = float(name.removeprefix("under_")) / 1000 if name != "over" else float("inf")
        found[EDGES.index(edge)] = number
    return found


def test_rates_are_those_of_the_step() -> None:
    window = Window()
    window.add(100.0, Counters(images=Counter({"a:1": 40, "b:1": 10}), requests=10), 0)
    assert not window.steps
    now = Counters(
        images=Counter({"a:1": 140}),  # those of b:1 were removed
        requests=60,
        predicting=40,
        latency=counts(under_50=40),
        batches=10,
        batched=25,
        errors=Counter({"MODEL_NOT_FOUND": 3}),
        statuses=Counter({"2xx": 40, "4xx": 3, "5xx": 2}),
    )
    window.add(110.0, now, 7)
    window.add(120.0, now, 0)
    [busy, idle] = window.steps
    assert (busy.at, busy.seconds, busy.queued) == (110.0, 10.0, 7)
    rates = busy.images_per_second, busy.requests_per_second, busy.predictions_per_second
    assert rates == (10, 5, 4)
    assert busy.p50_ms == pytest.approx(37.5)
    assert busy.batch_size == 2.5
    assert busy.errors == {"MODEL_NOT_FOUND": 3}
    assert (busy.client_errors, busy.server_errors) == (3, 2)
    assert (idle.images_per_second, idle.p50_ms, idle.batch_size, idle.errors) == (
        0,
        None,
        None,
        {},
    )


def test_the_oldest_steps_are_forgotten() -> None:
    window = Window(kept=3)
    for step in range(6):
        window.add(10.0 * step, Counters(requests=step), 0)
    assert [step.at for step in window.steps] == [30.0, 40.0, 50.0]


def test_a_short_step_after_the_start_is_a_part_of_the_next() -> None:
    window = Window()
    window.add(99.5, Counters(requests=1), 0)
    window.add(100.0, Counters(requests=3, statuses=Counter({"4xx": 2})), 0)
    assert not window.steps
    window.add(110.0, Counters(requests=22, statuses=Counter({"4xx": 7})), 0)
    [step] = window.steps
    assert (step.seconds, step.requests_per_second, step.client_errors) == (10.5, 2.0, 7)


def test_counters_that_begin_anew_make_no_step() -> None:
    window = Window()
    window.add(10.0, Counters(requests=90), 0)
    window.add(20.0, Counters(requests=10), 0)
    assert not window.steps
    window.add(30.0, Counters(requests=20), 0)
    assert [step.requests_per_second for step in window.steps] == [1.0]


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        (counts(), 0.5, None),
        (counts(under_10=10), 0.5, 5.0),
        (counts(under_10=50, under_100=50), 0.5, 10.0),
        (counts(under_10=50, under_100=50), 0.99, 99.0),
        (counts(over=4), 0.5, 60_000.0),
    ],
)
def test_quantiles_are_interpolated(
    buckets: list[float], share: float, expected: float | None
) -> None:
    found = quantile_ms(buckets, share)
    assert found == (None if expected is None else pytest.approx(expected))
