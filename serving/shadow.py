"""Shadow traffic: a candidate model predicts a sample of the live images, at low priority."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from database import FAILURES
from errors import BackendTimeout, ModelNotFound, NotFound, ValidationFailed, VisionLoopError
from inference.agreement import Agreement, Comparison
from inference.prediction import InferenceItem, ItemResult, Prediction
from models_store.names import split_tag
from models_store.registry import Registry
from models_store.versions import ModelVersion
from monitoring.shadow_store import Ending, ShadowRow, ShadowStore
from serving import telemetry
from serving.runner_client import Runner

log = logging.getLogger("visionloop")

QUEUE = 4  # maximum number of queued images; older ones are dropped
PAUSE = 0.02  # idle seconds before a comparison; longer than the gaps of a client in a loop
HALT_INTERVAL = 0.02  # seconds between halts; the first may arrive before the comparison starts
TICK = 2.0  # seconds between two reads of the table, and between two writes of the statistics
SIDES = ("live", "candidate", "matched")
COUNTS = ("seen", "run", "dropped", "failed", "agreement", "live_ms", "candidate_ms")


@dataclass(slots=True)
class ShadowStats:
    """Statistics of a shadow model since the last write.

    Attributes:
        seen: Number of live responses that the shadow can be compared with.
        run: Number of images compared.
        dropped: Number of images sampled, but not compared because the runner was busy.
        failed: Number of images whose comparison failed.
        agreement: Sum of the agreement scores of the compared images.
        live_ms: Sum of the model times of their live responses, in milliseconds.
        candidate_ms: Sum of the model times of the shadow, in milliseconds.
        classes: Number of objects by side (live, candidate, matched) and class name.
    """

    seen: int = 0
    run: int = 0
    dropped: int = 0
    failed: int = 0
    agreement: float = 0.0
    live_ms: float = 0.0
    candidate_ms: float = 0.0
    classes: dict[str, Counter[str]] = field(default_factory=lambda: {s: Counter() for s in SIDES})

    def note(self, found: Agreement, live_ms: float, candidate_ms: float) -> None:
        """Count one comparison."""
        self.run += 1
        self.agreement += found.score
        self.live_ms += live_ms
        self.candidate_ms += candidate_ms
        for side in SIDES:
            self.classes[side].update(getattr(found, side))

    def add(self, other: ShadowStats) -> None:
        """Add the statistics of other images of the same shadow."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for side in SIDES:
            self.classes[side].update(other.classes[side])

    def merged(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The sum of the stored statistics and these, in the form in which they are stored."""
        added: dict[str, Any] = {n: stored.get(n, 0) + getattr(self, n) for n in COUNTS}
        known = stored.get("classes", {})
        classes = {side: Counter(known.get(side, {})) + self.classes[side] for side in SIDES}
        return added | {"classes": {side: dict(count) for side, count in classes.items()}}


@dataclass(frozen=True, slots=True)
class _Copy:
    number: int
    item: InferenceItem
    live: Prediction
    live_ms: float


class Shadowing:
    """Runs the stored shadow's model on a sample of the live images; one per gateway process.

    A low process priority is not enough: even on another core a comparison takes memory bandwidth,
    cache and clock rate from a live request (measured: p50 1.5 times as long). So a comparison
    starts only when no request is in progress, and is halted and dropped when one arrives. The
    newest `QUEUE` images are queued.
    """

    def __init__(
        self,
        registry: Registry,
        annotator: Runner,
        *,
        tick: float = TICK,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`tick`: see TICK; `chance`: a random number from 0 to below 1."""
        self.registry = registry
        self.store = ShadowStore(registry.database)
        self._annotator = annotator
        self._tick = tick
        self._chance = chance
        self._running: ShadowRow | None = None
        self._candidate: ModelVersion | None = None
        self._stats = ShadowStats()
        self._queue: deque[_Copy] = deque()
        self._filled = asyncio.Event()
        self._table = asyncio.Lock()  # held while a row is read and its state applied
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Resume the shadow that is stored as running. Needs a running event loop."""
        self._tasks = [asyncio.create_task(task()) for task in (self._work, self._poll_table)]

    async def stop(self) -> None:
        """Stop comparing and store the statistics."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store_stats()

    # --- live traffic

    def fits(self, model: ModelVersion) -> bool:
        """Whether live responses of this model are compared with the shadow."""
        row, candidate = self._running, self._candidate
        if row is None or candidate is None or model.id == candidate.id:
            return False
        if row.against is not None:
            name, version = split_tag(row.against)
            return model.name == name and version in (None, model.version)
        return model.description.task == candidate.description.task

    def offer(self, item: InferenceItem, result: ItemResult) -> None:
        """Queue a sample of the live images for comparison; does not block.

        Call it only for models for which `fits` is true.
        """
        row, candidate, live = self._running, self._candidate, result.prediction
        if row is None or candidate is None or live is None:
            return
        self._stats.seen += 1
        telemetry.of_model(telemetry.SHADOW_SEEN, candidate.id).inc()
        if self._chance() >= row.fraction:
            return
        if len(self._queue) >= QUEUE:
            self._drop(self._queue.popleft())
        copied = replace(item, model=candidate.id, draw=False)
        bare = replace(live, polygons=None, keypoints=None)
        self._queue.append(_Copy(row.number, copied, bare, sum(result.times.values())))
        self._filled.set()

    def _drop(self, copy: _Copy) -> None:
        if self._is_current(copy):
            self._stats.dropped += 1
            telemetry.count_shadow(copy.item.model, "dropped")

    def _is_current(self, copy: _Copy) -> bool:
        """Whether the shadow for which the image was queued is still running."""
        return self._running is not None and copy.number == self._running.number

    async def _work(self) -> None:
        while True:
            await self._filled.wait()
            await self._annotator.idle.wait_idle(PAUSE)
            if self._queue:  # empty if the shadow has ended
                await self._run(self._queue.popleft())
            if not self._queue:
                self._filled.clear()

    async def _run(self, copy: _Copy) -> None:
        model = copy.item.model
        try:
            async with asyncio.timeout(self.registry.settings.request_timeout):
                found = await self._compare(copy)
            if found.error is not None:
                raise found.error
        except Exception as error:
            self._stats.failed += 1
            telemetry.count_shadow(model, "failed")
            log.warning("Comparing with the shadow %s failed: %s", model, error)
            await asyncio.sleep(
                self._tick if isinstance(error, BackendTimeout | TimeoutError) else 0.1
            )
            return
        if found.agreement is None:
            self._drop(copy)
            return
        spent = sum(found.times.values())
        if not self._is_current(copy):
            return
        self._stats.note(found.agreement, copy.live_ms, spent)
        telemetry.record_shadow(model, found.agreement, self._shows_classes(), copy.live_ms, spent)

    async def _compare(self, copy: _Copy) -> Comparison:
        """Compare one image; the result is empty if a request arrived before the end."""
        halting = asyncio.create_task(self._halt_when_busy())
        try:
            return await self._annotator.compare(copy.item, copy.live)
        finally:
            halting.cancel()
            await asyncio.gather(halting, return_exceptions=True)

    async def _halt_when_busy(self) -> None:
        await self._annotator.idle.wait_busy()
        while True:
            await self._annotator.halt()
            await asyncio.sleep(HALT_INTERVAL)

    def _shows_classes(self) -> bool:
        candidate = self._candidate
        return candidate is not None and len(candidate.description.names) <= telemetry.PER_CLASS

    # --- the table

    async def begin(self, model_id: str, fraction: float, against: str | None) -> ShadowRow:
        """Start a shadow; it replaces the running one.

        Raises:
            ModelNotFound: There is no such model.
            ValidationFailed: The model cannot be compared with the live model.
        """
        candidate = self.registry.get(model_id)
        live = self.registry.resolve(against)
        _require_comparable(candidate, live)
        if against:
            against = live.id if split_tag(against)[1] else live.name
        # If the runner is down or slow, the first comparison loads the model.
        with contextlib.suppress(VisionLoopError, TimeoutError):
            async with asyncio.timeout(self.registry.settings.request_timeout / 2):
                await self._annotator.warm(candidate.id)
        async with self._table:
            await self._store_stats()
            row = await asyncio.to_thread(
                self.store.begin, candidate.id, against or None, fraction, candidate.promoted
            )
            self._follow(row)
        return row

    async def end(self, because: Ending = "stopped") -> ShadowRow:
        """End the running shadow.

        Raises:
            NotFound: No shadow is running.
        """
        async with self._table:
            await self._store_stats()
            row = await asyncio.to_thread(self.store.newest)
            if row is None or row.ended_at is not None:
                raise NotFound("No shadow runs. Start one: POST /models/shadow.")
            row = await asyncio.to_thread(self.store.end, row.number, because)
            self._follow(row)
        return row

    async def newest(self) -> ShadowRow | None:
        """The running shadow, else the last one, with current statistics."""
        await self.look()
        await self._store_stats()
        return await asyncio.to_thread(self.store.newest)

    async def look(self) -> None:
        """Apply changes of the table, and end the shadow if its candidate's state requires it."""
        async with self._table:
            row = await asyncio.to_thread(self.store.newest)
            if row is not None and row.ended_at is None and (because := self._ended_because(row)):
                await self._store_stats()
                row = await asyncio.to_thread(self.store.end, row.number, because)
                log.info("The shadow of %s has ended: %s", row.model_id, because)
            self._follow(row)

    def _ended_because(self, row: ShadowRow) -> Ending | None:
        try:
            candidate = self.registry.get(row.model_id)
        except ModelNotFound:
            return "deleted"
        if candidate.active:
            return "activated"
        return "promoted" if candidate.promoted and not row.promoted else None

    def _follow(self, row: ShadowRow | None) -> None:
        running = row if row is not None and row.ended_at is None else None
        if running is None or self._running is None or running.number != self._running.number:
            self._queue.clear()
            self._stats = ShadowStats()
        self._running = running
        self._candidate = None
        if running is not None:
            with contextlib.suppress(ModelNotFound):
                self._candidate = self.registry.get(running.model_id)

    async def _store_stats(self) -> None:
        row, stats = self._running, self._stats
        if row is None or stats == ShadowStats():
            return
        self._stats = ShadowStats()
        try:
            await asyncio.to_thread(self.store.add, row.number, stats.merged)
        except FAILURES as error:  # they are stored with the next ones
            log.warning("The statistics of the shadow cannot be stored yet: %s", error)
            if self._running is not None and self._running.number == row.number:
                self._stats.add(stats)
        except Exception:
            log.exception("The statistics of the shadow could not be stored")

    async def _poll_table(self) -> None:
        while True:
            try:
                await self.look()
                await self._store_stats()
            except Exception:
                log.exception("Reading the state of the shadow failed")
            await asyncio.sleep(self._tick)


def _require_comparable(candidate: ModelVersion, live: ModelVersion) -> None:
    theirs, ours = candidate.description, live.description
    if candidate.active or candidate.id == live.id:
        raise ValidationFailed(
            f"'{candidate.id}' already answers live traffic. Shadow another model or version."
        )
    if theirs.task != ours.task:
        raise ValidationFailed(
            f"'{candidate.id}' is a {theirs.type} model, '{live.id}' a {ours.type} one: they "
            f"cannot be compared. Name a {theirs.type} model whose traffic to copy in 'against'."
        )
    if not set(theirs.names) & set(ours.names):
        raise ValidationFailed(
            f"'{candidate.id}' and '{live.id}' have no class name in common. Choose a model of the "
            "same classes, or name its counterpart in 'against'."
        )
