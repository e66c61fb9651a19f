"""Knowing that this process was asked to end, before uvicorn waits for what is still open."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

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
