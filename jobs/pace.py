"""How long a job still takes, estimated from the pace at which it advanced lately."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW = 120.0  # seconds of progress that the estimate rests on
SPACING = 0.5  # seconds between two points that are kept
SHORTEST = 2.0  # seconds that must have been seen before anything is estimated


class Pace:
    """The share of a job done over time; only this attempt of the job counts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._points: deque[tuple[float, float]] = deque()

    def note(self, fraction: float) -> None:
        """The share of the job that is done now, 0 to 1."""
        moment = self._clock()
        if self._points:
            last, done = self._points[-1]
            if fraction <= done or moment - last < SPACING:
                return
        self._points.append((moment, fraction))
        while len(self._points) > 2 and moment - self._points[1][0] >= WINDOW:
            self._points.popleft()

    def remaining(self) -> float | None:
        """The estimated seconds until the job is done; None: too little was seen."""
        if len(self._points) < 2:
            return None
        (began, first), (last, done) = self._points[0], self._points[-1]
        if last - began < SHORTEST:
            return None
        left = (1.0 - done) * (last - began) / (done - first)
        return round(max(0.0, left - (self._clock() - last)), 1)
