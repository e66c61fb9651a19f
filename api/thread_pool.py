"""Separate thread pools: for datasets, which can take minutes, and for images of requests."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from errors import BackendUnavailable, RateLimited
from jobs.caller import CALLER

Result = TypeVar("Result")

THREADS = 2
LIMIT = 32  # maximum number of running and waiting tasks
FOR_ONE = 16  # the same of one caller, by its token or address, among those that read


class BoundedThreadPool:
    """A thread pool with a bounded queue.

    asyncio's default pool has only six threads on two cores. Inference, job tables and
    cancellations use it, so reading six datasets at the same time would block them all.
    """

    def __init__(
        self, threads: int = THREADS, limit: int = LIMIT, for_one: int | None = None
    ) -> None:
        """`limit` is the maximum number of running and waiting tasks; `for_one`: of a caller."""
        self.threads = threads
        self.limit = limit
        self.for_one = limit if for_one is None else for_one
        self._pool = ThreadPoolExecutor(threads, "datasets")
        self._count = 0
        self._count_of: Counter[str | None] = Counter()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """The current number of running and waiting tasks."""
        return self._count

    def divide(self, processes: int) -> None:
        """Take this process's share of the threads and places; before the first task."""
        self.threads, self.limit, self.for_one = (
            -(-number // processes) for number in (self.threads, self.limit, self.for_one)
        )
        self._pool = ThreadPoolExecutor(self.threads, "datasets")

    async def run(self, work: Callable[[], Result]) -> Result:
        """Call `work` in one of the threads. Returns its result.

        Raises:
            BackendUnavailable: The queue is full.
            RateLimited: The caller has its share of the places.
        """
        caller = CALLER.get()
        if self._count >= self.limit:
            raise BackendUnavailable(
                f"{self.limit} datasets are already waiting to be read. Try again in a minute."
            )
        if caller is not None and self._count_of[caller] >= self.for_one:
            raise RateLimited(
                f"{self.for_one} of your requests are already waiting to read datasets. Send fewer "
                "at the same time.",
                5,
            )
        self._add(caller, 1)
        context = contextvars.copy_context()  # as `asyncio.to_thread` does
        future = self._pool.submit(context.run, self._counted, caller, work)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.cancelled():  # `work` was not started
                self._add(caller, -1)

    def _counted(self, caller: str | None, work: Callable[[], Result]) -> Result:
        """Run `work`; it is counted until it ends, also if its caller is cancelled before that."""
        try:
            return work()
        finally:
            self._add(caller, -1)

    def _add(self, caller: str | None, number: int) -> None:
        with self._lock:
            self._count += number
            self._count_of[caller] += number
            if not self._count_of[caller]:
                del self._count_of[caller]


slow_work = BoundedThreadPool()
"""For requests that need the admin token: uploads, checks, trainings, corrections."""

slow_reads = BoundedThreadPool(for_one=FOR_ONE)
"""For requests that the use token allows: exports, comparisons, sheets, the annotation queue."""


thumbnails = BoundedThreadPool(threads=2, limit=512, for_one=256)
"""For thumbnails: a page of a dataset asks for a hundred of them at once."""

whole_images = BoundedThreadPool(limit=64, for_one=FOR_ONE)
"""For images that browsers are shown: each is read whole, so few at a time, and not behind a
page's thumbnails."""


def divide(processes: int) -> None:
    """Divide the pools for datasets among the gateway processes; before the first request."""
    for pool in (slow_work, slow_reads, thumbnails, whole_images):
        pool.divide(processes)


_images = ThreadPoolExecutor(4, "images")


async def in_image_thread(work: Callable[..., Result], *args: object) -> Result:
    """Call `work` on the image of a request, in a thread that no database lock can occupy."""
    return await asyncio.get_running_loop().run_in_executor(_images, work, *args)
