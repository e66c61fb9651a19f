"""The gateway's bounded queue before a runner: work-conserving batching without timers.

While all slots are busy, items queue. As soon as a slot is free, the queued items go as one list
call. An idle system therefore adds no delay, and a busy one forms batches by itself.

A model that the runner has not loaded yet takes seconds. Its items come back from their call as
`loading`, wait outside of the slots and the queue until it is loaded, and are then sent again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

import tracing
from errors import BackendTimeout, BackendUnavailable, VisionLoopError, our_fault
from inference.prediction import InferenceItem, ItemResult
from request_id import REQUEST_ID, of_request

log = logging.getLogger("visionloop.batcher")

Call = Callable[[list[InferenceItem]], Awaitable[list[ItemResult]]]
Load = Callable[[str], Awaitable[VisionLoopError | None]]

_SMOOTHING = 0.2  # weight of the newest call in the estimate of throughput
SHUTTING_DOWN = "The service is shutting down. Try again."
_OVERLOADED = {429, 502, 503}
_LOADING_RETRY = 2.0  # seconds that a refused item should wait while models are being loaded


@dataclass(slots=True)
class BatcherStats:
    """Counters since the start and current gauge values, for `/metrics`."""

    items: int = 0
    calls: int = 0
    rejected: int = 0
    dropped: int = 0
    timeouts: int = 0
    failed_calls: int = 0
    queued: int = 0
    loading: int = 0
    running_calls: int = 0
    views_per_second: float = 0.0


@dataclass(slots=True, eq=False)
class _Waiting:
    item: InferenceItem
    future: asyncio.Future[ItemResult]
    defers: bool  # whether it comes back as `loading` instead of waiting in the call
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Sends items to one runner in batches. For use within one event loop.

    Args:
        call: The runner's list call: returns one result per item, in the same order.
        slots: Maximum number of list calls in flight.
        max_batch: Maximum number of items per call.
        queue_length: Maximum number of waiting views; once they are as many, items are refused.
            Those that wait for a model to be loaded are counted apart, with the same maximum.
        timeout: Maximum seconds per item, including the wait in the queue.
        observe: Called with each finished call's item count and seconds, for histograms.
        load: Loads a model in the runner; returns why that is impossible. If it fails otherwise,
            the items wait for their model in their next call. None: they always do.
    """

    def __init__(
        self,
        call: Call,
        slots: int,
        max_batch: int,
        queue_length: int,
        timeout: float = 60.0,
        observe: Callable[[int, float], None] | None = None,
        load: Load | None = None,
    ) -> None:
        self._call = call
        self._slots = slots
        self._max_batch = max_batch
        self._queue_length = queue_length
        self._timeout = timeout
        self._observe = observe
        self._load = load
        self._queue: deque[_Waiting] = deque()
        self._loading: dict[str, list[_Waiting]] = {}  # by model
        self._loads: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatch_due = False
        self._closed = False
        self._stats = BatcherStats()

    async def submit(self, item: InferenceItem) -> ItemResult:
        """The runner's result for `item`, which may hold the item's own error.

        Raises:
            BackendUnavailable: The queue is full, or the runner cannot be reached.
            BackendTimeout: No result within `timeout`.
            VisionLoopError: The call failed because of a bug.
        """
        if self._closed:
            raise BackendUnavailable(SHUTTING_DOWN, retry_after=5)
        future: asyncio.Future[ItemResult] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(item, future, defers=self._load is not None)
        if item.model in self._loading:
            self._wait_for_load(waiting)
        else:
            self._enqueue(waiting)
        try:
            async with asyncio.timeout(self._timeout):
                return await waiting.future
        except TimeoutError:
            self._stats.timeouts += 1
            raise BackendTimeout(
                f"No answer within {self._timeout:g} seconds. Try again later, or send a smaller "
                "image."
            ) from None
        finally:
            if waiting.future.cancelled() or not waiting.future.done():
                waiting.future.cancel()
                self._forget(waiting)

    async def close(self) -> None:
        """Refuse new and waiting items; wait for the calls in flight."""
        self._closed = True
        for load in self._loads:
            load.cancel()
        for waiting in (*self._queue, *(one for ones in self._loading.values() for one in ones)):
            _refuse(waiting, BackendUnavailable(SHUTTING_DOWN, retry_after=5))
        self._queue.clear()
        self._loading.clear()
        await asyncio.gather(*self._tasks, *self._loads, return_exceptions=True)

    @property
    def stats(self) -> BatcherStats:
        self._stats.queued = len(self._queue)
        self._stats.loading = sum(map(len, self._loading.values()))
        self._stats.running_calls = len(self._tasks)
        return self._stats

    def _forget(self, waiting: _Waiting) -> None:
        """Drop an item whose caller has disconnected, if it still waits."""
        for place in (self._queue, self._loading.get(waiting.item.model, [])):
            if waiting in place:
                place.remove(waiting)
                self._stats.dropped += 1

    def _seconds_to_drain(self) -> float:
        rate = self._stats.views_per_second
        if not rate:
            return 1.0
        return float(min(60, max(1, math.ceil(self._views() / rate))))

    def _views(self) -> int:
        """How often the network will run for the waiting items."""
        return sum(waiting.item.views for waiting in self._queue)

    def _enqueue(self, waiting: _Waiting) -> None:
        free = (self._slots - len(self._tasks)) * self._max_batch  # items for the free slots
        if self._views() >= self._queue_length + free:
            self._stats.rejected += 1
            raise BackendUnavailable(
                f"{max(len(self._queue) - free, 0)} requests are already waiting. Try again later.",
                retry_after=self._seconds_to_drain(),
            )
        self._queue.append(waiting)
        self._dispatch_soon()

    def _wait_for_load(self, waiting: _Waiting) -> None:
        """Let an item wait until its model is loaded; the first one of a model has it loaded."""
        model = waiting.item.model
        views = sum(one.item.views for ones in self._loading.values() for one in ones)
        if self._closed:
            _refuse(waiting, BackendUnavailable(SHUTTING_DOWN, retry_after=5))
        elif views >= self._queue_length:
            self._stats.rejected += 1
            message = "Many requests already wait for models to be loaded. Try again later."
            _refuse(waiting, BackendUnavailable(message, retry_after=_LOADING_RETRY))
        elif model in self._loading:
            self._loading[model].append(waiting)
        else:
            self._loading[model] = [waiting]
            load = asyncio.get_running_loop().create_task(self._load_model(model))
            self._loads.add(load)
            load.add_done_callback(self._loads.discard)

    async def _load_model(self, model: str) -> None:
        REQUEST_ID.set(None)  # inherited from the first of its requests
        error, failed = None, False
        try:
            if self._load is not None:
                error = await self._load(model)
        except VisionLoopError as reason:
            error = reason
        except Exception as reason:
            log.warning("Loading %s for its requests: %r", model, reason)
            failed = True
        ready = [one for one in self._loading.pop(model, []) if not one.future.done()]
        for waiting in ready:
            if error is not None:
                waiting.future.set_result(ItemResult(error=error))
            waiting.defers = waiting.defers and not failed
        if error is None and ready:
            self._queue.extendleft(reversed(ready))  # they arrived before those in the queue
            self._dispatch_soon()

    def _dispatch_soon(self) -> None:
        """Dispatch after the callbacks that are due: items arriving together form a batch."""
        if not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        while self._queue and len(self._tasks) < self._slots:
            free = self._slots - len(self._tasks)
            size = min(
                self._max_batch, -(-len(self._queue) // free)
            )  # distributed evenly over the free slots
            popped = (self._queue.popleft() for _ in range(size))
            batch = [waiting for waiting in popped if not waiting.future.done()]
            if not batch:  # all callers have disconnected
                continue
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._closed:
            self._dispatch()

    async def _run(self, batch: list[_Waiting]) -> None:
        start = time.monotonic()
        calls, items = _traced(batch)
        # The task inherits the context of whichever request has started it.
        REQUEST_ID.set(batch[0].item.request_id if len(batch) == 1 else None)
        self._stats.calls += 1
        self._stats.items += len(batch)
        try:
            # a call without a response must not occupy its slot for ever; its callers have timed
            # out by then
            async with asyncio.timeout(self._timeout):
                results = await self._call(items)
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} items")
        except Exception as error:
            self._stats.failed_calls += 1
            for waiting in batch:
                if not waiting.future.done():
                    with of_request(waiting.item.request_id):
                        waiting.future.set_exception(_as_client_error(error, self._timeout))
            return
        except asyncio.CancelledError:  # the loop is shutting down
            for waiting in batch:
                waiting.future.cancel()
            raise
        finally:
            for call in calls:
                call.end()
        answered = [
            waiting for waiting, result in zip(batch, results, strict=True) if not result.loading
        ]
        if answered:
            seconds = time.monotonic() - start
            self._measure(sum(waiting.item.views for waiting in answered), seconds)
            if self._observe:
                self._observe(len(answered), seconds)
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future.done():
                continue
            if result.loading:
                self._wait_for_load(waiting)
            else:
                waiting.future.set_result(result)

    def _measure(self, views: int, seconds: float) -> None:
        """Update the throughput estimate, assuming that all running calls are as fast as this."""
        rate = views * len(self._tasks) / max(seconds, 1e-3)
        known = self._stats.views_per_second
        self._stats.views_per_second = known + _SMOOTHING * (rate - known) if known else rate


def _refuse(waiting: _Waiting, error: BackendUnavailable) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)


def _traced(batch: list[_Waiting]) -> tuple[list[Any], list[InferenceItem]]:
    """A span of the call for each image that has a trace, and the items that carry these on."""
    items = [
        replace(waiting.item, defers=True) if waiting.defers else waiting.item for waiting in batch
    ]
    if not tracing.enabled():
        return [], items
    calls = []
    for index, waiting in enumerate(batch):
        parent = waiting.item.traceparent
        if parent is not None:
            tracing.stage("queue", time.monotonic() - waiting.since, parent)
            size = {"visionloop.batch_size": len(batch)}
            calls.append(tracing.start("runner call", parent, "CLIENT", size))
            items[index] = replace(items[index], traceparent=tracing.traceparent(calls[-1]))
    return calls, items


def _as_client_error(error: Exception, timeout: float) -> VisionLoopError:
    if isinstance(error, VisionLoopError):
        return error
    if isinstance(error, TimeoutError):  # includes aiohttp's timeout errors
        return BackendTimeout(
            f"No answer within {timeout:g} seconds. Try again later, or send a smaller image."
        )
    # BentoML raises its own exceptions, with the status code of the runner's response
    overloaded = getattr(error, "error_code", None) in _OVERLOADED
    if overloaded or isinstance(error, (aiohttp.ClientError, OSError)):
        log.warning("Runner not reachable: %r", error)
        return BackendUnavailable("The model runner is starting again. Try again.", retry_after=1)
    return our_fault(error, "The call of a runner")
