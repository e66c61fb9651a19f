"""Threads for work on datasets, which can take minutes, apart from those of other requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from errors import BackendUnavailable

Result = TypeVar("Result")

THREADS = 2
LIMIT = 32  # pieces of work that may run or wait at the same time


class BoundedThreadPool:
    """A thread pool with a bounded queue.

    asyncio has six threads of its own on two cores. Inference, job tables and cancellations share
    them, so six datasets read at the same time would block all of these.
    """

    def __init__(self, threads: int = THREADS, limit: int = LIMIT) -> None:
        """`limit` is how many pieces of work may run or wait at the same time."""
        self.limit = limit
        self._pool = ThreadPoolExecutor(threads, "datasets")
        self._count = 0
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many pieces of work run or wait now."""
        return self._count

    async def run(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, which is called in one of the threads.

        Raises:
            BackendUnavailable: The queue is full.
        """
        if self._count >= self.limit:
            raise BackendUnavailable(
                f"{self.limit} datasets are waiting to be read already. Try again in a minute."
            )
        self._add(1)
        future = self._pool.submit(self._counted, work)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.cancelled():  # before it started
                self._add(-1)

    def _counted(self, work: Callable[[], Result]) -> Result:
        """Run `work`; it counts until it ends, because it continues when its caller gives up."""
        try:
            return work()
        finally:
            self._add(-1)

    def _add(self, number: int) -> None:
        with self._lock:
            self._count += number


slow_work = BoundedThreadPool()
