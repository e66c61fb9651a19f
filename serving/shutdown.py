"""Knowing that this process was asked to end, before uvicorn waits for what is still open."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

Stop = Callable[[int, FrameType | None], Any]


class Drain:
    """Lets a runner outlast the gateway at a stop: a context around each of its predictions.

    The supervisor stops all processes at once (circus), and uvicorn drops idle connections with
    the first signal, so a gateway with requests left would find nobody. Armed, this passes the
    signal on only when nothing was predicted for `QUIET` seconds.
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
        """Stand before uvicorn's handlers; in its event loop, after it has set them."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            stop = signal.getsignal(number)
            if callable(stop):
                signal.signal(number, partial(self._asked, loop, stop))

    def _asked(
        self, loop: asyncio.AbstractEventLoop, stop: Stop, number: int, frame: FrameType | None
    ) -> None:
        if self._began is None:
            self._began = self._last = time.monotonic()
            loop.call_soon_threadsafe(self._wait, loop, partial(stop, number, frame))

    def _wait(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], Any]) -> None:
        now = time.monotonic()
        quiet = self._running == 0 and now - self._last > self.QUIET
        if quiet or now - (self._began or now) > self.LONGEST:
            stop()
        else:
            loop.call_later(0.1, self._wait, loop, stop)


Handler = Callable[[int, FrameType | None], Any]


def on_leaving(call: Callable[[], Any]) -> None:
    """Have `call` run in the event loop at the first SIGTERM or SIGINT.

    uvicorn waits for open answers and background tasks before it runs the shutdown hooks
    (0.54), for ever if need be: a log that is followed, a task that waits for its job. Use this
    from a start-up hook: uvicorn has set its handlers by then, and they are kept.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, partial(_asked, loop, call, before))


def _asked(
    loop: asyncio.AbstractEventLoop,
    call: Callable[[], Any],
    before: Handler,
    number: int,
    frame: FrameType | None,
) -> None:
    loop.call_soon_threadsafe(call)
    before(number, frame)
