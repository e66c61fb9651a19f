"""An engine that fails on this device when it is loaded gives way to the next one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from errors import EngineUnavailable
from inference import engine as module
from inference.engine import load_engine
from inference.torch_engine import TorchEngine
from settings import Settings

Make = Callable[[], Any]


class Working(TorchEngine):
    backend = "working"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "cpu", half=False)


class CannotRun(Working):
    """The first kernels fail: memory is full, or the build has none for this GPU."""

    def run(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


class CannotSelect(Working):
    """The network runs; what follows it does not."""

    def detect(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("torchvision::nms is not available on this device")


@pytest.fixture
def loads(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Loads a model on a machine with a GPU and such engines; returns the one that serves."""
    folder = model_folder("segment")

    def load(*kinds: type[Working], engine: Any = "auto") -> str:
        makers = [(kind.__name__, lambda kind=kind: kind(folder)) for kind in kinds]
        monkeypatch.setattr(module, "_cuda_engines", lambda *_: iter(makers))
        monkeypatch.setattr(module, "device", lambda _: "cuda")
        found, _ = load_engine(folder, Settings(engine=engine))
        return type(found).__name__

    return load


def test_the_next_engine_serves(
    loads: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    assert loads(CannotRun, CannotSelect, Working) == "Working"
    assert "CannotRun cannot be used" in caplog.text
    assert "no kernel image" in caplog.text
    assert "CannotSelect cannot be used" in caplog.text


def test_at_last_the_cpu_serves(loads: Callable[..., str]) -> None:
    assert loads(CannotRun, CannotSelect) == "OnnxEngine"


def test_a_forced_engine_that_fails_is_an_error(loads: Callable[..., str]) -> None:
    with pytest.raises(EngineUnavailable, match="CannotSelect cannot be used"):
        loads(CannotSelect, engine="torch")
