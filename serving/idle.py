"""Tracks whether requests are being processed, so that background work can run when idle."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from serving.gateways.peers import ANSWERING, SINCE, Peers

LOOK = 0.01  # seconds between two looks at other gateway processes, while background work waits


class IdleTracker:
    """Tracks whether a request is being processed in any runner, and how long none has been.

    The requests of all gateway processes count.
    """

    def __init__(self, peers: Peers | None = None) -> None:
        self._peers = peers or Peers()
        self._answering = 0
        self._since = float("-inf")
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy = asyncio.Event()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """A context in which a request is being processed."""
        self._answering += 1
        self._peers.set(ANSWERING, self._answering)
        self._idle.clear()
        self._busy.set()
        try:
            yield
        finally:
            self._answering -= 1
            self._peers.set(ANSWERING, self._answering)
            if not self._answering:
                self._since = time.monotonic()
                self._peers.set(SINCE, self._since)
                self._busy.clear()
                self._idle.set()

    async def wait_idle(self, seconds: float) -> None:
        """Return once no request has been in progress for `seconds`."""
        while True:
            await self._idle.wait()
            since = max(self._since, self._peers.idle_since())
            left = since + seconds - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, LOOK) if since > self._since else left)

    async def wait_busy(self) -> None:
        """Return once a request is in progress."""
        while not self._peers.alone and self._peers.idle_since() < float("inf"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._busy.wait()
                    return
        if self._peers.alone:
            await self._busy.wait()
