"""The models that a runner process has loaded: load, evict, and replace by newer engines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from errors import ModelDamaged, ModelNotFound
from inference.cpu.engine_choice import choice_state
from inference.device import device
from inference.engine import Engine
from inference.engine_files import is_outdated, signature
from inference.gpu.faults import end_if_sticky
from inference.runtime.allocator import release_free_memory
from models_store.description import DESCRIPTION_FILE, ModelDescription
from settings import Settings

log = logging.getLogger("visionloop.inference")

UNUSED = 10.0  # seconds for which a model that was loaded and not used yet is not evicted
RELEASE = 1.0  # seconds from a load or an eviction, which others may follow, to the release
DAMAGED = 100  # damaged models that are remembered

Load = Callable[[Path, Settings], tuple[Engine, ModelDescription]]


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

    def rehearse(self) -> None:
        """Run the model on an empty image."""
        size, channels = self.description.imgsz, self.description.channels
        empty = np.zeros((1, size, size, channels), np.uint8)
        self.engine.run(empty)
        self.engine.run(empty, wide=True)


class LoadedModels:
    """Loads models by tag in threads of its own, and keeps the most recently used.

    Its methods are called in the event loop. After each load and eviction the free memory of the
    C allocator is released: loads and evictions in several threads leave a hundred MiB and more of
    it scattered between the models that stay (docs/explanation/measured.md).
    """

    def __init__(self, locate: Callable[[str], Path], settings: Settings, load: Load) -> None:
        """
        Args:
            locate: Finds the folder of an exact `name:version`, or raises ModelNotFound.
            settings: The device, the engine and the number of loaded models.
            load: Loads the engine and the description of a model folder.
        """
        self._locate = locate
        self._load_engine = load
        self._settings = settings
        self._loader = ThreadPoolExecutor(2, thread_name_prefix="load")
        self._damaged: OrderedDict[str, tuple[object, str]] = OrderedDict()
        """By tag: the state of the files, and the message; the last `DAMAGED`."""
        self._models: OrderedDict[str, asyncio.Task[Model]] = OrderedDict()
        self._unused: dict[str, float] = {}  # by tag: monotonic time until which it is kept
        self._replacing: dict[str, asyncio.Task[None]] = {}
        """By tag, until the new engine serves; if it cannot, until the model is evicted."""
        self._release: asyncio.TimerHandle | None = None
        self._chooses = device(settings) == "cpu" and settings.engine == "auto"

    def begin(self, tag: str) -> bool:
        """Start to load a model that is not loaded. Returns whether it is loaded already."""
        task = self._models.get(tag)
        if task is None:
            task = self._models[tag] = asyncio.create_task(self._load(tag))
            task.add_done_callback(partial(self._forget_if_failed, tag))
        return task.done()

    async def load(self, tag: str) -> Model:
        """The loaded model; concurrent callers share one load.

        Raises:
            ModelNotFound: There is no such model.
            ModelDamaged: It cannot be loaded.
        """
        self.begin(tag)
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
                self.unload(tag)
            raise
        for other, loaded in self.loaded().items():
            if loaded.is_deleted():
                self.unload(other)
        self._evict()
        self._replace_if_renewed(tag, model)
        return model

    async def use(self, tag: str) -> Model:
        """The loaded model, for a prediction. Raises as `load`."""
        model = await self.load(tag)
        self._unused.pop(tag, None)
        return model

    async def warm(self, tag: str) -> None:
        """Load a model and run it on an empty image. Raises as `load`."""
        await self._rehearse(await self.load(tag))

    def loaded(self) -> dict[str, Model]:
        """The models by tag, without those that are still loading."""
        return {
            tag: task.result()
            for tag, task in self._models.items()
            if task.done() and not task.cancelled() and task.exception() is None
        }

    def replace_renewed(self) -> None:
        """Begin to load the engines that were made again or chosen since their models were loaded.

        Until they are loaded, the old ones serve.
        """
        for tag, model in self.loaded().items():
            self._replace_if_renewed(tag, model)

    def unload(self, tag: str) -> bool:
        """Evict a model; running predictions finish. Returns whether it was loaded."""
        was_loaded = self._models.pop(tag, None) is not None
        if (replacing := self._replacing.get(tag)) is not None and replacing.done():
            del self._replacing[tag]
        self._unused.pop(tag, None)
        if was_loaded:
            self._release_soon()
        return was_loaded

    def close(self) -> None:
        """Forget the models; running loads finish."""
        self._models.clear()
        if self._release is not None:
            self._release.cancel()
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _forget_if_failed(self, tag: str, task: asyncio.Task[Model]) -> None:
        """Let the next caller try again. Those that wait get the error."""
        failed = task.cancelled() or task.exception() is not None
        if failed and self._models.get(tag) is task:
            del self._models[tag]

    def _evict(self) -> None:
        """Evict the least recently used models; not those that are about to be used first."""
        now = time.monotonic()
        self._unused = {tag: until for tag, until in self._unused.items() if until > now}
        loaded = list(self.loaded())
        excess = max(len(loaded) - self._settings.model_cache, 0)
        for tag in [tag for tag in loaded if tag not in self._unused][:excess]:
            self.unload(tag)

    def _release_soon(self) -> None:
        if self._release is None:
            loop = asyncio.get_running_loop()
            self._release = loop.call_later(RELEASE, self._release_now)

    def _release_now(self) -> None:
        self._release = None
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._loader.submit(release_free_memory)

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
            await self._rehearse(await new)
        except Exception as error:  # it is not tried again until the model is evicted
            log.warning("%s: its new engine cannot be loaded; the old one serves: %s", tag, error)
            if self._models.get(tag) is not old:
                del self._replacing[tag]
            return
        if old is not None and self._models.get(tag) is old:  # it has not been evicted
            self._models[tag] = new
        del self._replacing[tag]
        self._release_soon()

    async def _rehearse(self, model: Model) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._loader, model.rehearse)
        except Exception as error:
            end_if_sticky(error)
            raise

    async def _load(self, tag: str) -> Model:
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(self._loader, self._load_files, tag)
        self._unused[tag] = time.monotonic() + UNUSED
        loop.call_later(UNUSED, self._evict)
        self._release_soon()
        return model

    def _load_files(self, tag: str) -> Model:
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
            while len(self._damaged) > DAMAGED:
                self._damaged.popitem(last=False)
            raise
        except Exception as error:
            end_if_sticky(error)
            raise
        self._damaged.pop(tag, None)
        seconds = time.perf_counter() - start
        log.info("Loaded %s on %s in %.1f s", tag, engine.backend, seconds)
        return Model(folder, description, engine, choice)
