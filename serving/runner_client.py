"""An inner service as the gateway sees it: one that may be starting, gone, or slow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import aiohttp
from bentoml.exceptions import BentoMLException

from errors import BackendTimeout, BackendUnavailable
from inference.agreement import Comparison
from inference.batcher import Batcher
from inference.device import limits
from inference.prediction import InferenceItem, ItemResult, Prediction
from serving import telemetry
from serving.envelope import Envelope
from serving.idle import IdleTracker
from settings import Settings

log = logging.getLogger("visionloop")

BEAT = 2.0  # seconds between two questions whether a runner is there
POLL = 0.3  # the same for one that is not
TURN = 0.05  # seconds between two attempts at one of few connections
PROBE = 3.0  # seconds in which a living runner answers
LOST = (aiohttp.ClientError, OSError)
RESTART = 10.0  # seconds that BentoML takes to notice a dead runner and start another


class Runner:
    """Gathers pictures into batches for one runner service, and knows whether it is there.

    A runner's socket belongs to the supervisor: while the process is dead, calls queue in the
    socket until another one is up, 8 to 20 seconds later. So this asks the runner regularly,
    and refuses at once while it does not answer.

    `proxy` is what `bentoml.depends` gives. Its methods appear only after the start-up hooks
    (1.4.39), so they are called by name.
    """

    def __init__(self, name: str, proxy: Any, settings: Settings, idle: IdleTracker) -> None:
        self.name = name
        self.proxy = proxy
        self.idle = idle
        self._up = asyncio.Event()
        self._was_up = False
        self._watch: asyncio.Task[None] | None = None
        bounds = limits(settings)
        self.batcher = Batcher(
            self._predict,
            bounds.slots,
            bounds.max_batch,
            settings.queue_length,
            settings.request_timeout,
            observe=lambda items, _: telemetry.BATCH_SIZE.labels(name).observe(items),
        )

    def start(self) -> None:
        """Begin to watch the runner. Needs a running event loop."""
        self._watch = asyncio.create_task(self._watch_on())

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
        with self.idle.busy():
            return await self.batcher.submit(item)

    async def compare(self, item: InferenceItem, live: Prediction) -> Comparison:
        """The item's model beside a live answer, at low priority and outside every batch.

        Its answer is empty where `halt` came first.

        Raises:
            BackendUnavailable: the runner is not there.
            BackendTimeout: it did not answer in time.
        """
        if not self.up:
            raise self._absent()
        answer: Envelope = await self._call("compare", Envelope((item, live)))
        comparison: Comparison = answer.content
        return comparison

    async def halt(self) -> None:
        """Stop the comparisons under way."""
        await self._call("halt")

    async def status(self) -> dict[str, Any]:
        """Device, loaded engines, slots.

        Raises:
            BackendUnavailable: none came within seconds.
        """
        try:
            async with asyncio.timeout(PROBE):
                found: dict[str, Any] = await self._call("status")
                return found
        except TimeoutError:
            raise self._absent() from None

    async def warm(self, tag: str) -> None:
        """Load a model, so that the first request need not.

        Raises:
            ModelNotFound: the runner does not find it.
        """
        answer: Envelope = await self._call("warm", tag)
        if answer.content is not None:
            raise answer.content

    async def unload(self, tag: str) -> None:
        await self._call("unload", tag)

    async def _predict(self, items: list[InferenceItem]) -> list[ItemResult]:
        if not self.up:  # it died while they waited
            raise self._absent()
        answer: Envelope = await self._call("predict_batch", Envelope(items))
        results: list[ItemResult] = answer.content
        return results

    async def _call(self, method: str, *args: Any) -> Any:
        try:
            return await self._through_a_stop(method, *args)
        except TimeoutError:
            raise BackendTimeout(f"The {self.name} did not answer in time.") from None
        except LOST as error:
            log.warning("%s: connection lost (%s)", self.name, type(error).__name__)
            self._up.clear()
            raise self._absent() from None
        except BentoMLException as error:
            if error.error_code == 503:
                raise self._absent() from None
            if error.error_code == 504:
                raise BackendTimeout(f"The {self.name} did not answer in time.") from None
            raise RuntimeError(f"The {self.name} failed: {error}") from error

    async def _through_a_stop(self, method: str, *args: Any) -> Any:
        """A call that tries again where the connection, not the runner, is at fault.

        aiohttp sends no POST twice by itself. A stopping supervisor takes the socket's file away
        at once; then only open connections are left, and their turn comes.
        """
        again = False
        while True:
            try:
                return await self.proxy.call(method, *args)
            except TimeoutError:  # an OSError, but not a lost connection
                raise
            except aiohttp.ClientConnectorError:
                if not self.up:
                    raise
                await asyncio.sleep(TURN)
            except LOST:  # perhaps just closed for being idle (uvicorn, after 5 s)
                if again or not await self._answers():
                    raise
                again = True

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(PROBE):
                await self.proxy.call("status")
        except aiohttp.ClientConnectorError:
            return self.up and self.batcher.stats.running_calls > 0
        except (TimeoutError, *LOST, BentoMLException):
            return False
        return True

    def _absent(self) -> BackendUnavailable:
        if self._was_up:
            return BackendUnavailable(f"The {self.name} is being restarted.", RESTART)
        return BackendUnavailable(f"The {self.name} is still starting.", 2.0)

    async def _watch_on(self) -> None:
        while True:
            try:
                self._note(await self._answers())
            except Exception:
                log.exception("%s: cannot be watched", self.name)
            await asyncio.sleep(BEAT if self.up else POLL)

    def _note(self, answers: bool) -> None:
        if answers and not self.up:
            self._was_up = True
            self._up.set()
            log.info("%s: ready", self.name)
        elif self.up and not answers:
            self._up.clear()
            log.warning("%s: does not answer", self.name)
