"""An inner service as the gateway sees it: one that may be starting, gone, or slow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import aiohttp
from bentoml.exceptions import BentoMLException

from api import telemetry
from api.parcel import Parcel
from errors import BackendTimeout, BackendUnavailable
from inference.batcher import Batcher
from inference.device import limits
from inference.prediction import InferenceItem, ItemResult
from settings import Settings

log = logging.getLogger("visionloop")

POLL = 0.3  # seconds between two questions whether a runner is back
PROBE = 3.0  # seconds in which a living runner says so
RESTART = 10.0  # seconds that BentoML takes to notice a dead runner and start another


class Runner:
    """Gathers pictures into batches for one runner service, and knows whether it is there.

    A runner's socket belongs to the supervisor: while the process is dead, calls would queue
    in the socket until another is up, 8 to 20 seconds later. So after a lost connection this
    refuses at once, and asks in the background until the runner answers again.

    `proxy` is what `bentoml.depends` gives. Its methods appear only after the start-up hooks
    (1.4.39), so they are called by name.
    """

    def __init__(self, name: str, proxy: Any, settings: Settings) -> None:
        self.name = name
        self.proxy = proxy
        self._up = asyncio.Event()
        self._was_up = False
        self._watch: asyncio.Task[None] | None = None
        bounds = limits(settings)
        self.batcher = Batcher(self._predict, bounds.slots, bounds.max_batch, settings.queue_length)

    def start(self) -> None:
        """Begin to wait for the runner. Needs a running event loop."""
        self._watch = asyncio.create_task(self._watch_for())

    async def stop(self) -> None:
        """Let calls in flight finish, refuse the rest."""
        await self.batcher.close()
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    @property
    def up(self) -> bool:
        return self._up.is_set()

    async def wait_until_up(self) -> None:
        await self._up.wait()

    async def predict(self, item: InferenceItem) -> ItemResult:
        """One picture's result, whichever batch it travelled in.

        Raises:
            BackendUnavailable: the runner is not there, or its queue is full.
            BackendTimeout: it did not answer in time.
        """
        if not self.up:
            raise self._absent()
        return await self.batcher.submit(item)

    async def status(self) -> dict[str, Any]:
        """Device, loaded engines, slots; BackendUnavailable within seconds where none comes."""
        try:
            async with asyncio.timeout(PROBE):
                found: dict[str, Any] = await self._call("status")
                return found
        except TimeoutError:
            raise self._lost() from None

    async def warm(self, tag: str) -> None:
        """Load a model, so that the first request need not."""
        await self._call("warm", tag)

    async def unload(self, tag: str) -> None:
        await self._call("unload", tag)

    async def _predict(self, items: list[InferenceItem]) -> list[ItemResult]:
        if not self.up:  # it died while they waited
            raise self._absent()
        telemetry.BATCH_SIZE.labels(self.name).observe(len(items))
        answer: Parcel = await self._call("predict_batch", Parcel(items))
        results: list[ItemResult] = answer.content
        return results

    async def _call(self, method: str, *args: Any) -> Any:
        try:
            return await self.proxy.call(method, *args)
        except TimeoutError:
            raise BackendTimeout(f"The {self.name} did not answer in time.") from None
        except (aiohttp.ClientError, OSError) as error:
            log.warning("%s: connection lost (%s)", self.name, type(error).__name__)
            raise self._lost() from None
        except BentoMLException as error:
            if error.error_code == 503:
                raise self._absent() from None
            if error.error_code == 504:
                raise BackendTimeout(f"The {self.name} did not answer in time.") from None
            raise RuntimeError(f"The {self.name} failed: {error}") from error

    def _absent(self) -> BackendUnavailable:
        if self._was_up:
            return BackendUnavailable(f"The {self.name} is being restarted.", RESTART)
        return BackendUnavailable(f"The {self.name} is still starting.", 2.0)

    def _lost(self) -> BackendUnavailable:
        if self.up:
            self._up.clear()
            self.start()
        return self._absent()

    async def _watch_for(self) -> None:
        while not self.up:
            try:
                async with asyncio.timeout(60):
                    await self.proxy.call("status")
            except (TimeoutError, aiohttp.ClientError, OSError, BentoMLException):
                await asyncio.sleep(POLL)
            else:
                self._was_up = True
                self._up.set()
                log.info("%s: ready", self.name)
