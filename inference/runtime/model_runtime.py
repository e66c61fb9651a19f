"""The models of one runner process, and prediction of batches with mixed models."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2

from cores import cpu_count
from inference import tiles
from inference.agreement import Comparison, measure_agreement
from inference.cancellation import Halt, Halted
from inference.device import cpu_sessions, device, limits
from inference.engine import DeviceEngine, load_engine
from inference.images import DecodedImage
from inference.postprocess import MAX_DET, Found
from inference.prediction import InferenceItem, ItemResult, Prediction
from inference.runtime.loaded_models import Load, LoadedModels, Model
from inference.runtime.stages import (
    Stages,
    Work,
    as_client_error,
    failed,
    note_time,
    predicted,
    run_network,
)
from inference.runtime.threads import PredictionThreads
from settings import Settings


class ModelRuntime:
    """Loads models by tag, caches the most recently used, and predicts batches with mixed models.

    On a CPU each image is decoded, predicted and drawn in one thread of a pool; the pool has one
    thread per session. While only one image is processed, its network uses all cores. On a GPU the
    images of a batch are decoded in parallel, and each model runs once for all of its images.
    The prediction for an image does not depend on the other images.

    Heavy images are decoded one after another, in a thread of low priority.
    """

    def __init__(
        self, locate: Callable[[str], Path], settings: Settings, load: Load = load_engine
    ) -> None:
        """
        Args:
            locate: Finds the folder of an exact `name:version`, or raises ModelNotFound.
            settings: The device, and the limits of threads, batches and loaded models.
            load: Loads the engine and the description of a model folder.
        """
        cv2.setNumThreads(1)  # images are processed in parallel, each in one thread
        self._settings = settings
        self._device = device(settings)
        self._models = LoadedModels(locate, settings, load)
        self._stages = Stages(settings)
        size = cpu_sessions(settings) if self._device == "cpu" else cpu_count()
        self._threads = PredictionThreads(size)
        self._halts: set[Halt] = set()
        self._many_tiles = asyncio.Lock()  # their parts keep all threads busy

    async def predict_batch(self, items: Sequence[InferenceItem]) -> list[ItemResult]:
        """One result per item, in order; a failed item has an error in its result.

        An item that defers, and whose model is not loaded, starts the load and has the result
        `loading`: the others of its batch do not wait for that.
        """
        groups: dict[tuple[str, bool], list[int]] = {}
        cold = {item.model for item in items if item.defers and not self._models.begin(item.model)}
        deferred = {i for i, item in enumerate(items) if item.defers and item.model in cold}
        for index, item in enumerate(items):
            if index not in deferred:
                groups.setdefault((item.model, item.tiles != tiles.OFF), []).append(index)
        answers = await asyncio.gather(
            *(
                self._predict_group(tag, [items[i] for i in group], tiled)
                for (tag, tiled), group in groups.items()
            )
        )
        by_index = dict.fromkeys(deferred, ItemResult(loading=True))
        for group, results in zip(groups.values(), answers, strict=True):
            by_index.update(zip(group, results, strict=True))
        return [by_index[index] for index in range(len(items))]

    async def compare_with_live(self, item: InferenceItem, live: Prediction) -> Comparison:
        """Compare the prediction of the item's model with the live prediction of another model.

        Runs in a thread of the lowest priority, except for loading the model. If `halt` stopped the
        comparison, the result has neither an agreement nor an error.
        """
        try:
            model = await self._models.use(item.model)
        except Exception as error:
            return Comparison(error=as_client_error(error))

        halt = Halt()

        def run() -> Comparison:
            try:
                halt.check()
                result = self._predict_apart(model, item, alone=False, halt=halt)
            except Halted:
                return Comparison()
            if result.prediction is None:
                return Comparison(error=result.error)
            return Comparison(measure_agreement(live, result.prediction), times=result.times)

        self._halts.add(halt)
        try:
            return await self._threads.run_quietly(run)
        finally:
            self._halts.discard(halt)

    def halt(self) -> None:
        """Stop the running comparisons, because a request is waiting."""
        for halt in self._halts:
            halt.order()

    async def load(self, tag: str) -> None:
        """Load a model.

        Raises:
            ModelNotFound: There is no such model.
            ModelDamaged: It cannot be loaded.
        """
        await self._models.load(tag)

    async def warm(self, tag: str) -> None:
        """Load a model and run it on an empty image. Raises as `load`."""
        await self._models.warm(tag)

    def replace_renewed(self) -> None:
        """Begin to load the engines that were made again or chosen since their models were loaded.

        Until they are loaded, the old ones serve.
        """
        self._models.replace_renewed()

    async def unload(self, tag: str) -> bool:
        """Evict a model; running predictions finish. Returns whether it was loaded."""
        return self._models.unload(tag)

    def status(self) -> dict[str, Any]:
        """Device, process id, engines and letterboxes of loaded models, limits of list calls."""
        models = self._models.loaded()
        bounds = limits(self._settings)
        return {
            "device": self._device,
            "process": os.getpid(),
            "engines": {tag: model.engine.backend for tag, model in models.items()},
            "letterboxes": {
                tag: model.engine.letterbox if model.description.any_size else None
                for tag, model in models.items()
            },
            "slots": bounds.slots,
            "max_batch": bounds.max_batch,
        }

    def close(self) -> None:
        """Shut the threads down after the running predictions have finished."""
        self._models.close()
        self._threads.close()

    async def _predict_group(
        self, tag: str, items: list[InferenceItem], tiled: bool
    ) -> list[ItemResult]:
        try:
            model = await self._models.use(tag)
            if tiled and model.description.task != "classify":
                return await asyncio.gather(*(self._predict_in_turn(model, item) for item in items))
            if not model.engine.batched:
                run_for = self._threads.run_for
                return await asyncio.gather(
                    *(run_for(item, self._predict_apart, model, item) for item in items)
                )
            size = limits(self._settings).max_batch
            parts = [items[start : start + size] for start in range(0, len(items), size)]
            answers = await asyncio.gather(*(self._predict_together(model, p) for p in parts))
            return [answer for part in answers for answer in part]
        except Exception as error:
            return [failed(error, item) for item in items]

    def _predict_apart(
        self,
        model: Model,
        item: InferenceItem,
        alone: bool | None = None,
        halt: Halt | None = None,
    ) -> ItemResult:
        """Decode, predict and draw one item in the calling thread.

        `alone`: whether the network may use all cores; None: only if no other task is running.

        Raises:
            Halted: `halt` was set.
        """
        try:
            work = self._stages.prepare(model, item)
            start = time.perf_counter()
            wide = self._threads.has_one_task and not item.heavy if alone is None else alone
            (found,) = run_network(model.engine, [work], wide, halt)
            work.timed("inference", start)
            return self._stages.finish(work, found)
        except Halted:
            raise
        except Exception as error:
            return failed(error, item)

    async def _predict_together(self, model: Model, items: list[InferenceItem]) -> list[ItemResult]:
        """Predict a batch: decode and postprocess in parallel, run the network once.

        JPEGs are decoded on the device together, where it is faster than the threads of the pool.
        """

        def prepare_one(item: InferenceItem) -> Work | ItemResult:
            try:
                return self._stages.prepare(model, item)
            except Exception as error:
                return failed(error, item)

        def run(works: list[Work]) -> list[Found]:
            start = time.perf_counter()
            found = run_network(model.engine, works)
            for work in works:
                work.timed("inference", start, len(works))
            return found

        def finish_one(work: Work, found: Found) -> ItemResult:
            try:
                return self._stages.finish(work, found)
            except Exception as error:
                return failed(error, work.item)

        threads = self._threads
        ready: dict[int, Work] = {}
        fast = self._settings.decode == "fast"  # `exact` is the host's decoder
        if fast and isinstance(model.engine, DeviceEngine) and model.engine.decodes:
            ready = await threads.run(self._stages.decode_on_device, model, model.engine, items)
        hosted = [index for index in range(len(items)) if index not in ready]
        done = await asyncio.gather(
            *(threads.run_for(items[i], prepare_one, items[i]) for i in hosted)
        )
        both = {**ready, **dict(zip(hosted, done, strict=True))}
        prepared = [both[index] for index in range(len(items))]
        works = [work for work in prepared if isinstance(work, Work)]
        found = await threads.run(run, works) if works else []
        pairs = zip(works, found, strict=True)
        finished = iter(
            await asyncio.gather(*(threads.run(finish_one, work, one) for work, one in pairs))
        )
        return [next(finished) if isinstance(work, Work) else work for work in prepared]

    async def _predict_in_turn(self, model: Model, item: InferenceItem) -> ItemResult:
        """`_predict_tiled`; images of many tiles one after another, whichever process sent them."""
        if item.views <= tiles.MANY_VIEWS:
            return await self._predict_tiled(model, item)
        async with self._many_tiles:
            return await self._predict_tiled(model, item)

    async def _predict_tiled(self, model: Model, item: InferenceItem) -> ItemResult:
        """Predict an image as tiles in parallel and merge the predictions."""
        threads, stages = self._threads, self._stages
        try:
            times: dict[str, float] = {}
            start = time.perf_counter()
            image = await threads.run_for(item, stages.decode, model, item)
            note_time(times, item, "preprocess", start)
            views = tiles.views(image.width, image.height, model.description.imgsz, item.tiles)
            size = limits(self._settings).max_batch if model.engine.batched else 1
            parts = [views[first : first + size] for first in range(0, len(views), size)]
            start = time.perf_counter()
            seen = await asyncio.gather(
                *(threads.run(self._predict_views, model, item, image, part) for part in parts)
            )
            note_time(times, item, "inference", start)
            most = MAX_DET if item.max_det is None else item.max_det
            found = list(zip(views, (p for part in seen for p in part), strict=True))
            start = time.perf_counter()
            prediction = await threads.run(tiles.merge, found, most)
            note_time(times, item, "postprocess", start)
            return await threads.run(stages.result, item, image, prediction, times)
        except Exception as error:
            return failed(error, item)

    def _predict_views(
        self, model: Model, item: InferenceItem, image: DecodedImage, views: list[tiles.View]
    ) -> list[Prediction]:
        """The prediction for each view, in pixels of the view."""
        works = [self._stages.work(model, item, view.cut(image)) for view in views]
        wide = len(works) == 1 and self._threads.has_one_task
        seen = run_network(model.engine, works, wide)
        return [predicted(work, found) for work, found in zip(works, seen, strict=True)]
