"""Handlers of SIGTERM and SIGINT that run before those of uvicorn.

The supervisor (circus) signals all processes of the service at once. uvicorn then waits for open
responses, and only afterwards runs the shutdown hooks. Both parts of this module are installed
from a start-up hook, when uvicorn has set its signal handlers (0.54), and call those handlers:

- `on_shutdown_signal` runs a function at the first signal (gateway and Trainer);
- `Drain` delays the signal while predictions are running (runners).
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], Any]


def on_shutdown_signal(call: Callable[[], Any]) -> None:
    """Run `call` in the event loop at every SIGTERM and SIGINT, before uvicorn's handler.

    uvicorn waits without limit for open responses and background tasks before it runs the
    shutdown hooks. `call` ends those that would not end by themselves: responses that follow a log,
    and tasks that wait for a job.
    """
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, partial(_call_first, loop, call, before))


def _call_first(
    loop: asyncio.AbstractEventLoop,
    call: Callable[[], Any],
    before: Handler,
    number: int,
    frame: FrameType | None,
) -> None:
    loop.call_soon_threadsafe(call)
    before(number, frame)


class Drain:
    """Delays a runner's shutdown until the gateway has no more requests for it.

    Use it as a context around each prediction. At the signal uvicorn closes idle connections, so
    the gateway could not send its remaining requests to the runner. Once armed, this class passes
    the signal to uvicorn after `QUIET` seconds without a prediction, at most after `LONGEST`
    seconds.
    """

    QUIET = 0.5
    LONGEST = 60.0

    def __init__(self) -> None:
        self._running = 0
        self._last = 0.0
        self._began: float | None = None

    def __enter__(self) -> None:
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        self._last = time.monotonic()

    def arm(self) -> None:
        """Install the handlers. Needs a running event loop."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            stop = signal.getsignal(number)
            if callable(stop):
                signal.signal(number, partial(self._on_signal, loop, stop))

    def _on_signal(
        self, loop: asyncio.AbstractEventLoop, stop: Handler, number: int, frame: FrameType | None
    ) -> None:
        if self._began is None:
            self._began = self._last = time.monotonic()
            loop.call_soon_threadsafe(self._stop_when_quiet, loop, partial(stop, number, frame))

    def _stop_when_quiet(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], Any]) -> None:
        now = time.monotonic()
        quiet = self._running == 0 and now - self._last > self.QUIET
        if quiet or now - (self._began or now) > self.LONGEST:
            stop()
        else:
            loop.call_later(0.1, self._stop_when_quiet, loop, stop)
