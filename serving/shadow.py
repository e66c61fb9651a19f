"""A candidate that sees a copy of the live traffic: after the answers, and behind them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Any

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

QUEUE = 4  # pictures that wait; a copy of live traffic is worth no more memory
PAUSE = 0.02  # seconds without an answer due; who sends one picture after another is back sooner
INSIST = 0.02  # seconds between two orders to stop: the first may come before the copy itself
TICK = 2.0  # seconds between two looks at the table, and two notes of the figures
SIDES = ("live", "candidate", "matched")


@dataclass(slots=True)
class ShadowStats:
    """What came of a shadow; `classes` counts objects by class name and side."""

    seen: int = 0
    run: int = 0
    dropped: int = 0
    failed: int = 0
    agreement: float = 0.0  # sum over `run`
    live_ms: float = 0.0
    candidate_ms: float = 0.0
    classes: dict[str, Counter[str]] = field(default_factory=lambda: {s: Counter() for s in SIDES})

    def note(self, found: Agreement, live_ms: float, candidate_ms: float) -> None:
        self.run += 1
        self.agreement += found.score
        self.live_ms += live_ms
        self.candidate_ms += candidate_ms
        for side in SIDES:
            self.classes[side].update(getattr(found, side))

    def merged(self, stored: dict[str, Any]) -> dict[str, Any]:
        """These figures on top of stored ones, as they are stored."""
        names = ("seen", "run", "dropped", "failed", "agreement", "live_ms", "candidate_ms")
        added: dict[str, Any] = {n: stored.get(n, 0) + getattr(self, n) for n in names}
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
    """One per gateway process.

    Priorities do not keep a copy from delaying an answer: on another core it still takes memory
    bandwidth, caches and clock from it (measured: p50 1.5 times as long). So a copy starts when
    no answer is due, and is stopped in its midst, and dropped, when one is. The newest few wait.
    """

    def __init__(self, registry: Registry, annotator: Runner) -> None:
        self.registry = registry
        self.store = ShadowStore(registry.database)
        self._annotator = annotator
        self._running: ShadowRow | None = None
        self._candidate: ModelVersion | None = None
        self._figures = ShadowStats()
        self._queue: deque[_Copy] = deque()
        self._filled = asyncio.Event()
        self._table = asyncio.Lock()  # held from reading a row until it is followed
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Go on with the shadow that the table has. Needs a running event loop."""
        self._tasks = [asyncio.create_task(task()) for task in (self._work, self._follow_on)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._note_figures()

    # --- live traffic

    def fits(self, model: ModelVersion) -> bool:
        """Whether this model's answers are for the shadow that runs."""
        row, candidate = self._running, self._candidate
        if row is None or candidate is None or model.id == candidate.id:
            return False
        if row.against is not None:
            name, version = split_tag(row.against)
            return model.name == name and version in (None, model.version)
        return model.description.task == candidate.description.task

    def offer(self, item: InferenceItem, result: ItemResult) -> None:
        """Have the candidate look at an answered picture, or not: by chance, or for want of time.

        For models that fit. Never waits.
        """
        row, candidate, live = self._running, self._candidate, result.prediction
        if row is None or candidate is None or live is None:
            return
        self._figures.seen += 1
        telemetry.SHADOW_SEEN.labels(candidate.id).inc()
        if random.random() >= row.fraction:
            return
        if len(self._queue) >= QUEUE:
            self._drop(self._queue.popleft())
        copied = replace(item, model=candidate.id, draw=False)
        bare = replace(live, polygons=None, keypoints=None)
        self._queue.append(_Copy(row.number, copied, bare, sum(result.times.values())))
        self._filled.set()

    def _drop(self, copy: _Copy) -> None:
        if self._is_of_now(copy):
            self._figures.dropped += 1
            telemetry.SHADOW_IMAGES.labels(copy.item.model, "dropped").inc()

    def _is_of_now(self, copy: _Copy) -> bool:
        """Whether the shadow it was made for has not ended meanwhile."""
        return self._running is not None and copy.number == self._running.number

    async def _work(self) -> None:
        while True:
            await self._filled.wait()
            await self._annotator.idle.wait_idle(PAUSE)
            if self._queue:  # else its shadow has ended
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
            self._figures.failed += 1
            telemetry.SHADOW_IMAGES.labels(model, "failed").inc()
            log.warning("The shadow %s failed: %s", model, error)
            await asyncio.sleep(TICK if isinstance(error, BackendTimeout | TimeoutError) else 0.1)
            return
        if found.agreement is None:
            self._drop(copy)
            return
        spent = sum(found.times.values())
        if not self._is_of_now(copy):
            return
        self._figures.note(found.agreement, copy.live_ms, spent)
        telemetry.record_shadow(model, found.agreement, self._shows_classes(), copy.live_ms, spent)

    async def _compare(self, copy: _Copy) -> Comparison:
        """What came of the copy: nothing, where an answer was due before its end."""
        halting = asyncio.create_task(self._halt_after_the_lull())
        try:
            return await self._annotator.compare(copy.item, copy.live)
        finally:
            halting.cancel()
            await asyncio.gather(halting, return_exceptions=True)

    async def _halt_after_the_lull(self) -> None:
        await self._annotator.idle.wait_busy()
        while True:
            await self._annotator.halt()
            await asyncio.sleep(INSIST)

    def _shows_classes(self) -> bool:
        candidate = self._candidate
        return candidate is not None and len(candidate.description.names) <= telemetry.PER_CLASS

    # --- the table

    async def begin(self, model_id: str, fraction: float, against: str | None) -> ShadowRow:
        """Put a candidate in the shadow, in place of the one that is there.

        Raises:
            ModelNotFound: There is no such model.
            ValidationFailed: It cannot be compared with what answers now.
        """
        candidate = self.registry.get(model_id)
        live = self.registry.resolve(against)
        _require_comparable(candidate, live)
        if against:
            against = live.id if split_tag(against)[1] else live.name
        # without a runner or the time it is loaded by the first copy
        with contextlib.suppress(VisionLoopError, TimeoutError):
            async with asyncio.timeout(self.registry.settings.request_timeout / 2):
                await self._annotator.warm(candidate.id)
        async with self._table:
            await self._note_figures()
            row = await asyncio.to_thread(
                self.store.begin, candidate.id, against or None, fraction, candidate.promoted
            )
            self._follow(row)
        return row

    async def end(self, because: Ending = "stopped") -> ShadowRow:
        """End the shadow that runs.

        Raises:
            NotFound: None does.
        """
        async with self._table:
            await self._note_figures()
            row = await asyncio.to_thread(self.store.newest)
            if row is None or row.ended_at is not None:
                raise NotFound("No shadow runs. Start one: POST /models/shadow.")
            row = await asyncio.to_thread(self.store.end, row.number, because)
            self._follow(row)
        return row

    async def newest(self) -> ShadowRow | None:
        """The shadow that runs, else the last one, with figures of this moment."""
        await self.look()
        await self._note_figures()
        return await asyncio.to_thread(self.store.newest)

    async def look(self) -> None:
        """See what became of the shadow: the table may have changed, and the candidate."""
        async with self._table:
            row = await asyncio.to_thread(self.store.newest)
            if row is not None and row.ended_at is None and (because := self._over(row)):
                await self._note_figures()
                row = await asyncio.to_thread(self.store.end, row.number, because)
                log.info("The shadow of %s has ended: %s", row.model_id, because)
            self._follow(row)

    def _over(self, row: ShadowRow) -> Ending | None:
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
            self._figures = ShadowStats()
        self._running = running
        self._candidate = None
        if running is not None:
            with contextlib.suppress(ModelNotFound):
                self._candidate = self.registry.get(running.model_id)

    async def _note_figures(self) -> None:
        row, figures = self._running, self._figures
        if row is None or figures == ShadowStats():
            return
        self._figures = ShadowStats()
        try:
            await asyncio.to_thread(self.store.add, row.number, figures.merged)
        except Exception:
            log.exception("The shadow's figures could not be stored")

    async def _follow_on(self) -> None:
        while True:
            try:
                await self.look()
                await self._note_figures()
            except Exception:
                log.exception("The shadow cannot be followed")
            await asyncio.sleep(TICK)


def _require_comparable(candidate: ModelVersion, live: ModelVersion) -> None:
    theirs, ours = candidate.description, live.description
    if candidate.active or candidate.id == live.id:
        raise ValidationFailed(f"'{candidate.id}' answers the live traffic already.")
    if theirs.task != ours.task:
        raise ValidationFailed(
            f"'{candidate.id}' is a {theirs.type} model, '{live.id}' a {ours.type} one: they "
            f"cannot be compared. Name a {theirs.type} model whose traffic to copy in 'against'."
        )
    if not set(theirs.names) & set(ours.names):
        raise ValidationFailed(f"'{candidate.id}' and '{live.id}' have no class name in common.")
