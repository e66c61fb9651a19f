"""The task that fills the window: one reading of all counters every ten seconds, in a thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from serving.operations.counters import Counters, read_counters
from serving.operations.window import STEP, Window

log = logging.getLogger("visionloop")


class Sampler:
    """Reads the counters of all processes; one per gateway process.

    Each gateway reads the files of all, at the same times of the clock, so that it does not matter
    which one answers.

    Args:
        queued: Returns the number of images that wait, in all gateway processes.
        read: Returns the counters; called in a thread.
        step: Seconds between two readings.
    """

    def __init__(
        self,
        queued: Callable[[], float],
        read: Callable[[], Counters] = read_counters,
        step: float = STEP,
    ) -> None:
        self.window = Window(shortest=step / 2)
        self.seconds = 0.0  # that the last reading took
        self._queued, self._read, self._step = queued, read, step

    async def run(self) -> None:
        """Read on and on."""
        while True:
            try:
                await self.sample()
            except Exception:
                log.exception("The statistics of the last minutes could not be read")
            await asyncio.sleep(self._step - time.time() % self._step)

    async def sample(self) -> None:
        """Read the counters once."""
        began = time.perf_counter()
        counters = await asyncio.to_thread(self._read)
        self.seconds = time.perf_counter() - began
        self.window.add(time.time(), counters, self._queued())
