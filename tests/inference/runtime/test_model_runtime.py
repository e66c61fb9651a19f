"""Batches of mixed models: each item gets its own answer or its own error."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import InvalidImage, ModelNotFound, PayloadTooLarge, VisionLoopError
from inference.engine import Engine, load_engine
from inference.prediction import InferenceItem
from inference.runtime import stages
from inference.runtime.loaded_models import Load
from inference.runtime.model_runtime import ModelRuntime
from models_store.description import ModelDescription
from settings import Settings
from tests.support.closeness import assert_close
from tests.support.patience import PATIENCE
from tests.support.running_models import KINDS, photo, running


def test_mixed_batch_answers_what_each_item_gets_alone(locate: Callable[[str], Path]) -> None:
    items = [
        InferenceItem(photo(seed), kind, confidence, draw=draw)
        for seed, (kind, confidence, draw) in enumerate(
            [(k, c, d) for k in KINDS for c, d in [(None, False), (0.4, True)]]
        )
    ]

    async def story() -> None:
        with running(locate) as runtime:
            together = await runtime.predict_batch(items)
            for item, result in zip(items, together, strict=True):
                (alone,) = await runtime.predict_batch([item])
                assert alone.error is None
                assert_close(alone.prediction, result.prediction)
                assert (result.drawn is not None) == item.draw
                assert set(result.times) == {"preprocess", "inference", "postprocess"}
                assert all(value > 0 for value in result.times.values())
            assert sum(len(r.prediction or ()) for r in together) > 20

    asyncio.run(story())


def test_a_bad_item_is_its_own_error(locate: Callable[[str], Path]) -> None:
    items = [
        InferenceItem(photo(1), "detect"),
        InferenceItem(photo(1)[:2000], "detect"),
        InferenceItem(photo(1), "unknown:1"),
        InferenceItem(photo(1, 2000, 1000), "detect"),
        InferenceItem(b"", "classify"),
        InferenceItem(photo(1), "classify"),
    ]

    async def story() -> None:
        with running(locate) as runtime:
            results = await runtime.predict_batch(items)
            kinds = [type(result.error) for result in results]
            none = type(None)
            assert kinds == [none, InvalidImage, ModelNotFound, PayloadTooLarge, InvalidImage, none]
            (alone,) = await runtime.predict_batch(items[:1])
            assert_close(results[0].prediction, alone.prediction)
            assert await runtime.predict_batch([]) == []

    asyncio.run(story())


def test_our_own_fault_is_logged_under_the_id_that_the_client_gets(
    locate: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        broken = failing(ZeroDivisionError("secret"), batched=False)
        with running(locate, broken) as runtime:
            (result,) = await runtime.predict_batch([InferenceItem(photo(), "detect")])
            assert type(result.error) is VisionLoopError
            assert result.error.code == "PROCESSING_ERROR"
            assert "secret" not in result.error.message
            number = result.error.message.rstrip(".").split()[-1]
            assert number in caplog.text
            assert "secret" in caplog.text

    asyncio.run(story())


def failing(error: Exception, batched: bool) -> Load:
    """Loads models whose engine raises `error`."""

    class Broken:
        backend, letterbox = "broken", "square"

        def run(self, pixels: Any, wide: bool = False, halt: Any = None) -> Any:
            raise error

    def load(folder: Path, _: Settings) -> tuple[Any, ModelDescription]:
        engine: Any = Broken()
        engine.batched = batched
        return engine, ModelDescription.load(folder)

    return load


def test_a_halted_comparison_has_no_answer_and_the_next_one_has(
    locate: Callable[[str], Path],
) -> None:
    item = InferenceItem(photo(), "detect", confidence=0.001)
    halting: list[ModelRuntime] = []  # those in which a request arrives when a network begins

    class Halting:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine
            self.backend, self.batched = engine.backend, engine.batched
            self.letterbox = engine.letterbox

        def run(self, pixels: Any, wide: bool = False, halt: Any = None) -> Any:
            for runtime in halting:
                runtime.halt()
            return self.engine.run(pixels, wide, halt)

    def load(folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
        engine, description = load_engine(folder, settings)
        return Halting(engine), description

    async def story() -> None:
        with running(locate, load) as runtime:
            [live] = await runtime.predict_batch([item])
            assert live.prediction is not None
            runtime.halt()  # nothing is under way
            halting.append(runtime)
            found = await runtime.compare_with_live(item, live.prediction)
            assert (found.agreement, found.error) == (None, None)
            halting.clear()
            found = await runtime.compare_with_live(item, live.prediction)
            assert found.agreement is not None
            assert found.agreement.score == 1
            wrong = await runtime.compare_with_live(InferenceItem(b"", "detect"), live.prediction)
            assert isinstance(wrong.error, VisionLoopError)

    asyncio.run(story())


def test_the_event_loop_stays_free(locate: Callable[[str], Path]) -> None:
    async def story() -> None:
        with running(locate) as runtime:
            await runtime.warm("detect")
            items = [InferenceItem(photo(i, 900, 900), "detect", draw=True) for i in range(12)]
            work = asyncio.create_task(runtime.predict_batch(items))
            turns = 0
            while not work.done():
                await asyncio.sleep(0.001)
                turns += 1
            assert turns > len(items)  # a loop that waits for each image turns once for it

    asyncio.run(story())


def test_a_batching_engine_runs_once_for_its_pictures(locate: Callable[[str], Path]) -> None:
    """The way of a GPU runner, with PyTorch on the CPU."""
    from inference.torch_engine import TorchEngine

    sizes: list[int] = []

    class Counting(TorchEngine):
        def detect(self, images: Any, places: Any, wanted: Any, halt: Any = None) -> Any:
            sizes.append(len(images))
            return super().detect(images, places, wanted, halt)

    def load(folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
        return Counting(folder, "cpu", half=False), ModelDescription.load(folder)

    # without suppression, which two nearly equal overlaps would decide by chance
    items = [InferenceItem(photo(seed), "detect", iou=1.0) for seed in range(4)]
    items.insert(2, InferenceItem(b"no", "detect"))

    async def story() -> None:
        with running(locate) as runtime:
            alone = [(await runtime.predict_batch([item]))[0] for item in items]
        with running(locate, load, max_batch=3) as runtime:
            together = await runtime.predict_batch(items)
        assert sorted(sizes) == [2, 2]  # 3 + 2 items, one of them unreadable
        for one, other in zip(alone, together, strict=True):
            assert (one.error is None) == (other.error is None)
            if one.prediction and other.prediction:
                best, again = one.prediction.scores[:20], other.prediction.scores[:20]
                assert len(best) > 3
                np.testing.assert_allclose(best, again, atol=1e-3)

    asyncio.run(story())


def test_a_failing_device_fails_its_batch_with_our_error(locate: Callable[[str], Path]) -> None:
    async def story() -> None:
        broken = failing(RuntimeError("CUDA error: /secret"), batched=True)
        with running(locate, broken) as runtime:
            results = await runtime.predict_batch([InferenceItem(photo(), "detect")] * 2)
            assert [type(r.error) for r in results] == [VisionLoopError] * 2
            assert all("secret" not in r.error.message for r in results if r.error)

    asyncio.run(story())


def test_a_cpu_runner_never_imports_torch(locate: Callable[[str], Path], tmp_path: Path) -> None:
    folder = locate("detect")
    picture = tmp_path / "photo.jpg"
    picture.write_bytes(photo())
    script = f"""
import asyncio, sys
from pathlib import Path
from inference.device import limits
from inference.prediction import InferenceItem
from inference.runtime.model_runtime import ModelRuntime
from settings import Settings

settings = Settings(device="cpu")
limits(settings)
runtime = ModelRuntime(lambda tag: Path({str(folder)!r}), settings)
item = InferenceItem(Path({str(picture)!r}).read_bytes(), "detect:1", draw=True)
(result,) = asyncio.run(runtime.predict_batch([item]))
assert result.error is None and result.drawn
heavy = [name for name in ("torch", "torchvision", "ultralytics") if name in sys.modules]
print("imported:", heavy)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "imported: []"


@pytest.mark.parametrize("tiles", [1, 0])
def test_a_heavy_image_does_not_hold_up_others(
    locate: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tiles: int
) -> None:
    gate, real = threading.Event(), stages.decode_at_least
    threads: set[str] = set()

    def decode(data: bytes, most: int, at_least: Any) -> Any:
        if data == large:
            threads.add(threading.current_thread().name)
            assert gate.wait(PATIENCE)
        return real(data, most, at_least)

    monkeypatch.setattr(stages, "decode_at_least", decode)
    large = photo(1)

    async def story() -> None:
        with running(locate) as runtime:
            item = InferenceItem(large, "detect", heavy=True, tiles=tiles)
            heavy = [asyncio.create_task(runtime.predict_batch([item])) for _ in range(4)]
            for _ in range(3):
                (quick,) = await runtime.predict_batch([InferenceItem(photo(), "detect")])
                assert quick.error is None
            assert not any(task.done() for task in heavy)
            gate.set()
            for task in heavy:
                assert (await task)[0].error is None
            assert threads == {"heavy_0"}

    asyncio.run(story())
