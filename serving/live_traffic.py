"""Statistics of live responses, and storage of images with low-confidence predictions."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from database import FAILURES
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

FLUSH = 5.0  # seconds between two writes; a killed server loses the counts since the last one
DAY = 24  # hours that the gauges cover
KEEPING = 4  # maximum number of images waiting to be written; further ones are not kept


class LiveTraffic:
    """Counts live responses and keeps images; one per gateway process.

    A request only appends to a list; a background task counts and stores.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.store = LiveStore(registry.database)
        self.kept = KeptImages(registry.settings)
        self._keep_below = registry.settings.keep_below
        self._keeper = ThreadPoolExecutor(1, "keep")
        self._keeping = 0
        self._seen: list[tuple[ModelVersion, Prediction]] = []
        self._counts: dict[tuple[str, str], PredictionCounts] = {}
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that stores the counts. Needs a running event loop."""
        self._task = asyncio.create_task(self._flush_regularly())

    async def stop(self) -> None:
        """Store the last counts and images."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()
        await asyncio.to_thread(self._keeper.shutdown)

    def note(self, model: ModelVersion, prediction: Prediction) -> None:
        """Count a response."""
        self._seen.append((model, prediction))

    def doubt(self, model: ModelVersion, prediction: Prediction) -> float | None:
        """The lowest confidence of a response if its image is to be kept, else None."""
        if not self._keep_below:
            return None
        scores, _ = counted(model.description, prediction)
        lowest = float(scores[-1]) if len(scores) else 1.0
        return lowest if lowest < self._keep_below else None

    def keep(self, image: bytes, answer: dict[str, Any], confidence: float) -> None:
        """Write an image to disk in a thread, unless KEEPING images are waiting already."""
        if self._keeping >= KEEPING:
            return
        self._keeping += 1
        loop = asyncio.get_running_loop()
        kept = loop.run_in_executor(self._keeper, self.kept.keep, image, answer, confidence)
        kept.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._keeping -= 1
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("An image could not be kept: %s", error)

    async def flush(self) -> None:
        """Store the counts so far. If that fails, they are stored with the next call."""
        async with self._flushing:
            seen, self._seen = self._seen, []
            try:
                await asyncio.to_thread(self._store, seen)
            except FAILURES as error:
                log.warning("The live counts cannot be stored yet: %s", error)
            except Exception:
                log.exception("The live counts could not be stored")

    def _store(self, seen: list[tuple[ModelVersion, Prediction]]) -> None:
        hour = this_hour()
        models = {model.id: model for model, _ in seen}
        for model in models.values():
            predictions = (prediction for other, prediction in seen if other.id == model.id)
            counts = PredictionCounts.of(model.description, predictions)
            telemetry.record_live(model.id, model.description.names, counts)
            waiting = self._counts.get((model.id, hour))
            if waiting is None:
                self._counts[model.id, hour] = counts
            else:
                waiting.add(counts)
        if self._counts:
            self.store.add(self._counts)
            self._counts = {}

    async def _flush_regularly(self) -> None:
        while True:
            await asyncio.sleep(FLUSH)
            await self.flush()

    def gauges(self) -> list[Metric]:
        """Prometheus gauges of the last day's drift and the kept images; reads the database."""
        index = GaugeMetricFamily(
            "visionloop_population_stability_index",
            "Drift between the classes of the last 24 hours of live traffic and those of the "
            "training data",
            labels=["model"],
        )
        for model_id, found in drifts(self.registry, self.store).items():
            index.add_metric([model_id], found.index)
        kept = self.kept.list()
        number = GaugeMetricFamily("visionloop_kept_images", "Kept images", len(kept))
        size = sum(image.size_bytes for image in kept)
        room = GaugeMetricFamily("visionloop_kept_bytes", "Size of the kept images", size)
        return [index, number, room]


def drifts(registry: Registry, store: LiveStore) -> dict[str, Stability]:
    """The drift of the last day by model id, where it is known. Reads the database."""
    found = {}
    for model_id, counts in store.totals(DAY).items():
        try:
            stability = drift(registry.get(model_id), counts)
        except ModelNotFound:
            continue
        if stability is not None:
            found[model_id] = stability
    return found


def drift(model: ModelVersion, counts: PredictionCounts) -> Stability | None:
    """Class-frequency drift of live traffic against the training data; None if it is unknown."""
    trained = training_counts(model)
    return None if trained is None else stability(counts.classes.tolist(), trained)


def training_counts(model: ModelVersion) -> list[int] | None:
    """Number of training objects by class id; None if the model's metadata does not contain it."""
    counts = model.class_counts
    if not any(counts.values()):
        return None
    return [counts.get(name, 0) for name in model.description.names]
