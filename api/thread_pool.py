"""Work on data sets, which can take minutes, apart from the threads that other requests need."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from errors import BackendUnavailable

Result = TypeVar("Result")

THREADS = 2
MOST = 32  # pieces of work that run and wait


class BoundedThreadPool:
    """A few threads, and a queue with an end.

    asyncio's own threads are six on two cores: inference, job tables and cancellations share
    them, so six data sets that are read at once would make all of them wait.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "data-sets")
        self._count = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, which is called in a thread.

        Raises:
            BackendUnavailable: Too much waits already.
        """
        if self._count >= MOST:
            raise BackendUnavailable(f"{MOST} data sets wait to be read. Try again in a while.")
        self._add(1)
        future = self._pool.submit(self._counted, work)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.cancelled():  # before it began
                self._add(-1)

    def _counted(self, work: Callable[[], Result]) -> Result:
        """Work whose caller has given up runs on, so it counts until its end."""
        try:
            return work()
        finally:
            self._add(-1)

    def _add(self, number: int) -> None:
        with self._lock:
            self._count += number


slow_work = BoundedThreadPool()
