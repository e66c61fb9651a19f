"""A server whose active model has damaged files when it starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from models_store.description import ONNX_FILE, WEIGHTS_FILE, engines
from tests.support.damage import scribbled, truncated
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server

DETECTOR = "traffic_signs_yolov8n"
CLASSIFIER = "traffic_signs_mobilenet_v2"

Picture = Callable[..., bytes]


def folder_of(server: Server, name: str) -> Path:
    (folder,) = (server.home / "bento" / "models" / name).glob("*/")
    return Path(folder)


@pytest.mark.slow
def test_a_damaged_engine_is_rebuilt_at_the_start(
    new_home: Callable[[], Path], picture: Picture
) -> None:
    server = Server(new_home())
    folder = folder_of(server, DETECTOR)
    scribbled(folder / ONNX_FILE)
    try:
        server.start()
        answer = httpx.post(
            f"{server.url}/infer", files={"image": picture()}, timeout=PATIENCE
        ).raise_for_status()
        assert answer.json()["model_id"].startswith(DETECTOR)
        assert f"{DETECTOR}:{folder.name}: model.onnx is damaged" in server.log.read_text()
        assert engines(folder)["onnx"]["sha256"]
    finally:
        server.stop()


@pytest.mark.slow
def test_a_model_that_cannot_be_rebuilt_is_named_until_it_is_restored_or_replaced(
    new_home: Callable[[], Path], picture: Picture
) -> None:
    server = Server(new_home())
    folder = folder_of(server, DETECTOR)
    kept = shutil.copytree(folder, server.home / "backup")
    for name in (ONNX_FILE, WEIGHTS_FILE):
        truncated(folder / name)
    waiting, server.wait_until_ready = server.wait_until_ready, lambda: None  # type: ignore[method-assign]

    def ready() -> str:
        try:
            return httpx.get(f"{server.url}/readyz", timeout=PATIENCE).text
        except httpx.TransportError:
            return ""

    try:
        server.start()
        why = wait_until(lambda: "damaged" in (text := ready()) and text)
        assert f"{DETECTOR}:{folder.name}" in why
        assert "Restore its folder in BENTOML_HOME from a backup" in why
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            assert client.get("/livez").status_code == 200
            refused = client.post("/infer", files={"image": picture()})
            assert refused.status_code == 503
            assert refused.json()["code"] == "MODEL_DAMAGED"
            assert DETECTOR in refused.json()["message"]
            again = client.post("/models/active", json={"model_id": DETECTOR})
            assert again.json()["code"] == "MODEL_DAMAGED"
            other = client.post("/models/active", json={"model_id": CLASSIFIER})
            assert other.status_code == 200, other.text
            assert client.get("/readyz").status_code == 200
            assert client.post("/infer", files={"image": picture()}).status_code == 200
            for name in (ONNX_FILE, WEIGHTS_FILE):
                shutil.copyfile(kept / name, folder / name)
            back = client.post("/models/active", json={"model_id": DETECTOR})
            assert back.status_code == 200, json.dumps(back.json())
            waiting()
    finally:
        server.stop()
