"""Separate thread pools: for datasets, which can take minutes, and for images of requests."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from errors import BackendUnavailable

Result = TypeVar("Result")

THREADS = 2
LIMIT = 32  # maximum number of running and waiting tasks


class BoundedThreadPool:
    """A thread pool with a bounded queue.

    asyncio's default pool has only six threads on two cores. Inference, job tables and
    cancellations use it, so reading six datasets at the same time would block them all.
    """

    def __init__(self, threads: int = THREADS, limit: int = LIMIT) -> None:
        """`limit` is the maximum number of running and waiting tasks."""
        self.limit = limit
        self._pool = ThreadPoolExecutor(threads, "datasets")
        self._count = 0
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """The current number of running and waiting tasks."""
        return self._count

    async def run(self, work: Callable[[], Result]) -> Result:
        """Call `work` in one of the threads. Returns its result.

        Raises:
            BackendUnavailable: The queue is full.
        """
        if self._count >= self.limit:
            raise BackendUnavailable(
                f"{self.limit} datasets are already waiting to be read. Try again in a minute."
            )
        self._add(1)
        context = contextvars.copy_context()  # as `asyncio.to_thread` does
        future = self._pool.submit(context.run, self._counted, work)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.cancelled():  # `work` was not started
                self._add(-1)

    def _counted(self, work: Callable[[], Result]) -> Result:
        """Run `work`; it is counted until it ends, also if its caller is cancelled before that."""
        try:
            return work()
        finally:
            self._add(-1)

    def _add(self, number: int) -> None:
        with self._lock:
            self._count += number


slow_work = BoundedThreadPool()

_images = ThreadPoolExecutor(4, "images")


async def in_image_thread(work: Callable[..., Result], *args: object) -> Result:
    """Call `work` on the image of a request, in a thread that no database lock can occupy."""
    return await asyncio.get_running_loop().run_in_executor(_images, work, *args)
