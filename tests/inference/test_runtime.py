from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from errors import InvalidImage, ModelNotFound, PayloadTooLarge, VisionLoopError
from inference import runtime as module
from inference.cpu.engine_choice import (
    RECORD,
    StoredChoice,
    choice_folder,
    onnx_digest,
    write_choice,
)
from inference.engine import Engine, load_engine
from inference.images import DecodedImage, decode
from inference.predict import predict
from inference.prediction import InferenceItem, Prediction
from inference.runtime import Load, ModelRuntime
from inference.tiles import AUTO, OFF
from models_store.description import ModelDescription
from settings import Settings
from tests.support.closeness import assert_close
from tests.support.patience import PATIENCE, until
from tests.support.scenes import encoded, scene
from tests.support.small_models import make_engine_of_before

KINDS = ("detect", "segment", "pose", "classify", "mobilenet")


@pytest.fixture
def locate(model_folder: Callable[[str], Path]) -> Callable[[str], Path]:
    folders = {kind: model_folder(kind) for kind in KINDS}

    def find(tag: str) -> Path:
        if tag not in folders:
            raise ModelNotFound(f"No model '{tag}'.")
        return folders[tag]

    return find


@contextmanager
def running(
    locate: Callable[[str], Path], load: Load = load_engine, **settings: Any
) -> Iterator[ModelRuntime]:
    given: dict[str, Any] = {"device": "cpu", "sessions": 2, "max_pixels": 1_000_000}
    runtime = ModelRuntime(locate, Settings(**(given | settings)), load)
    yield runtime
    runtime.close()


def photo(seed: int = 0, width: int = 300, height: int = 200) -> bytes:
    return encoded(scene(width, height, seed))


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


class Loads:
    """Counts and delays loading."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.tags: list[str] = []
        self.gate = gate

    def __call__(self, folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
        self.tags.append(folder.name)
        if self.gate and folder.name == "segment":
            assert self.gate.wait(PATIENCE)
        return load_engine(folder, settings)


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


def test_a_model_is_loaded_once_however_many_ask(locate: Callable[[str], Path]) -> None:
    loads = Loads()

    async def story() -> None:
        with running(locate, loads) as runtime:
            one = [InferenceItem(photo(), "detect")]
            await asyncio.gather(
                runtime.warm("detect"), *(runtime.predict_batch(one) for _ in range(5))
            )
            assert loads.tags == ["detect"]
            assert runtime.status()["engines"] == {"detect": "onnxruntime-cpu"}

    asyncio.run(story())


def test_an_engine_that_was_made_again_replaces_the_old_one_while_that_serves(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder("detect"), tmp_path / "segment")  # for the gate
    renewed = {name: (folder / name).read_bytes() for name in ("model.onnx", "engines.json")}
    make_engine_of_before(folder)
    gate = threading.Event()
    gate.set()
    loads = Loads(gate)
    item = InferenceItem(photo(), "old", 0.0)

    async def story() -> None:
        with running(lambda _: folder, loads) as runtime:
            [square] = await runtime.predict_batch([item])
            assert runtime.status()["letterboxes"] == {"old": "square"}
            gate.clear()
            for name, content in renewed.items():
                (folder / "new").write_bytes(content)
                (folder / "new").replace(folder / name)
            for _ in range(3):  # the new one is loading
                [same] = await runtime.predict_batch([item])
                assert_close(same.prediction, square.prediction)
            runtime.replace_renewed()
            assert runtime.status()["letterboxes"] == {"old": "square"}
            gate.set()
            await until(lambda: runtime.status()["letterboxes"] == {"old": "rect"})
            [other] = await runtime.predict_batch([item])
            assert other.error is None
            assert loads.tags == ["segment", "segment"]
            engine, described = load_engine(folder, Settings(device="cpu"))
            whole = DecodedImage.full(decode(photo(), 10**6))
            [expected] = predict(engine, described, [whole], confidence=0.0)
            assert other.prediction is not None
            np.testing.assert_allclose(other.prediction.boxes, expected.boxes, atol=0.01)

    asyncio.run(story())


def test_loading_one_model_does_not_hold_up_another(locate: Callable[[str], Path]) -> None:
    gate = threading.Event()
    loads = Loads(gate)

    async def story() -> None:
        with running(locate, loads) as runtime:
            slow = asyncio.create_task(runtime.predict_batch([InferenceItem(photo(), "segment")]))
            for _ in range(3):
                (quick,) = await runtime.predict_batch([InferenceItem(photo(), "detect")])
                assert quick.error is None
            assert not slow.done()
            assert list(runtime.status()["engines"]) == ["detect"]
            gate.set()
            assert (await slow)[0].error is None

    asyncio.run(story())


def test_the_least_recently_used_model_is_forgotten(locate: Callable[[str], Path]) -> None:
    loads = Loads()

    async def story() -> None:
        with running(locate, loads, model_cache=2) as runtime:
            for tag in ("detect", "classify", "detect", "mobilenet", "detect", "classify"):
                (result,) = await runtime.predict_batch([InferenceItem(photo(), tag)])
                assert result.error is None
            assert loads.tags == ["detect", "classify", "mobilenet", "classify"]
            assert set(runtime.status()["engines"]) == {"detect", "classify"}
            assert await runtime.unload("detect") is True
            assert await runtime.unload("detect") is False
            assert set(runtime.status()["engines"]) == {"classify"}

    asyncio.run(story())


def test_more_models_in_one_batch_than_are_kept(locate: Callable[[str], Path]) -> None:
    async def story() -> None:
        with running(locate, model_cache=1) as runtime:
            results = await runtime.predict_batch([InferenceItem(photo(), k) for k in KINDS])
            assert [result.error for result in results] == [None] * len(KINDS)
            assert len(runtime.status()["engines"]) == 1

    asyncio.run(story())


def test_a_deleted_model_is_gone_and_a_failed_load_can_be_repeated(
    locate: Callable[[str], Path], tmp_path: Path
) -> None:
    async def story() -> None:
        copy = tmp_path / "copy"
        with running(lambda tag: copy) as runtime:
            (missing,) = await runtime.predict_batch([InferenceItem(photo(), "copy")])
            assert missing.error is not None
            copy.mkdir()
            for file in locate("detect").iterdir():
                (copy / file.name).write_bytes(file.read_bytes())
            (there,) = await runtime.predict_batch([InferenceItem(photo(), "copy")])
            assert there.error is None
            for file in copy.iterdir():
                file.unlink()
            (gone,) = await runtime.predict_batch([InferenceItem(photo(), "copy")])
            assert isinstance(gone.error, ModelNotFound)

    asyncio.run(story())


def test_a_deleted_model_is_forgotten_at_the_next_prediction_of_another(
    locate: Callable[[str], Path], tmp_path: Path
) -> None:
    async def story() -> None:
        copy = Path(shutil.copytree(locate("detect"), tmp_path / "copy"))
        with running(lambda tag: copy if tag == "copy" else locate(tag)) as runtime:
            await runtime.predict_batch([InferenceItem(photo(), k) for k in ("copy", "detect")])
            assert set(runtime.status()["engines"]) == {"copy", "detect"}
            shutil.rmtree(copy)
            (result,) = await runtime.predict_batch([InferenceItem(photo(), "detect")])
            assert result.error is None
            assert set(runtime.status()["engines"]) == {"detect"}

    asyncio.run(story())


def test_a_caller_that_leaves_while_its_model_loads_spoils_nothing(
    locate: Callable[[str], Path],
) -> None:
    gate = threading.Event()
    loads = Loads(gate)

    async def story() -> None:
        with running(locate, loads) as runtime:
            item = InferenceItem(photo(), "segment")
            leaving = asyncio.create_task(runtime.predict_batch([item]))
            staying = asyncio.create_task(runtime.predict_batch([item]))
            await until(lambda: loads.tags)
            leaving.cancel()
            gate.set()
            assert (await staying)[0].error is None
            assert loads.tags == ["segment"]

    asyncio.run(story())


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
from inference.images import DecodedImage
from inference.prediction import InferenceItem, Prediction
from inference.runtime import Load, ModelRuntime
from inference.tiles import AUTO, OFF
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
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "imported: []"


@pytest.mark.parametrize("tiles", [1, 0])
def test_a_heavy_image_does_not_hold_up_others(
    locate: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tiles: int
) -> None:
    gate, real = threading.Event(), module.decode_at_least
    threads: set[str] = set()

    def decode(data: bytes, most: int, at_least: Any) -> Any:
        if data == large:
            threads.add(threading.current_thread().name)
            assert gate.wait(PATIENCE)
        return real(data, most, at_least)

    monkeypatch.setattr(module, "decode_at_least", decode)
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


class Decodings:
    """Records the scale of each decoding."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scales: list[int] = []
        self._real = module.decode_at_least
        monkeypatch.setattr(module, "decode_at_least", self._decode)

    def _decode(self, *args: Any) -> DecodedImage:
        found = self._real(*args)
        self.scales.append(found.scale)
        return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_photo_is_decoded_small_and_answered_in_its_own_pixels(
    locate: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    photo = encoded(
        cv2.resize(scene(300, 200), (1200, 800)).astype(np.uint8), quality=95, subsampling=0
    )
    item = InferenceItem(photo, kind, confidence=0.0 if kind in ("classify", "mobilenet") else 0.3)
    decodings = Decodings(monkeypatch)

    async def answer(**settings: Any) -> Prediction:
        with running(locate, **settings) as runtime:
            drawing = replace(item, draw=True)
            plain, drawn = await runtime.predict_batch([item, drawing])
            assert drawn.drawn is not None
            assert Image.open(io.BytesIO(drawn.drawn)).size == (1200, 800)
            assert plain.prediction is not None
            assert drawn.prediction is not None
            assert_close(plain.prediction, drawn.prediction)
            return plain.prediction

    exact = asyncio.run(answer(decode="exact"))
    assert decodings.scales == [1, 1]
    fast = asyncio.run(answer(decode="fast"))
    assert all(scale > 1 for scale in decodings.scales[2:])
    assert len(decodings.scales) == 4
    assert (fast.width, fast.height) == (exact.width, exact.height) == (1200, 800)
    if fast.task == "classify":
        assert sorted(fast.class_ids) == sorted(exact.class_ids)
    else:
        assert 600 < fast.boxes.max() <= 1200


def test_tiles_are_cut_from_the_full_image(
    locate: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decodings = Decodings(monkeypatch)

    async def story() -> None:
        with running(locate) as runtime:
            size = ModelDescription.load(locate("detect")).imgsz
            for longer, tiled, scale in (
                (4 * size, AUTO, 1),
                (4 * size, 2, 1),
                (4 * size, OFF, 4),
                (round(2.4 * size), AUTO, 2),
            ):
                item = InferenceItem(photo(0, longer, longer // 2), "detect", tiles=tiled)
                (result,) = await runtime.predict_batch([item])
                assert result.prediction is not None
                assert (result.prediction.width, result.prediction.height) == (longer, longer // 2)
                assert decodings.scales.pop() == scale, (longer, tiled)

    asyncio.run(story())


def test_an_engine_that_is_chosen_later_takes_over_without_a_stall(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder("detect"), tmp_path / "models" / "signs" / "1"))
    settings = Settings(home=tmp_path / "home", device="cpu")
    choice = StoredChoice(
        engine="openvino",
        reason="It is the fastest.",
        engines=[],
        machine={},
        load=0.0,
        measured_at="2026-11-30T12:00:00+00:00",
        seconds=1.0,
        onnx=onnx_digest(folder),
        files={},
    )
    go, loads = threading.Event(), []

    def load(path: Path, given: Settings) -> tuple[Engine, ModelDescription]:
        loads.append(path)
        if len(loads) == 2:
            go.wait(PATIENCE)
        return load_engine(path, given)

    async def body() -> None:
        runtime = ModelRuntime(lambda tag: folder, settings, load)

        async def answered() -> Prediction:
            [result] = await runtime.predict_batch([InferenceItem(photo(), "signs:1")])
            assert result.prediction is not None
            return result.prediction

        before = await answered()
        write_choice(folder, choice, settings)
        for _ in range(3):  # it is loading: the former engine answers, and it loads once
            await answered()
            assert runtime.status()["engines"] == {"signs:1": "onnxruntime-cpu"}
        go.set()
        await until(lambda: runtime.status()["engines"] == {"signs:1": "openvino-cpu-fp32"})
        assert_close(await answered(), before)
        assert len(loads) == 2
        runtime.close()

    asyncio.run(body())


def test_a_chosen_engine_whose_load_fails_is_not_tried_again_and_again(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder("detect"), tmp_path / "models" / "signs" / "1"))
    settings = Settings(home=tmp_path / "home", device="cpu")
    loads = []

    def load(path: Path, given: Settings) -> tuple[Engine, ModelDescription]:
        loads.append(path)
        if len(loads) > 1:
            raise RuntimeError("no")
        return load_engine(path, given)

    async def body() -> None:
        runtime = ModelRuntime(lambda tag: folder, settings, load)
        items = [InferenceItem(photo(), "signs:1")]
        await runtime.predict_batch(items)
        record = choice_folder(folder, settings) / RECORD
        record.parent.mkdir(parents=True)
        record.write_text("changed")
        for _ in range(5):
            [result] = await runtime.predict_batch(items)
            assert result.prediction is not None
            await until(lambda: len(loads) == 2)
        assert len(loads) == 2
        runtime.close()

    asyncio.run(body())
