"""What is noted of every live answer: counts, and pictures worth an annotation."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from errors import ModelNotFound
from inference.prediction import Prediction
from models_store.registry import Registry
from models_store.versions import ModelVersion
from monitoring.drift import Stability, stability
from monitoring.kept_images import KeptImages
from monitoring.live_stats import LiveStore, this_hour
from monitoring.prediction_counts import PredictionCounts, counted
from serving import telemetry

log = logging.getLogger("visionloop")

FLUSH = 5.0  # seconds; what a killed server loses
DAY = 24  # hours that the gauges look back
KEEPING = 4  # pictures that wait to be kept; more are passed over


class LiveTraffic:
    """One per gateway process. A request only appends to a list; the rest happens aside."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.store = LiveStore(registry.database)
        self.kept = KeptImages(registry.settings)
        self._keep_below = registry.settings.keep_below
        self._keeper = ThreadPoolExecutor(1, "keep")
        self._keeping = 0
        self._seen: list[tuple[ModelVersion, Prediction]] = []
        self._tallies: dict[tuple[str, str], PredictionCounts] = {}
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to store what is counted. Needs a running event loop."""
        self._task = asyncio.create_task(self._flush_on())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()
        await asyncio.to_thread(self._keeper.shutdown)

    def note(self, model: ModelVersion, prediction: Prediction) -> None:
        """Count an answer."""
        self._seen.append((model, prediction))

    def doubt(self, model: ModelVersion, prediction: Prediction) -> float | None:
        """The lowest confidence in an answer whose picture is to be kept, else None."""
        if not self._keep_below:
            return None
        scores, _ = counted(model.description, prediction)
        lowest = float(scores[-1]) if len(scores) else 1.0
        return lowest if lowest < self._keep_below else None

    def keep(self, image: bytes, answer: dict[str, Any], confidence: float) -> None:
        """Have a picture kept, unless too many wait for that."""
        if self._keeping >= KEEPING:
            return
        self._keeping += 1
        loop = asyncio.get_running_loop()
        kept = loop.run_in_executor(self._keeper, self.kept.keep, image, answer, confidence)
        kept.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._keeping -= 1
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("A picture could not be kept: %s", error)

    async def flush(self) -> None:
        """Store what was counted so far. What cannot be stored is tried again the next time."""
        async with self._flushing:
            seen, self._seen = self._seen, []
            try:
                await asyncio.to_thread(self._store, seen)
            except Exception:
                log.exception("The live counts could not be stored")

    def _store(self, seen: list[tuple[ModelVersion, Prediction]]) -> None:
        hour = this_hour()
        models = {model.id: model for model, _ in seen}
        for model in models.values():
            answers = (prediction for other, prediction in seen if other.id == model.id)
            tally = PredictionCounts.of(model.description, answers)
            telemetry.record_live(model.id, model.description.names, tally)
            waiting = self._tallies.get((model.id, hour))
            if waiting is None:
                self._tallies[model.id, hour] = tally
            else:
                waiting.add(tally)
        if self._tallies:
            self.store.add(self._tallies)
            self._tallies = {}

    async def _flush_on(self) -> None:
        while True:
            await asyncio.sleep(FLUSH)
            await self.flush()

    def gauges(self) -> list[Metric]:
        """For Prometheus: the drift of the last day, and what is kept. Reads the table."""
        index = GaugeMetricFamily(
            "visionloop_population_stability_index",
            "Classes seen live in the last 24 hours against those of the training",
            labels=["model"],
        )
        for model_id, tally in self.store.totals(DAY).items():
            try:
                model = self.registry.get(model_id)
            except ModelNotFound:
                continue
            if (found := drift(model, tally)) is not None:
                index.add_metric([model_id], found.index)
        kept = self.kept.list()
        number = GaugeMetricFamily("visionloop_kept_images", "Pictures kept", len(kept))
        size = sum(image.size_bytes for image in kept)
        room = GaugeMetricFamily("visionloop_kept_bytes", "Size of the pictures kept", size)
        return [index, number, room]


def drift(model: ModelVersion, tally: PredictionCounts) -> Stability | None:
    """Live classes against those trained on; None where either is not known."""
    trained = training_counts(model)
    return None if trained is None else stability(tally.classes.tolist(), trained)


def training_counts(model: ModelVersion) -> list[int] | None:
    """Objects by class id that a model was trained on; None where that is not known."""
    noted = model.source.get("class_counts")
    if not isinstance(noted, dict) or not any(noted.values()):
        return None
    return [int(noted.get(name, 0)) for name in model.description.names]
