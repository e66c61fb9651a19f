"""When nobody waits for an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Lull:
    """Whether a picture is being answered, by any runner, and for how long none has been."""

    def __init__(self) -> None:
        self._answering = 0
        self._since = float("-inf")
        self._calm = asyncio.Event()
        self._calm.set()
        self._broken = asyncio.Event()

    @contextmanager
    def broken(self) -> Iterator[None]:
        """While a picture is being answered."""
        self._answering += 1
        self._calm.clear()
        self._broken.set()
        try:
            yield
        finally:
            self._answering -= 1
            if not self._answering:
                self._since = time.monotonic()
                self._broken.clear()
                self._calm.set()

    async def lasting(self, seconds: float) -> None:
        """Return once there has been nothing to answer for so long."""
        while True:
            await self._calm.wait()
            left = self._since + seconds - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)

    async def over(self) -> None:
        """Return once there is something to answer."""
        await self._broken.wait()
