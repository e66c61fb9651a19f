"""The OpenVINO engine: its values, its threads, its cancellation, and when it is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import EngineUnavailable
from inference import engine as engine_module
from inference.cancellation import Halt, Halted
from inference.cpu.openvino_engine import FP32, OpenVinoEngine
from inference.engine import fp32_disagreement, load_engine, load_exact_engine
from inference.onnx_engine import OnnxEngine
from inference.preprocess import Letterbox, prepare
from models_store.description import ONNX_FILE, ModelDescription
from settings import Settings
from tests.support.scenes import scene

KINDS = ["detect", "segment", "pose", "classify", "mobilenet"]
SIZE = 160
SETTINGS = Settings(device="cpu", sessions=3)


def opened(folder: Path) -> tuple[OpenVinoEngine, ModelDescription]:
    description = ModelDescription.load(folder)
    return OpenVinoEngine(folder / ONNX_FILE, FP32, description, SETTINGS), description


def prepared(image: np.ndarray, description: ModelDescription) -> np.ndarray:
    height, width = image.shape[:2]
    return prepare(image, description, Letterbox.of(description, "rect", width, height))[None]


@pytest.mark.parametrize("kind", KINDS)
def test_it_agrees_with_onnx_runtime(kind: str, model_folder: Callable[[str], Path]) -> None:
    folder = model_folder(kind)
    engine, description = opened(folder)
    onnx = OnnxEngine(folder, description, SETTINGS)
    assert fp32_disagreement(engine, onnx, description) is None
    picture = prepared(scene(200, 100), description)
    for one, other in zip(engine.run(picture), onnx.run(picture), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_its_values_do_not_depend_on_how_it_runs(
    kind: str, model_folder: Callable[[str], Path]
) -> None:
    engine, description = opened(model_folder(kind))
    picture = prepared(scene(200, 100), description)
    assert engine.letterbox == ("rect" if description.any_size else "square")
    first = engine.run(picture)
    ways: list[dict[str, Any]] = [{}, {"wide": True}, {"halt": Halt()}]
    for way in ways:
        for one, other in zip(engine.run(picture, **way), first, strict=True):
            assert np.array_equal(one, other), way


def test_threads_at_once_get_their_own_images_answers(model_folder: Callable[[str], Path]) -> None:
    engine, description = opened(model_folder("detect"))
    pictures = [prepared(scene(200, 100, seed=seed), description) for seed in range(12)]
    wanted = [engine.run(picture)[0] for picture in pictures]
    assert not np.array_equal(wanted[0], wanted[1])
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda picture: engine.run(picture)[0], pictures * 4))
    for one, other in zip(got, wanted * 4, strict=True):
        assert np.array_equal(one, other)


def test_the_network_stops_between_two_layers(model_folder: Callable[[str], Path]) -> None:
    engine, _ = opened(model_folder("detect"))
    many = np.zeros((128, SIZE, SIZE, 3), np.uint8)  # long enough to be met in its midst
    engine.run(many[:1], halt=Halt())  # compiled
    halt, begun = Halt(), threading.Event()
    on_order = halt.on_order

    def note(then: Callable[[], None]) -> None:
        def met() -> None:
            while not running.is_set():  # a request that does not run yet takes no order
                then()
                running.wait(0.001)

        on_order(met)
        begun.set()

    halt.on_order = note  # type: ignore[method-assign]
    running = threading.Event()

    def stop() -> None:
        begun.wait(10)
        halt.order()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(Halted):
        engine.run(many, halt=halt)
    running.set()
    stopping.join()
    assert np.isfinite(engine.run(many[:1], halt=Halt())[0]).all()


def test_an_order_before_the_run_is_met(model_folder: Callable[[str], Path]) -> None:
    engine, _ = opened(model_folder("detect"))
    halt = Halt()
    halt.order()
    with pytest.raises(Halted):
        engine.run(np.zeros((1, SIZE, SIZE, 3), np.uint8), halt=halt)


def test_a_run_that_may_be_halted_keeps_the_priority_of_its_thread(
    model_folder: Callable[[str], Path],
) -> None:
    engine, _ = opened(model_folder("detect"))
    many = np.zeros((64, SIZE, SIZE, 3), np.uint8)
    engine.run(many, halt=Halt())
    whole, own = time.process_time(), time.thread_time()
    engine.run(many, halt=Halt())
    whole, own = time.process_time() - whole, time.thread_time() - own
    assert own > 0.8 * whole  # CPU time: it does not depend on what else the machine does


def test_the_forced_engine_serves(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("detect")
    for name, backend in {
        "auto": "onnxruntime-cpu",
        "onnxruntime": "onnxruntime-cpu",
        "openvino": FP32,
    }.items():
        settings = Settings(device="auto" if name != "auto" else "cpu", engine=name)
        assert load_engine(folder, settings)[0].backend == backend
        assert load_exact_engine(folder, settings)[0].backend == "onnxruntime-cpu"


def test_a_forced_engine_that_differs_is_an_error_and_no_other_serves(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder("detect")
    monkeypatch.setattr(engine_module, "EXACT_SCORES", -1.0)
    with pytest.raises(EngineUnavailable, match=r"cannot serve the model '.*': scores differ by"):
        load_engine(folder, Settings(device="cpu", engine="openvino"))


@pytest.mark.parametrize("output", [0, 1])
def test_an_output_that_is_off_is_found_out(
    output: int, model_folder: Callable[[str], Path]
) -> None:
    folder = model_folder("segment")
    description = ModelDescription.load(folder)
    onnx = OnnxEngine(folder, description, SETTINGS)

    class Broken(OnnxEngine):
        def run(self, pixels: Any, wide: bool = False, halt: Any = None) -> Any:
            outputs = super().run(pixels, wide, halt)
            if wide:
                outputs[output][0, 5, 0] += 0.1 * np.abs(outputs[output]).max()
            return outputs

    broken = Broken(folder, description, SETTINGS)
    assert fp32_disagreement(onnx, onnx, description) is None
    assert "differ by" in (fp32_disagreement(broken, onnx, description) or "")
