"""Tracks whether requests are being processed, so that background work can run when idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager


class IdleTracker:
    """Tracks whether a request is being processed in any runner, and how long none has been."""

    def __init__(self) -> None:
        self._answering = 0
        self._since = float("-inf")
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy = asyncio.Event()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """A context in which a request is being processed."""
        self._answering += 1
        self._idle.clear()
        self._busy.set()
        try:
            yield
        finally:
            self._answering -= 1
            if not self._answering:
                self._since = time.monotonic()
                self._busy.clear()
                self._idle.set()

    async def wait_idle(self, seconds: float) -> None:
        """Return once no request has been in progress for `seconds`."""
        while True:
            await self._idle.wait()
            left = self._since + seconds - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)

    async def wait_busy(self) -> None:
        """Return once a request is in progress."""
        await self._busy.wait()
