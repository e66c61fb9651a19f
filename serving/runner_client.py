"""The gateway's client of a runner. It handles runners that are starting, dead or slow.

The supervisor starts a dead runner again within a second (`serving.supervisor`). Until it is back
and has loaded its models, its images go to the other runner. Clients notice neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import aiohttp
from bentoml.exceptions import BentoMLException

from errors import BackendTimeout, BackendUnavailable, VisionLoopError
from inference import tiles
from inference.agreement import Comparison
from inference.batcher import Batcher
from inference.device import device, limits
from inference.prediction import InferenceItem, ItemResult, Prediction
from serving import telemetry
from serving.envelope import Envelope
from serving.failover import TRIALS, ProcessEnded, Trials
from serving.gateways.peers import CALLS, Peers, has_ended
from serving.idle import IdleTracker
from settings import Settings

log = logging.getLogger("visionloop")

BEAT = 2.0  # seconds between two heartbeats of a runner that is up
POLL = 0.3  # seconds between two heartbeats of a runner that is down
TURN = 0.05  # seconds between two attempts to reach a runner
PROBE = 3.0  # seconds after which a heartbeat without response counts as failed
LOST = (aiohttp.ClientError, OSError)
HEAVY_QUEUE = 8  # maximum number of heavy images that wait for their turn
HUNG = 60.0  # seconds without an answer after which a living process is killed
TILED_QUEUE = 1024  # maximum number of views of such images that wait for their turn
RESTART = 3.0  # seconds in which a dead runner is usually back


class Runner:
    """Batches images for one runner service, and tracks whether it is up.

    The supervisor owns the runner's socket: while the runner process is dead, calls queue in the
    socket until a new process is up. So this class sends heartbeats, and does not call a runner
    that gives no response.

    Args:
        name: The name of the runner, for messages and metrics.
        proxy: The result of `bentoml.depends`. Its methods are called by name, because they only
            exist after the start-up hooks (BentoML 1.4.39).
        settings: Provide queue length, batch size and request timeout. Queues and the batches of a
            GPU are divided among the gateway processes. Those of a CPU are not: its images are
            predicted one by one, and a process may have all of the clients.
        idle: Marked busy while a request waits for its prediction.
        peers: The other gateway processes.
    """

    def __init__(
        self,
        name: str,
        proxy: Any,
        settings: Settings,
        idle: IdleTracker,
        peers: Peers | None = None,
        *,
        poll: float = POLL,
        hung: float = HUNG,
    ) -> None:
        self.name = name
        self.proxy = proxy
        self.idle = idle
        self._poll = poll
        self._hung = hung
        self._silent_since: float | None = None  # monotonic; the process lives and does not answer
        self._peers = peers or Peers()
        self.trials = Trials(self._peers)
        self.stand_in: Runner | None = None
        self._up = asyncio.Event()
        self._probed = asyncio.Event()  # the first heartbeat has succeeded or failed
        self._lost = asyncio.Event()  # wakes the heartbeats
        self._was_up = False
        self._warmed = False  # it is up, and has loaded the models that it had before
        self._stopping = False
        self._pid: int | None = None
        self._running = 0  # calls in flight in its process that may end it
        self._recent: OrderedDict[str, None] = OrderedDict()  # the models of the last images
        self._kept_models = settings.model_cache
        self._watch: asyncio.Task[None] | None = None
        bounds = limits(settings)
        slots, share = bounds.slots, settings.per_gateway
        if device(settings) == "cuda":
            slots = max(min(slots, 2), share(slots))
        patience = settings.request_timeout
        self.batcher = Batcher(
            self._predict,
            slots,
            bounds.max_batch,
            share(settings.queue_length),
            patience,
            observe=lambda items, _: telemetry.BATCH_SIZE.labels(name).observe(items),
            load=self._load,
        )
        # Images that take long to decode go one at a time, so that others need not wait for them.
        self.heavy = Batcher(self._predict, 1, 1, share(HEAVY_QUEUE), patience, load=self._load)
        # So do images of many tiles; those of one image keep all cores busy.
        self.tiled = Batcher(self._predict, 1, 1, share(TILED_QUEUE), patience, load=self._load)

    def start(self) -> None:
        """Start the heartbeats. Needs a running event loop."""
        self._watch = asyncio.create_task(self._send_heartbeats())

    def begin_shutdown(self) -> None:
        """From now on, do not wait for a runner that has ended: nobody starts it again."""
        self._stopping = True

    async def stop(self) -> None:
        """Wait for the running batches; refuse the queued requests."""
        await asyncio.gather(*(batcher.close() for batcher in self.batchers))
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    @property
    def batchers(self) -> tuple[Batcher, Batcher, Batcher]:
        """The queues of ordinary images, of heavy ones, and of those of many tiles."""
        return self.batcher, self.heavy, self.tiled

    def _batcher_for(self, item: InferenceItem) -> Batcher:
        if item.heavy:
            return self.heavy
        return self.tiled if item.views > tiles.MANY_VIEWS else self.batcher

    @property
    def up(self) -> bool:
        return self._up.is_set()

    @property
    def started(self) -> bool:
        """Whether the runner has been up at least once."""
        return self._was_up

    async def wait_until_up(self) -> None:
        await self._up.wait()

    async def predict(self, item: InferenceItem) -> ItemResult:
        """The result of one image, predicted in a batch with others.

        Raises:
            BackendUnavailable: No runner has started yet, or the queue is full.
            BackendTimeout: The runner did not respond in time.
            VisionLoopError: The image is refused, because it ended two processes.
        """
        if not self._was_up:
            await self._probed.wait()
        if refusal := self.trials.refusal(item):
            raise refusal
        if not any(runner._was_up for runner in self._runners):
            raise self._absent()
        with self.idle.busy():
            return await self._batcher_for(item).submit(item)

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
            BackendUnavailable: The runner is down, or did not respond within `PROBE` seconds.
        """
        if not self.up:
            raise self._absent()
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

    @property
    def _runners(self) -> list[Runner]:
        return [self] if self.stand_in is None else [self, self.stand_in]

    async def _predict(self, items: list[InferenceItem]) -> list[ItemResult]:
        for item in items:
            self._recent[item.model] = None
            self._recent.move_to_end(item.model)
        while len(self._recent) > self._kept_models:
            self._recent.popitem(last=False)
        await self.trials.wait_until_over()
        refusals = [self.trials.refusal(item) for item in items]
        if not any(refusals):
            return await self._send_or_try(items)
        allowed = [item for item, refused in zip(items, refusals, strict=True) if not refused]
        results = iter(await self._send_or_try(allowed) if allowed else [])
        return [ItemResult(error=refused) if refused else next(results) for refused in refusals]

    async def _send_or_try(self, items: list[InferenceItem]) -> list[ItemResult]:
        # Loading the model of an item that does not defer has ended a process.
        if all(item.defers for item in items):
            with contextlib.suppress(ProcessEnded):
                return await self._send(items)
        log.warning("%s: %d images are tried again, each alone", self.name, len(items))
        with self.trials.pending():
            return [await self._try_alone(replace(item, defers=False)) for item in items]

    async def _load(self, tag: str) -> VisionLoopError | None:
        """Load a model in the process that predicts now. Returns why that is impossible.

        Raises:
            ProcessEnded: The process ended during the load.
            BackendUnavailable: The service is shutting down.
        """
        await self.trials.wait_until_over()
        while True:
            runner = await self._reachable()
            with contextlib.suppress(BackendTimeout):  # it is still being loaded
                try:
                    error: VisionLoopError | None = await runner._risk("load", tag)
                    return error
                except aiohttp.ClientConnectorError:  # not sent
                    await asyncio.sleep(TURN)

    async def _try_alone(self, item: InferenceItem) -> ItemResult:
        """The result of an image that was in flight when a process ended."""
        async with self.trials.turn:
            for left in reversed(range(TRIALS)):
                if refusal := self.trials.refusal(item):
                    return ItemResult(error=refusal)
                try:
                    return (await self._send([item]))[0]
                except ProcessEnded as ended:
                    if ended.alone or not left:
                        break
                except VisionLoopError as error:
                    return ItemResult(error=error)
            log.error("%s: an image ended a second process and is refused", self.name)
            return ItemResult(error=self.trials.refuse(item))

    async def _send(self, items: list[InferenceItem]) -> list[ItemResult]:
        """The results of a list call of this runner, or of the other runner in its place.

        Raises:
            ProcessEnded: The process ended during the call.
        """
        while True:
            runner = await self._reachable()
            try:
                results: list[ItemResult] = await runner._risk("predict_batch", Envelope(items))
                return results
            except aiohttp.ClientConnectorError:  # not sent
                await asyncio.sleep(TURN)

    async def _risk(self, method: str, argument: Any) -> Any:
        """The content of the answer to a call that may end this runner's process.

        Raises:
            ProcessEnded: It ended during the call, which is `alone` if no other was in flight.
            BackendTimeout: It did not respond in time.
            aiohttp.ClientConnectorError: There is no process to connect to.
        """
        alone = self._running == 0 and not self._peers.total(CALLS)
        self._running += 1
        self._peers.add(CALLS, 1)
        try:
            with self._as_our_errors():
                answer: Envelope = await self._call_process(method, argument)
            return answer.content
        except ProcessEnded:
            raise ProcessEnded(alone) from None
        finally:
            self._running -= 1
            self._peers.add(CALLS, -1)

    async def _reachable(self) -> Runner:
        """This runner, or the other one while this one is down; waits until one of them is up.

        Raises:
            BackendUnavailable: The service is shutting down.
        """
        while True:
            for runner in self._runners:
                if runner.up and runner._pid is not None and has_ended(runner._pid):
                    runner._update(answers=False)
            for runner in self._runners:
                if runner.up and runner._warmed:
                    return runner
            for runner in self._runners:
                if runner.up:
                    return runner
            if self._stopping:
                raise self._absent()
            await asyncio.sleep(TURN)

    async def _call(self, method: str, *args: Any) -> Any:
        """Call a method of this runner's process.

        Raises:
            BackendUnavailable: It cannot be reached, or ended during the call.
            BackendTimeout: It did not respond in time.
        """
        try:
            with self._as_our_errors():
                return await self._call_process(method, *args)
        except (aiohttp.ClientConnectorError, ProcessEnded):
            raise self._absent() from None

    @contextlib.contextmanager
    def _as_our_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise BackendTimeout(
                f"The {self.name} did not answer in time. Try again later."
            ) from None
        except BentoMLException as error:
            if error.error_code == 503:
                raise self._absent() from None
            if error.error_code == 504:
                raise BackendTimeout(
                    f"The {self.name} did not answer in time. Try again later."
                ) from None
            raise RuntimeError(f"The {self.name} failed: {error}") from error

    async def _call_process(self, method: str, *args: Any) -> Any:
        """Call a method; retry if the connection failed although the process lives.

        aiohttp does not retry POST requests. When the supervisor stops, it removes the socket file
        at once; then only the open connections work, and the call waits for one of them.

        Raises:
            ProcessEnded: The process ended during the call.
            aiohttp.ClientConnectorError: There is no process to connect to.
        """
        pid = self._pid
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
            except LOST as error:  # perhaps closed because it was idle (uvicorn, after 5 s)
                if again or await self._has_ended(pid):
                    log.warning("%s: connection lost (%s)", self.name, type(error).__name__)
                    self._update(answers=False)
                    raise ProcessEnded(alone=False) from None
                again = True

    async def _has_ended(self, pid: int | None) -> bool:
        """Whether the process that had this id when a call began has ended."""
        for pause in (0.0, TURN):  # its sockets are closed a moment before it counts as ended
            await asyncio.sleep(pause)
            if pid is not None and has_ended(pid):
                return True
        return not await self._answers() or (pid is not None and self._pid != pid)

    async def _answers(self) -> bool:
        """Whether the runner responds in time; notes the id of its process."""
        try:
            async with asyncio.timeout(PROBE):
                status = await self.proxy.call("status")
        except aiohttp.ClientConnectorError:
            return self.up and any(batcher.stats.running_calls for batcher in self.batchers)
        except (TimeoutError, *LOST, BentoMLException):
            return False
        before, self._pid = self._pid, status.get("process")
        if before not in (None, self._pid):  # another process, perhaps unnoticed so far
            self._warmed = False
        return True

    def _absent(self) -> BackendUnavailable:
        if self._was_up:
            return BackendUnavailable(f"The {self.name} is being restarted. Try again.", RESTART)
        return BackendUnavailable(f"The {self.name} is still starting. Try again.", 2.0)

    async def _send_heartbeats(self) -> None:
        while True:
            try:
                self._update(await self._answers())
                self._end_if_hung()
                if self.up and not self._warmed:
                    await self._warm_again()
            except Exception:
                log.exception("%s: the heartbeat failed", self.name)
            self._probed.set()
            self._lost.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT if self.up else self._poll):
                    await self._lost.wait()

    def _update(self, answers: bool) -> None:
        if answers and not self.up:
            self._warmed = not self._was_up  # at the first start there is nothing to load again
            self._was_up = True
            self._up.set()
            log.info("%s: ready", self.name)
        elif self.up and not answers:
            self._up.clear()
            self._warmed = False
            self._lost.set()
            log.warning("%s: does not answer", self.name)

    def _end_if_hung(self) -> None:
        """Kill a process that lives but has not answered for long; it is started again."""
        if self.up or self._stopping or self._pid is None or has_ended(self._pid):
            self._silent_since = None
            return
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since < self._hung:
            return
        log.error("%s: no answer for %g s; process %d is killed", self.name, self._hung, self._pid)
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
        self._silent_since = None

    async def _warm_again(self) -> None:
        """Load the models that the process had before it was started again.

        A model is forgotten while it is loaded: if that ends the process, it is not tried again.
        """
        for tag in list(self._recent):
            self._recent.pop(tag, None)
            with contextlib.suppress(VisionLoopError):
                await self.warm(tag)
                self._recent[tag] = None
        self._warmed = self.up


def stand_in_for_each_other(one: Runner, other: Runner) -> None:
    """Let each of two runners predict the other's images while that is away."""
    one.stand_in, other.stand_in = other, one
    other.trials = one.trials
