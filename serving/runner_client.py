"""The gateway's client of a runner. It handles runners that are starting, dead or slow."""

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

BEAT = 2.0  # seconds between two heartbeats of a runner that is up
POLL = 0.3  # seconds between two heartbeats of a runner that is down
TURN = 0.05  # seconds between two attempts to get one of the open connections
PROBE = 3.0  # seconds after which a heartbeat without response counts as failed
LOST = (aiohttp.ClientError, OSError)
HEAVY_QUEUE = 8  # most heavy images that wait for their turn
RESTART = 10.0  # seconds that BentoML takes to notice a dead runner and start another


class Runner:
    """Batches images for one runner service, and tracks whether it is up.

    The supervisor owns the runner's socket: while the runner process is dead, calls queue in the
    socket until a new process is up, 8 to 20 seconds later. So this class sends heartbeats, and
    refuses calls at once while they get no response.

    Args:
        name: The name of the runner, for messages and metrics.
        proxy: The result of `bentoml.depends`. Its methods are called by name, because they only
            exist after the start-up hooks (BentoML 1.4.39).
        settings: Provide queue length, batch size and request timeout.
        idle: Marked busy while a request waits for its prediction.
    """

    def __init__(
        self,
        name: str,
        proxy: Any,
        settings: Settings,
        idle: IdleTracker,
        *,
        poll: float = POLL,
    ) -> None:
        self.name = name
        self.proxy = proxy
        self.idle = idle
        self._poll = poll
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
        # Images that take long to decode go one at a time, so that others need not wait for them.
        self.heavy = Batcher(self._predict, 1, 1, HEAVY_QUEUE, settings.request_timeout)

    def start(self) -> None:
        """Start the heartbeats. Needs a running event loop."""
        self._watch = asyncio.create_task(self._send_heartbeats())

    async def stop(self) -> None:
        """Wait for the running batches; refuse the queued requests."""
        await asyncio.gather(*(batcher.close() for batcher in self.batchers))
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    @property
    def batchers(self) -> tuple[Batcher, Batcher]:
        """The queue of ordinary images, and that of heavy ones."""
        return self.batcher, self.heavy

    @property
    def up(self) -> bool:
        return self._up.is_set()

    async def wait_until_up(self) -> None:
        await self._up.wait()

    async def predict(self, item: InferenceItem) -> ItemResult:
        """The result of one image, predicted in a batch with others.

        Raises:
            BackendUnavailable: The runner is down, or its queue is full.
            BackendTimeout: The runner did not respond in time.
        """
        if not self.up:
            raise self._absent()
        with self.idle.busy():
            return await (self.heavy if item.heavy else self.batcher).submit(item)

    async def compare(self, item: InferenceItem, live: Prediction) -> Comparison:
        """Compare the item's model with a live prediction, at low priority and not in a batch.

        The comparison is empty if `halt` stopped it.

        Raises:
            BackendUnavailable: The runner is down.
            BackendTimeout: The runner did not respond in time.
        """
        if not self.up:
            raise self._absent()
        answer: Envelope = await self._call("compare", Envelope((item, live)))
        comparison: Comparison = answer.content
        return comparison

    async def halt(self) -> None:
        """Stop the running comparisons."""
        await self._call("halt")

    async def status(self) -> dict[str, Any]:
        """The runner's device, loaded engines and limits of list calls.

        Raises:
            BackendUnavailable: The runner did not respond within `PROBE` seconds.
        """
        try:
            async with asyncio.timeout(PROBE):
                found: dict[str, Any] = await self._call("status")
                return found
        except TimeoutError:
            raise self._absent() from None

    async def warm(self, tag: str) -> None:
        """Load a model before its first request.

        Raises:
            ModelNotFound: The runner does not find the model.
        """
        answer: Envelope = await self._call("warm", tag)
        if answer.content is not None:
            raise answer.content

    async def unload(self, tag: str) -> None:
        """Evict a model."""
        await self._call("unload", tag)

    async def _predict(self, items: list[InferenceItem]) -> list[ItemResult]:
        if not self.up:  # the runner died while the items were queued
            raise self._absent()
        answer: Envelope = await self._call("predict_batch", Envelope(items))
        results: list[ItemResult] = answer.content
        return results

    async def _call(self, method: str, *args: Any) -> Any:
        try:
            return await self._call_with_retry(method, *args)
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

    async def _call_with_retry(self, method: str, *args: Any) -> Any:
        """Call a method of the runner; retry if the connection failed although the runner is up.

        aiohttp does not retry POST requests. When the supervisor stops, it removes the socket file
        at once; then only the open connections work, and the call waits for one of them.
        """
        again = False
        while True:
            try:
                return await self.proxy.call(method, *args)
            except TimeoutError:  # a subclass of OSError, but not a lost connection
                raise
            except aiohttp.ClientConnectorError:
                if not self.up:
                    raise
                await asyncio.sleep(TURN)
            except LOST:  # perhaps closed because it was idle (uvicorn, after 5 s)
                if again or not await self._answers():
                    raise
                again = True

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(PROBE):
                await self.proxy.call("status")
        except aiohttp.ClientConnectorError:
            return self.up and any(batcher.stats.running_calls for batcher in self.batchers)
        except (TimeoutError, *LOST, BentoMLException):
            return False
        return True

    def _absent(self) -> BackendUnavailable:
        if self._was_up:
            return BackendUnavailable(f"The {self.name} is being restarted.", RESTART)
        return BackendUnavailable(f"The {self.name} is still starting.", 2.0)

    async def _send_heartbeats(self) -> None:
        while True:
            try:
                self._update(await self._answers())
            except Exception:
                log.exception("%s: the heartbeat failed", self.name)
            await asyncio.sleep(BEAT if self.up else self._poll)

    def _update(self, answers: bool) -> None:
        if answers and not self.up:
            self._was_up = True
            self._up.set()
            log.info("%s: ready", self.name)
        elif self.up and not answers:
            self._up.clear()
            log.warning("%s: does not answer", self.name)
