"""The threads of a runner process: those that share the cores, and those that give way to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from inference.prediction import InferenceItem

LOWEST = 19  # niceness
LOW = 10

T = TypeVar("T")


class PredictionThreads:
    """A pool for the stages of predictions, one thread for heavy images and one for comparisons.

    Args:
        size: Number of threads in the pool.
    """

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="predict")
        self._heavy = ThreadPoolExecutor(1, "heavy", partial(run_at_niceness, LOW))
        self._quiet = ThreadPoolExecutor(1, "quiet", initializer=run_at_lowest_priority)
        self._busy = 0  # number of tasks in the pool, waiting or running
        self._busy_lock = threading.Lock()

    @property
    def has_one_task(self) -> bool:
        """Whether the pool has a single task, which may thus use all cores."""
        return self._busy == 1

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function` in the pool; it counts as a task also while it waits for a thread."""
        with self._busy_lock:
            self._busy += 1
        future = self._pool.submit(function, *args)
        future.add_done_callback(self._done)
        return await asyncio.wrap_future(future)

    async def run_for(self, item: InferenceItem, function: Callable[..., T], *args: Any) -> T:
        """Run `function` in the pool, or apart for a heavy item: it is then no task of the pool."""
        if not item.heavy:
            return await self.run(function, *args)
        return await asyncio.get_running_loop().run_in_executor(self._heavy, function, *args)

    async def run_quietly(self, function: Callable[[], T]) -> T:
        """Run `function` in the thread of the lowest priority."""
        return await asyncio.get_running_loop().run_in_executor(self._quiet, function)

    def close(self) -> None:
        """Shut down after the running tasks have finished."""
        for threads in (self._pool, self._quiet, self._heavy):
            threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: object) -> None:
        with self._busy_lock:
            self._busy -= 1


def run_at_niceness(niceness: int) -> None:
    """Give the calling thread a lower CPU priority (Linux only)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def run_at_lowest_priority() -> None:
    """Give the calling thread the lowest CPU priority (Linux only).

    Not the whole process: its other threads serve requests.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        run_at_niceness(LOWEST)
