"""What clients are told while the object store cannot be reached: a closed port of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app, with_middleware
from database import Database
from dataset.shared.tables import SharedDataset
from models_store.registry import Registry
from serving.gateway import Gateway
from storage import object_trees
from tests.support.correction_app import FRAMES, packed, street
from tests.support.object_store import free_port
from tests.support.training_app import Service
from tests.support.two_machines import machine_settings


@pytest.fixture
def service(
    tmp_path: Path,
    drawn_yaml: Path,
    call: Callable[..., httpx.Response],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Service]:
    port = free_port()
    monkeypatch.setitem(object_trees.RETRIES, "max_retries", 0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    settings = machine_settings(tmp_path, "a", f"s3://visionloop/away-{port}")
    nobody: Any = {"detector": None, "annotator": None}
    gateway = Gateway(settings, Registry(Database(settings)), nobody)
    app = create_app(gateway)
    wrapped = with_middleware(app, settings, lambda: gateway.access)
    yield Service(app, wrapped, gateway, drawn_yaml, call)
    gateway.registry.database.close()
    gateway.access.stop()


def is_refused(answer: httpx.Response) -> bool:
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "STORE_UNAVAILABLE"
    return int(answer.headers["Retry-After"]) >= 1


def test_an_upload_is_refused_and_leaves_nothing(service: Service) -> None:
    sent = {"file": ("set.zip", packed(street(FRAMES)))}
    assert is_refused(service.call(service.app, "POST", "/api/datasets", files=sent))
    assert service.get("/api/datasets")["datasets"] == []
    folder = service.gateway.settings.paths.datasets
    assert [path for path in folder.iterdir() if path.is_dir()] == []


def test_what_needs_files_that_are_not_here_is_refused(service: Service) -> None:
    card = {
        "id": "street-1", "name": "street", "created_at": "2026-01-01T10:00:00.000+00:00",
        "task": "detect", "description": "data/data.yaml",
    }  # fmt: skip
    with service.gateway.registry.database.write() as session:
        session.add(
            SharedDataset(
                id="street-1", number=1, card=card, first_card=None, revisions=[],
                parts=[["datasets/street-1/1-a", "0" * 64, ""]],
            )
        )  # fmt: skip
    path = "/api/datasets/street-1/export?format=yolo"
    assert is_refused(service.call(service.app, "GET", path))
