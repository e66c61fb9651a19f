"""A process whose GPU can never be used again ends; any other error is answered."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from errors import InvalidModelFile, ModelNotFound
from inference.gpu import faults
from inference.gpu.faults import end_if_sticky, is_sticky
from inference.prediction import InferenceItem
from inference.runtime import loaded_models, stages
from inference.runtime.loaded_models import LoadedModels
from models_store.description import DESCRIPTION_FILE
from settings import Settings
from tests.support.serving import ROOT

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ..."


def caused(error: Exception, outer: Exception | None = None) -> Exception:
    outer = outer or ValueError("the network failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(ILLEGAL), True),
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (caused(RuntimeError("CUDA error: device-side assert triggered")), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (RuntimeError("CUDA error: invalid configuration argument"), False),
        (ValueError("the image is damaged"), False),
        (ModelNotFound(f"No model '{ILLEGAL}'"), False),  # a client wrote it
        (caused(RuntimeError(ILLEGAL), InvalidModelFile("The engine cannot be made.")), True),
    ],
)
def test_sticky_errors_are_told_from_others(error: Exception, expected: bool) -> None:
    ended: list[int] = []
    end_if_sticky(error, ended.append)
    assert is_sticky(error) is expected
    assert ended == ([faults.EXIT_CODE] if expected else [])


def test_a_prediction_that_fails_so_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[BaseException] = []
    monkeypatch.setattr(stages, "end_if_sticky", seen.append)
    error = RuntimeError(ILLEGAL)
    assert stages.failed(error, InferenceItem(b"", "signs:1")).error is not None
    assert seen == [error]


def test_a_load_that_fails_so_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[BaseException] = []
    monkeypatch.setattr(loaded_models, "end_if_sticky", seen.append)

    def load(folder: Path, settings: Settings) -> Any:
        raise RuntimeError(ILLEGAL)

    async def story() -> None:
        models = LoadedModels(lambda tag: tmp_path, Settings(device="cpu"), load)
        with pytest.raises(RuntimeError):
            await models.load("signs:1")
        models.close()

    asyncio.run(story())
    assert [str(error) for error in seen] == [ILLEGAL]


def test_a_model_that_fails_so_before_its_first_request_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a version that is loaded because it was promoted: no request meets the lost GPU."""
    seen: list[BaseException] = []
    monkeypatch.setattr(loaded_models, "end_if_sticky", seen.append)
    (tmp_path / DESCRIPTION_FILE).write_text("{}")

    def run(*_: Any, **__: Any) -> Any:
        raise RuntimeError(ILLEGAL)

    engine: Any = SimpleNamespace(backend="PyTorch", letterbox="rect", run=run)
    description: Any = SimpleNamespace(any_size=False, imgsz=32, channels=3)

    async def story() -> None:
        models = LoadedModels(
            lambda tag: tmp_path, Settings(device="cpu"), lambda *_: (engine, description)
        )
        with pytest.raises(RuntimeError):
            await models.warm("signs:1")
        models.close()

    asyncio.run(story())
    assert [str(error) for error in seen] == [ILLEGAL]


def test_no_other_engine_is_tried_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process would serve from its CPU, and say so only in the log."""
    from inference import engine

    def broken() -> Any:
        raise RuntimeError(ILLEGAL)

    described: Any = SimpleNamespace()
    monkeypatch.setattr(engine.engine_files, "load_description", lambda folder: described)
    monkeypatch.setattr(engine, "_reference", lambda *_: None)
    monkeypatch.setattr(engine, "device", lambda settings: "cuda")
    monkeypatch.setattr(engine, "_cuda_engines", lambda *_: iter([("PyTorch fp16", broken)]))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.load_engine(tmp_path, Settings(device="cpu"))


def test_the_end_is_in_the_log_and_has_a_code() -> None:
    code = (
        "import logging; logging.basicConfig(); from inference.gpu.faults import end_if_sticky;"
        f"end_if_sticky(RuntimeError({ILLEGAL!r})); print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (faults.EXIT_CODE, "")
    assert "cannot be used by this process any more" in done.stderr
