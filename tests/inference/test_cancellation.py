"""A prediction that is told to stop, before it begins, in its midst and after its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.cancellation import Halt, Halted
from inference.onnx_engine import OnnxEngine
from models_store.description import ModelDescription
from settings import Settings

SIZE = 160


def test_an_order_is_met_at_the_next_check_and_carried_out_once_it_can_be() -> None:
    halt = Halt()
    carried_out: list[str] = []
    halt.check()
    halt.on_order(lambda: carried_out.append("first"))
    assert carried_out == []
    halt.order()
    assert carried_out == ["first"]
    with pytest.raises(Halted):
        halt.check()
    halt.on_order(lambda: carried_out.append("late"))
    assert carried_out == ["first", "late"]


@pytest.fixture
def engine(model_folder: Callable[[str], Path]) -> OnnxEngine:
    folder = model_folder("detect")
    return OnnxEngine(folder, ModelDescription.load(folder), Settings(device="cpu", sessions=2))


def test_the_network_stops_between_two_layers(engine: OnnxEngine) -> None:
    many = np.zeros((128, SIZE, SIZE, 3), np.uint8)  # long enough to be met in its midst
    halt = Halt()
    begun = threading.Event()
    on_order = halt.on_order

    def note(then: Callable[[], None]) -> None:
        on_order(then)
        begun.set()

    halt.on_order = note  # type: ignore[method-assign]

    def stop() -> None:
        begun.wait(10)
        halt.order()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(Halted) as stopped:
        engine.run(many, halt=halt)
    stopping.join()
    assert "terminate" in str(stopped.value.__context__)


def test_an_engine_that_was_halted_runs_again(engine: OnnxEngine) -> None:
    picture = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    halt = Halt()
    for one, other in zip(engine.run(picture), engine.run(picture, halt=halt), strict=True):
        np.testing.assert_array_equal(one, other)
    halt.order()  # too late for that one
    with pytest.raises(Halted):
        engine.run(picture, halt=halt)
    engine.run(picture)
