"""Models are loaded once, evicted when others are used, and replaced by newer engines."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from errors import ModelNotFound
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
from inference.runtime.model_runtime import ModelRuntime
from models_store.description import ModelDescription
from settings import Settings
from tests.support.closeness import assert_close
from tests.support.patience import PATIENCE, until
from tests.support.running_models import KINDS, photo, running
from tests.support.small_models import make_engine_of_before


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
