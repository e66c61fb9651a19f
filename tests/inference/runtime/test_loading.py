"""A model that is being loaded holds up nobody else: neither batches nor slots of the batcher."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from errors import BackendTimeout, BackendUnavailable, ModelDamaged, VisionLoopError
from inference.batcher import Batcher
from inference.engine import Engine, load_engine
from inference.prediction import InferenceItem, ItemResult
from inference.runtime import loaded_models
from inference.runtime.model_runtime import ModelRuntime
from models_store.description import ModelDescription
from settings import Settings
from tests.support.patience import PATIENCE, until
from tests.support.scenes import encoded, scene

KINDS = ("detect", "classify", "pose", "segment", "mobilenet")


class GatedLoads:
    """Loads each model for real once its gate is open; models without a gate at once."""

    def __init__(self, *gated: str) -> None:
        self.gates = {name: threading.Event() for name in gated}
        self.errors: dict[str, Exception] = {}
        self.begun: list[str] = []

    def __call__(self, folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
        self.begun.append(folder.name)
        if gate := self.gates.get(folder.name):
            assert gate.wait(PATIENCE)
        if error := self.errors.get(folder.name):
            raise error
        return load_engine(folder, settings)

    def open(self, *names: str) -> None:
        for name in names or self.gates:
            self.gates[name].set()


class Process:
    """A runner's runtime behind the list call and the load call of a batcher."""

    def __init__(self, runtime: ModelRuntime) -> None:
        self.runtime = runtime

    async def predict(self, items: list[InferenceItem]) -> list[ItemResult]:
        return await self.runtime.predict_batch(items)

    async def load(self, tag: str) -> VisionLoopError | None:
        try:
            await self.runtime.load(tag)
        except VisionLoopError as error:
            return error
        return None

    def batcher(self, slots: int = 2, queue_length: int = 100, **options: Any) -> Batcher:
        return Batcher(self.predict, slots, 4, queue_length, load=self.load, **options)


@pytest.fixture
def running(model_folder: Callable[[str], Path]) -> Callable[..., Any]:
    folders = {kind: model_folder(kind) for kind in KINDS}

    @contextmanager
    def run(loads: GatedLoads, **settings: Any) -> Iterator[Process]:
        given: dict[str, Any] = {"device": "cpu", "sessions": 2}
        runtime = ModelRuntime(folders.__getitem__, Settings(**(given | settings)), loads)
        try:
            yield Process(runtime)
        finally:
            loads.open()
            runtime.close()

    return run


def item(model: str, seed: int = 0, **options: Any) -> InferenceItem:
    return InferenceItem(encoded(scene(120, 90, seed)), model, **options)


def run(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story, PATIENCE))


def test_an_item_that_defers_has_an_answer_while_its_model_loads(running: Any) -> None:
    loads = GatedLoads("segment")

    async def story() -> None:
        with running(loads) as process:
            batch = [item("detect"), item("segment", defers=True), item("detect", 1)]
            first, cold, last = await process.predict(batch)
            assert (first.error, last.error) == (None, None)
            assert first.prediction is not None
            assert last.prediction is not None
            assert cold.loading
            assert (cold.prediction, cold.error) == (None, None)
            await until(lambda: "segment" in loads.begun)  # the load goes on
            loads.open()
            await process.runtime.load("segment")
            (warm,) = await process.predict([item("segment", defers=True)])
            assert not warm.loading
            assert warm.prediction is not None
            assert loads.begun.count("segment") == 1

    run(story())


def test_two_cold_models_stop_no_traffic_of_others(running: Any) -> None:
    loads = GatedLoads("segment", "pose")

    async def story() -> None:
        with running(loads) as process:
            batcher = process.batcher(slots=2)
            assert (await batcher.submit(item("detect"))).error is None
            cold = [
                asyncio.create_task(batcher.submit(item(model, seed)))
                for seed in range(5)
                for model in ("segment", "pose")
            ]
            await until(lambda: batcher.stats.loading == len(cold))
            for seed in range(3):
                together = (batcher.submit(item("detect", seed)) for _ in range(6))
                results = await asyncio.gather(*together)
                assert all(result.prediction is not None for result in results)
            assert not any(task.done() for task in cold)
            assert batcher.stats.running_calls == 0
            loads.open("pose")  # each model's items go as soon as it is loaded
            for task in cold[1::2]:
                assert (await task).prediction is not None
            assert not any(task.done() for task in cold[::2])
            loads.open()
            for task in cold[::2]:
                assert (await task).prediction is not None
            assert batcher.stats.loading == 0
            assert sorted(loads.begun) == ["detect", "pose", "segment"]

    run(story())


def test_a_model_that_cannot_be_loaded_is_the_error_of_each_of_its_items(running: Any) -> None:
    loads = GatedLoads("segment", "pose")
    loads.errors = {"segment": ModelDamaged("damaged"), "pose": ZeroDivisionError("secret")}

    async def story() -> None:
        with running(loads) as process:
            batcher = process.batcher()
            asked = [asyncio.create_task(batcher.submit(item("segment", n))) for n in range(6)]
            broken = asyncio.create_task(batcher.submit(item("pose")))
            await until(lambda: batcher.stats.loading == 7)
            loads.open()
            for task in asked:
                assert isinstance((await task).error, ModelDamaged)
            # what is no error for clients is found again in the call, which hides it
            error = (await broken).error
            assert type(error) is VisionLoopError
            assert "secret" not in error.message
            assert batcher.stats.loading == 0
            assert (await batcher.submit(item("detect"))).error is None

    run(story())


def test_who_leaves_or_waits_for_too_long_leaves_nothing_behind(running: Any) -> None:
    loads = GatedLoads("segment")

    async def story() -> None:
        with running(loads) as process:
            batcher = process.batcher(timeout=PATIENCE)
            leaving = asyncio.create_task(batcher.submit(item("segment", 1)))
            staying = asyncio.create_task(batcher.submit(item("segment", 2)))
            await until(lambda: batcher.stats.loading == 2)
            leaving.cancel()
            await until(lambda: batcher.stats.loading == 1)
            impatient = process.batcher(timeout=0.05)
            with pytest.raises(BackendTimeout):
                await impatient.submit(item("segment", 3))
            assert impatient.stats.loading == 0
            loads.open()
            assert (await staying).prediction is not None
            assert batcher.stats.dropped == 1
            await until(lambda: not impatient._loads)

    run(story())


def test_items_that_wait_for_loads_are_bounded_apart_from_the_queue(running: Any) -> None:
    loads = GatedLoads("segment")

    async def story() -> None:
        with running(loads) as process:
            batcher = process.batcher(queue_length=4)
            assert (await batcher.submit(item("detect"))).error is None
            first = asyncio.create_task(batcher.submit(item("segment")))
            await until(lambda: batcher.stats.loading == 1)
            more = [asyncio.create_task(batcher.submit(item("segment", n))) for n in range(3)]
            await until(lambda: batcher.stats.loading == 4)
            with pytest.raises(BackendUnavailable, match="wait for models") as refused:
                await batcher.submit(item("segment", 9))
            assert refused.value.retry_after
            assert (await batcher.submit(item("detect"))).error is None
            loads.open()
            results = await asyncio.gather(first, *more)
            assert all(result.prediction is not None for result in results)

    run(story())


def test_closing_refuses_what_waits_for_a_load(running: Any) -> None:
    loads = GatedLoads("segment")

    async def story() -> None:
        with running(loads) as process:
            batcher = process.batcher()
            waiting = asyncio.create_task(batcher.submit(item("segment")))
            await until(lambda: batcher.stats.loading == 1)
            await batcher.close()
            with pytest.raises(BackendUnavailable, match="shutting down"):
                await waiting
            assert batcher.stats.loading == 0

    run(story())


def test_a_model_that_is_evicted_during_its_load_is_loaded_again(running: Any) -> None:
    loads = GatedLoads("segment")

    async def story() -> None:
        with running(loads) as process:
            batcher = process.batcher()
            waiting = asyncio.create_task(batcher.submit(item("segment")))
            await until(lambda: "segment" in loads.begun)
            assert await process.runtime.unload("segment")
            loads.open()
            assert (await waiting).prediction is not None

    run(story())


def test_more_cold_models_than_are_kept_all_answer(running: Any) -> None:
    loads = GatedLoads()

    async def story() -> None:
        with running(loads, model_cache=1) as process:
            batcher = process.batcher()
            asked = [batcher.submit(item(kind, seed)) for seed in range(4) for kind in KINDS]
            results = await asyncio.gather(*asked)
            assert all(result.prediction is not None for result in results)

    run(story())


def test_a_model_that_nobody_uses_after_its_load_is_evicted_later(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_models, "UNUSED", 0.05)
    loads = GatedLoads()

    async def story() -> None:
        with running(loads, model_cache=1) as process:
            for kind in ("detect", "classify", "pose"):
                await process.runtime.load(kind)
            await until(lambda: len(process.runtime.status()["engines"]) == 1)

    run(story())
