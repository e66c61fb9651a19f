"""Engines that a version before exported are made again while they serve."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from database import Database
from models_store.description import WEIGHTS_FILE, engines
from models_store.registry import Registry
from models_store.store import ModelStore
from models_store.versions import ModelVersion
from serving.gateways import renewal
from serving.gateways.renewal import renew_engines
from serving.idle import IdleTracker
from settings import Settings
from tests.support.damage import truncated
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server
from tests.support.small_models import make_engine_of_before, make_model

DETECTOR = "traffic_signs_yolov8n"

Picture = Callable[..., bytes]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bento"))
    monkeypatch.setattr(renewal, "PAUSE", 0.0)
    database = Database(Settings(home=tmp_path / "home", device="cpu"))
    yield Registry(database, ModelStore(tmp_path / "bento"))
    database.close()


def old(registry: Registry, folder: Path, name: str) -> ModelVersion:
    """A published model with an engine of the version before."""
    make_model(folder, "detect", onnx=False)
    make_engine_of_before(folder)
    return registry.publish(folder, name, {"kind": "import"})


def size_of(model: ModelVersion) -> object:
    return engines(model.path)["onnx"].get("size")


@pytest.mark.slow
def test_a_model_whose_export_fails_keeps_its_engine_and_does_not_stop_the_others(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = (old(registry, tmp_path / name, name) for name in ("good", "bad"))
    truncated(bad.path / WEIGHTS_FILE)
    registry.activate(bad.id)  # so that it is the first one
    with caplog.at_level(logging.INFO, "visionloop"):
        asyncio.run(renew_engines(registry, IdleTracker().wait_idle))
        assert (size_of(good), size_of(bad)) == ("any", None)
        said = caplog.messages
        assert said[0].startswith("2 engine(s) were exported by a version before")
        assert said[1].startswith(f"The engine of {bad.id} could not be made again, and serves as")
        assert said[1].endswith("1 left.")
        assert said[2] == f"Made the engine of {good.id} again; 0 left."
        caplog.clear()
        (bad.path / WEIGHTS_FILE).write_bytes((good.path / WEIGHTS_FILE).read_bytes())
        asyncio.run(renew_engines(registry, IdleTracker().wait_idle))
        assert size_of(bad) == "any"
        asyncio.run(renew_engines(registry, IdleTracker().wait_idle))
        assert len(caplog.messages) == 2


def test_a_read_only_store_is_told_once(
    registry: Registry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [old(registry, tmp_path / name, name) for name in ("one", "other")]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    asyncio.run(renew_engines(registry, IdleTracker().wait_idle))
    [message] = caplog.messages
    assert "The model store is read-only, so they stay: " in message
    assert all(model.id in message for model in models)
    assert [size_of(model) for model in models] == [None, None]


def test_it_waits_for_a_quiet_moment(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = old(registry, tmp_path / "one", "one")
    begun = asyncio.Event()

    async def renewed(_: ModelVersion) -> str:
        begun.set()
        return ""

    monkeypatch.setattr(renewal, "_renew", renewed)

    async def story() -> None:
        idle = IdleTracker()
        with idle.busy():
            work = asyncio.create_task(renew_engines(registry, idle.wait_idle))
            await asyncio.to_thread(lambda: None)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not begun.is_set()
        await work
        assert begun.is_set()

    asyncio.run(story())
    assert size_of(model) is None


@pytest.mark.slow
def test_a_server_makes_them_again_while_it_answers_also_after_a_kill(
    new_home: Callable[[], Path], picture: Picture
) -> None:
    server = Server(new_home())
    [folder] = (server.home / "bento" / "models" / DETECTOR).glob("*/")
    make_engine_of_before(folder)
    model = f"{DETECTOR}:{folder.name}"
    begun = "1 engine(s) were exported by a version before"
    answers: set[int] = set()

    def shown() -> dict[str, object]:
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            answers.add(client.post("/infer", files={"image": picture()}).status_code)
            return dict(client.get(f"/models/{model}").raise_for_status().json())

    try:
        server.start()
        wait_until(lambda: begun in server.log.read_text())
        assert shown()["letterbox"] == "square"
        server.stop(signal.SIGKILL)
        server.start()
        process = wait_until(lambda: shown()["engine"]) and server.workers()["Detector"].pid
        wait_until(lambda: shown()["letterbox"] == "rect")
        assert server.workers()["Detector"].pid == process
        assert answers == {200}
        assert engines(folder)["onnx"]["size"] == "any"
        made = f"Made the engine of {model} again; 0 left."
        wait_until(lambda: made in server.log.read_text())
    finally:
        server.stop()
