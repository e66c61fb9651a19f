"""The estimate of how long a job still takes."""

from __future__ import annotations

from jobs.pace import WINDOW, Pace


class Clock:
    def __init__(self) -> None:
        self.moment = 1000.0

    def __call__(self) -> float:
        return self.moment


def advance(pace: Pace, clock: Clock, seconds: float, fraction: float) -> None:
    clock.moment += seconds
    pace.note(fraction)


def test_nothing_is_estimated_before_something_was_seen() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.remaining() is None
    advance(pace, clock, 0, 0.0)
    advance(pace, clock, 1, 0.1)
    assert pace.remaining() is None
    advance(pace, clock, 1, 0.2)
    assert pace.remaining() == 8.0


def test_a_resumed_job_is_not_credited_with_what_was_done_before() -> None:
    clock = Clock()
    pace = Pace(clock)
    advance(pace, clock, 0, 0.5)
    advance(pace, clock, 10, 0.6)
    assert pace.remaining() == 40.0


def test_the_estimate_follows_a_change_of_pace_and_counts_down() -> None:
    clock = Clock()
    pace = Pace(clock)
    for step in range(11):
        advance(pace, clock, WINDOW, step / 100)  # slow at first
    for step in range(10):
        advance(pace, clock, WINDOW / 10, 0.1 + (step + 1) / 100)
    assert abs((pace.remaining() or 0) - 80 * WINDOW / 10) < WINDOW / 2
    before = pace.remaining() or 0
    clock.moment += 5
    assert pace.remaining() == before - 5


def test_a_share_that_stands_still_is_no_pace() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(9):
        advance(pace, clock, 3, 0.5)
    assert pace.remaining() is None
