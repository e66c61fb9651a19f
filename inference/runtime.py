"""The models of one runner process: loading, caching, and prediction of mixed batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

import tracing
from cores import cpu_count
from errors import ModelDamaged, ModelNotFound, VisionLoopError, our_fault
from inference import tiles
from inference.agreement import Comparison, measure_agreement
from inference.cancellation import Halt, Halted
from inference.cpu.engine_choice import choice_state
from inference.device import cpu_sessions, device, limits
from inference.engine import DeviceEngine, DeviceImage, Engine, find_each, load_engine
from inference.engine_files import is_outdated, signature
from inference.images import DecodedImage, Pixels, decode, decode_at_least, read_plain_jpeg
from inference.jpeg import dct_scale
from inference.postprocess import MAX_DET, Found, Thresholds, postprocess
from inference.prediction import InferenceItem, ItemResult, Prediction
from inference.preprocess import Letterbox, needed_size, prepare
from inference.render import draw
from models_store.description import DESCRIPTION_FILE, ModelDescription
from request_id import of_request
from settings import Settings

log = logging.getLogger("visionloop.inference")

LOWEST = 19  # niceness
LOW = 10
UNUSED = 10.0  # seconds for which a model that was loaded and not used yet is not evicted

Load = Callable[[Path, Settings], tuple[Engine, ModelDescription]]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model."""

    folder: Path
    description: ModelDescription
    engine: Engine
    choice: object = None
    """State of the choice of its engine when it was loaded."""

    def is_deleted(self) -> bool:
        """Whether the model was deleted: one stat of a file, so every runner sees it at once."""
        return not (self.folder / DESCRIPTION_FILE).exists()

    def is_renewed(self) -> bool:
        """Whether the engine takes squares only, and one of any size was made since."""
        if self.engine.letterbox != "square" or not self.description.any_size:
            return False
        return not is_outdated(self.folder, self.description)


@dataclass(slots=True)
class Work:
    """An item between preprocessing and postprocessing, with its times in ms by stage.

    `image` is None if it was decoded on the device.
    """

    item: InferenceItem
    model: Model
    image: DecodedImage | None
    place: Letterbox
    prepared: Pixels | DeviceImage
    times: dict[str, float]

    @property
    def wanted(self) -> Thresholds:
        item = self.item
        return Thresholds.of(
            self.model.description, item.confidence, item.iou, item.max_det, item.classes
        )

    def timed(self, stage: str, start: float, batch: int = 1) -> None:
        """Note the end of a stage that began at `start`, and record its span."""
        _note(self.times, self.item, stage, start, batch)


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
        self._locate = locate
        self._load_engine = load
        self._settings = settings
        self._device = device(settings)
        threads = cpu_sessions(settings) if self._device == "cpu" else cpu_count()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._loader = ThreadPoolExecutor(2, thread_name_prefix="load")
        self._quiet = ThreadPoolExecutor(1, "quiet", initializer=run_at_lowest_priority)
        self._heavy = ThreadPoolExecutor(1, "heavy", partial(run_at_niceness, LOW))
        self._halts: set[Halt] = set()
        self._damaged: dict[str, tuple[object, str]] = {}  # by tag: the files' state, the message
        self._models: OrderedDict[str, asyncio.Task[Model]] = OrderedDict()
        self._many_tiles = asyncio.Lock()  # their parts keep all threads busy
        self._unused: dict[str, float] = {}  # by tag: monotonic time until which it is kept
        self._replacing: dict[str, asyncio.Task[None]] = {}  # by tag, until they serve or for good
        self._chooses = self._device == "cpu" and settings.engine == "auto"
        self._busy = 0  # number of tasks in the pool, waiting or running
        self._busy_lock = threading.Lock()

    async def predict_batch(self, items: Sequence[InferenceItem]) -> list[ItemResult]:
        """One result per item, in order; a failed item has an error in its result.

        An item that defers, and whose model is not loaded, starts the load and has the result
        `loading`: the others of its batch do not wait for that.
        """
        groups: dict[tuple[str, bool], list[int]] = {}
        cold = {item.model for item in items if item.defers and not self._begin_load(item.model)}
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
            model = await self._model(item.model)
            self._unused.pop(item.model, None)
        except Exception as error:
            return Comparison(error=_as_client_error(error))

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
            return await asyncio.get_running_loop().run_in_executor(self._quiet, run)
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
        await self._model(tag)

    async def warm(self, tag: str) -> None:
        """Load a model and run it on an empty image.

        Raises:
            ModelNotFound: There is no such model.
        """
        model = await self._model(tag)
        await asyncio.get_running_loop().run_in_executor(self._loader, _rehearse, model)

    def replace_renewed(self) -> None:
        """Begin to load the engines that were made again or chosen since their models were loaded.

        Until they are loaded, the old ones serve.
        """
        for tag, model in self._loaded().items():
            self._replace_if_renewed(tag, model)

    async def unload(self, tag: str) -> bool:
        """Evict a model; running predictions finish. Returns whether it was loaded."""
        return self._models.pop(tag, None) is not None

    def status(self) -> dict[str, Any]:
        """Device, process id, engines and letterboxes of loaded models, limits of list calls."""
        models = self._loaded()
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
        """Shut the thread pool down after the running predictions have finished."""
        self._models.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._quiet.shutdown(wait=False, cancel_futures=True)
        self._heavy.shutdown(wait=False, cancel_futures=True)

    # -- models

    def _loaded(self) -> dict[str, Model]:
        return {
            tag: task.result()
            for tag, task in self._models.items()
            if task.done() and not task.cancelled() and task.exception() is None
        }

    def _begin_load(self, tag: str) -> bool:
        """Start to load a model that is not loaded. Returns whether it is loaded already."""
        task = self._models.get(tag)
        if task is None:
            task = self._models[tag] = asyncio.create_task(self._load(tag))
            task.add_done_callback(partial(self._forget_if_failed, tag))
        return task.done()

    def _forget_if_failed(self, tag: str, task: asyncio.Task[Model]) -> None:
        """Let the next caller try again. Those that wait get the error."""
        failed = task.cancelled() or task.exception() is not None
        if failed and self._models.get(tag) is task:
            del self._models[tag]

    async def _model(self, tag: str) -> Model:
        """The loaded model; concurrent callers share one load."""
        self._begin_load(tag)
        task = self._models[tag]
        self._models.move_to_end(tag)
        try:
            model = await asyncio.shield(task)
            if model.is_deleted():
                raise ModelNotFound(
                    f"No model '{tag}': it has been deleted. GET /models lists the others."
                )
        except Exception:
            if self._models.get(tag) is task:
                del self._models[tag]
            raise
        for other, loaded in self._loaded().items():
            if loaded.is_deleted():
                del self._models[other]
        self._evict()
        self._replace_if_renewed(tag, model)
        return model

    def _evict(self) -> None:
        """Evict the least recently used models; not those that are about to be used first."""
        now = time.monotonic()
        self._unused = {tag: until for tag, until in self._unused.items() if until > now}
        loaded = list(self._loaded())
        excess = max(len(loaded) - self._settings.model_cache, 0)
        for tag in [tag for tag in loaded if tag not in self._unused][:excess]:
            del self._models[tag]

    def _replace_if_renewed(self, tag: str, model: Model) -> None:
        if tag not in self._replacing and (model.is_renewed() or self._is_chosen_anew(model)):
            self._replacing[tag] = asyncio.create_task(self._replace(tag))

    def _is_chosen_anew(self, model: Model) -> bool:
        return self._chooses and model.choice != choice_state(model.folder, self._settings)

    async def _replace(self, tag: str) -> None:
        """Load a model anew beside the loaded one, and put it in its place."""
        old = self._models.get(tag)
        new = asyncio.create_task(self._load(tag))
        try:
            model = await new
            await asyncio.get_running_loop().run_in_executor(self._loader, _rehearse, model)
        except Exception as error:  # it is not tried again in this process
            log.warning("%s: its new engine cannot be loaded; the old one serves: %s", tag, error)
            return
        if old is not None and self._models.get(tag) is old:  # it has not been evicted
            self._models[tag] = new
        del self._replacing[tag]

    async def _load(self, tag: str) -> Model:
        def load() -> Model:
            start = time.perf_counter()
            folder = self._locate(tag)
            found = signature(folder)
            choice = choice_state(folder, self._settings) if self._chooses else None
            if (failed := self._damaged.get(tag)) is not None and failed[0] == found:
                raise ModelDamaged(failed[1])  # to find that out again would take seconds
            try:
                engine, description = self._load_engine(folder, self._settings)
            except ModelDamaged as error:
                log.error("%s", error)
                self._damaged[tag] = signature(folder), error.message
                raise
            self._damaged.pop(tag, None)
            seconds = time.perf_counter() - start
            log.info("Loaded %s on %s in %.1f s", tag, engine.backend, seconds)
            return Model(folder, description, engine, choice)

        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(self._loader, load)
        self._unused[tag] = time.monotonic() + UNUSED
        loop.call_later(UNUSED, self._evict)
        return model

    # -- images

    async def _predict_group(
        self, tag: str, items: list[InferenceItem], tiled: bool
    ) -> list[ItemResult]:
        try:
            model = await self._model(tag)
            self._unused.pop(tag, None)
            if tiled and model.description.task != "classify":
                return await asyncio.gather(*(self._predict_in_turn(model, item) for item in items))
            if not model.engine.batched:
                return await asyncio.gather(
                    *(self._in_thread_of(item, self._predict_apart, model, item) for item in items)
                )
            size = limits(self._settings).max_batch
            parts = [items[start : start + size] for start in range(0, len(items), size)]
            answers = await asyncio.gather(*(self._predict_together(model, p) for p in parts))
            return [answer for part in answers for answer in part]
        except Exception as error:
            return [_failed(error, item) for item in items]

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
            work = self._prepare(model, item)
            start = time.perf_counter()
            wide = self._busy == 1 and not item.heavy if alone is None else alone
            (found,) = _find_each(model.engine, [work], wide, halt)
            work.timed("inference", start)
            return self._finish(work, found)
        except Halted:
            raise
        except Exception as error:
            return _failed(error, item)

    async def _predict_together(self, model: Model, items: list[InferenceItem]) -> list[ItemResult]:
        """Predict a batch: decode and postprocess in parallel, run the network once.

        JPEGs are decoded on the device together, where it is faster than the threads of the pool.
        """

        def prepare_one(item: InferenceItem) -> Work | ItemResult:
            try:
                return self._prepare(model, item)
            except Exception as error:
                return _failed(error, item)

        def run(works: list[Work]) -> list[Found]:
            start = time.perf_counter()
            found = _find_each(model.engine, works)
            for work in works:
                work.timed("inference", start, len(works))
            return found

        def finish_one(work: Work, found: Found) -> ItemResult:
            try:
                return self._finish(work, found)
            except Exception as error:
                return _failed(error, work.item)

        ready: dict[int, Work] = {}
        fast = self._settings.decode == "fast"  # `exact` is the host's decoder
        if fast and isinstance(model.engine, DeviceEngine) and model.engine.decodes:
            ready = await self._in_thread(self._decode_on_device, model, model.engine, items)
        hosted = [index for index in range(len(items)) if index not in ready]
        done = await asyncio.gather(
            *(self._in_thread_of(items[i], prepare_one, items[i]) for i in hosted)
        )
        both = {**ready, **dict(zip(hosted, done, strict=True))}
        prepared = [both[index] for index in range(len(items))]
        works = [work for work in prepared if isinstance(work, Work)]
        found = await self._in_thread(run, works) if works else []
        finished = iter(
            await asyncio.gather(
                *(
                    self._in_thread(finish_one, work, one)
                    for work, one in zip(works, found, strict=True)
                )
            )
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
        try:
            times: dict[str, float] = {}
            start = time.perf_counter()
            image = await self._in_thread_of(item, self._decode, model, item)
            _note(times, item, "preprocess", start)
            views = tiles.views(image.width, image.height, model.description.imgsz, item.tiles)
            size = limits(self._settings).max_batch if model.engine.batched else 1
            parts = [views[first : first + size] for first in range(0, len(views), size)]
            start = time.perf_counter()
            seen = await asyncio.gather(
                *(self._in_thread(self._predict_views, model, item, image, part) for part in parts)
            )
            _note(times, item, "inference", start)
            most = MAX_DET if item.max_det is None else item.max_det
            found = list(zip(views, (p for part in seen for p in part), strict=True))
            start = time.perf_counter()
            prediction = await self._in_thread(tiles.merge, found, most)
            _note(times, item, "postprocess", start)
            return await self._in_thread(self._result, item, image, prediction, times)
        except Exception as error:
            return _failed(error, item)

    def _predict_views(
        self, model: Model, item: InferenceItem, image: DecodedImage, views: list[tiles.View]
    ) -> list[Prediction]:
        """The prediction for each view, in pixels of the view."""
        works = [self._work(model, item, view.cut(image)) for view in views]
        wide = len(works) == 1 and self._busy == 1
        seen = _find_each(model.engine, works, wide)
        return [self._predicted(work, found) for work, found in zip(works, seen, strict=True)]

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function` in the pool; it counts as busy also while it waits for a thread."""
        with self._busy_lock:
            self._busy += 1
        future = self._pool.submit(function, *args)
        future.add_done_callback(self._done)
        return await asyncio.wrap_future(future)

    async def _in_thread_of(self, item: InferenceItem, function: Callable[..., T], *args: Any) -> T:
        """Run `function` in the pool, or apart for a heavy item: it then does not count as busy."""
        if not item.heavy:
            return await self._in_thread(function, *args)
        return await asyncio.get_running_loop().run_in_executor(self._heavy, function, *args)

    def _done(self, _: object) -> None:
        with self._busy_lock:
            self._busy -= 1

    def _prepare(self, model: Model, item: InferenceItem) -> Work:
        start = time.perf_counter()
        work = self._work(model, item, self._decode(model, item))
        work.timed("preprocess", start)
        return work

    def _decode(self, model: Model, item: InferenceItem) -> DecodedImage:
        """Decode an image as far as the network needs it, whether or not it is drawn later."""
        needed = needed_size(model.description, self._settings.decode, item.tiles)
        return decode_at_least(item.image, self._settings.max_pixels, needed)

    def _work(self, model: Model, item: InferenceItem, image: DecodedImage) -> Work:
        """Prepare a decoded image for the network."""
        description = model.description
        place = Letterbox.of(description, model.engine.letterbox, image.width, image.height)
        prepared = prepare(image.pixels, description, place, image.scale)
        return Work(item, model, image, place, prepared, {})

    def _decode_on_device(
        self, model: Model, engine: DeviceEngine, items: list[InferenceItem]
    ) -> dict[int, Work]:
        """The items that the device has decoded, by index; the host reads the others, or refuses
        them."""
        start = time.perf_counter()
        description, most = model.description, self._settings.max_pixels
        needed = needed_size(description, "fast")
        places: dict[int, Letterbox] = {}
        for index, item in enumerate(items):
            if item.draw or item.heavy:  # drawn on the host; heavy: in a thread of its own
                continue
            with contextlib.suppress(VisionLoopError):
                size = read_plain_jpeg(item.image, most)
                # the host decodes a far larger one at a DCT scale: faster, and antialiased
                if size is not None and (needed is None or dct_scale(*size, 1, needed(*size)) == 1):
                    places[index] = Letterbox.of(description, engine.letterbox, *size)
        if not places:
            return {}
        images = engine.decode([items[index].image for index in places], list(places.values()))
        works = {
            index: Work(items[index], model, None, place, image, {})
            for (index, place), image in zip(places.items(), images, strict=True)
            if image is not None
        }
        for work in works.values():
            work.timed("preprocess", start, len(works))
        return works

    def _finish(self, work: Work, found: Found) -> ItemResult:
        start = time.perf_counter()
        prediction = self._predicted(work, found)
        work.timed("postprocess", start)
        return self._result(work.item, work.image, prediction, work.times)

    def _predicted(self, work: Work, found: Found) -> Prediction:
        return postprocess(
            found,
            work.model.description,
            work.place,
            confidence=work.item.confidence,
            iou=work.item.iou,
            max_det=work.item.max_det,
            classes=work.item.classes,
        )

    def _result(
        self,
        item: InferenceItem,
        image: DecodedImage | None,
        prediction: Prediction,
        times: dict[str, float],
    ) -> ItemResult:
        if item.boxes_only:
            prediction = prediction.boxes_only()
        if item.editable:
            prediction = prediction.simplified()
        drawn = None
        if item.draw:
            if image is not None and image.scale == 1:
                pixels = image.pixels
            else:
                pixels = decode(item.image, self._settings.max_pixels)
            drawn = draw(pixels, prediction, item.drawn_as)
        return ItemResult(prediction=prediction, drawn=drawn, times=times)


def _rehearse(model: Model) -> None:
    """Run a model on an empty image."""
    size, channels = model.description.imgsz, model.description.channels
    empty = np.zeros((1, size, size, channels), np.uint8)
    model.engine.run(empty)
    model.engine.run(empty, wide=True)


def _find_each(
    engine: Engine, works: Sequence[Work], wide: bool = False, halt: Halt | None = None
) -> list[Found]:
    return find_each(
        engine,
        [work.prepared for work in works],
        [work.place for work in works],
        [work.wanted for work in works],
        wide,
        halt,
    )


def run_at_niceness(niceness: int) -> None:
    """Give the calling thread a lower CPU priority (Linux only)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def run_at_lowest_priority() -> None:
    """Give the calling thread the lowest CPU priority (Linux only).

    Not the whole process: its other threads serve requests.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        run_at_niceness(LOWEST)


def _note(
    times: dict[str, float], item: InferenceItem, stage: str, start: float, batch: int = 1
) -> None:
    seconds = time.perf_counter() - start
    times[stage] = seconds * 1000
    if item.traceparent is not None:
        tracing.stage(stage, seconds, item.traceparent, {"visionloop.batch_size": batch})


def _failed(error: Exception, item: InferenceItem) -> ItemResult:
    """The result of an item that failed; the log has the id of its request."""
    with of_request(item.request_id):
        return ItemResult(error=_as_client_error(error))


def _as_client_error(error: Exception) -> VisionLoopError:
    """The error in the form that clients may see, without internal details."""
    return error if isinstance(error, VisionLoopError) else our_fault(error, "A prediction")
