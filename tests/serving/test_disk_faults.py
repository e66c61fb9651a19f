"""A server whose disk is full or nearly so, or whose database is locked: inference goes on."""

from __future__ import annotations

import io
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.full_disk import fill, small_disk
from tests.support.locked_database import locked
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server

DETECTOR = "traffic_signs_yolov8n"
RESERVE = 8 * 2**20

Picture = Callable[..., bytes]


@pytest.fixture(scope="module")
def server(
    new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose home is on a disk of its own."""
    with small_disk(tmp_path_factory.mktemp("full") / "disk", 300) as disk:
        shutil.copytree(new_home(), disk, dirs_exist_ok=True)
        running = Server(disk, VISIONLOOP_DISK_RESERVE=str(RESERVE))
        running.log = tmp_path_factory.mktemp("log") / "log"
        try:
            yield running.start()
        finally:
            running.stop()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    pids = {name: process.pid for name, process in server.workers().items()}
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client
    assert {name: process.pid for name, process in server.workers().items()} == pids


@pytest.fixture(scope="module")
def dataset(server: Server, picture: Picture) -> str:
    """The id of an uploaded dataset."""
    zipped = {"file": ("a.zip", dataset_zip(picture))}
    made = httpx.post(f"{server.url}/api/datasets", files=zipped, timeout=PATIENCE)
    return str(made.raise_for_status().json()["id"])


@contextmanager
def full(server: Server, leave: int = 0) -> Iterator[None]:
    filler = fill(server.home, leave)
    try:
        yield
    finally:
        filler.unlink()


def stored_images(server: Server) -> int:
    with sqlite3.connect(server.home / "home" / "visionloop.db") as connection:
        return int(connection.execute("SELECT total(images) FROM live_quality").fetchone()[0])


def dataset_zip(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(3):
            archive.writestr(f"images/{number}.jpg", picture(seed=number))
            archive.writestr(f"labels/{number}.txt", "0 0.5 0.5 0.2 0.2\n")
        archive.writestr("data.yaml", "names: [speed limit 20]\ntrain: images\nval: images\n")
    return buffer.getvalue()


def writes(client: httpx.Client, picture: Picture, dataset: str) -> dict[str, httpx.Response]:
    """One request of each kind that writes much."""
    image = {"image": picture()}
    zipped = {"file": ("a.zip", dataset_zip(picture))}
    training: dict[str, Any] = {"data_path": dataset, "base_model_path": DETECTOR, "epochs": 1}
    return {
        "upload": client.post("/api/datasets", files=zipped),
        "import": client.post("/models/import", files={"file": ("a.pt", b"x" * 1000)}),
        "training": client.post("/api/training/regular", json=training),
        "evaluation": client.post(f"/metrics/{DETECTOR}/evaluate", json={"dataset_path": dataset}),
        "batch": client.post("/api/auto_annotate/batch", files=image),
    }


def assert_no_room(response: httpx.Response) -> None:
    assert response.status_code == 507, response.text
    body = response.json()
    assert body["code"] == "INSUFFICIENT_STORAGE"
    assert "docs/how-to/clean-up.md" in body["message"]


def test_a_full_disk_refuses_writes_and_inference_goes_on(
    server: Server, client: httpx.Client, picture: Picture, dataset: str
) -> None:
    datasets = client.get("/api/datasets").json()
    with full(server):
        for seed in range(5):
            answer = client.post("/infer", files={"image": picture(seed=seed)})
            assert answer.status_code == 200
        for response in writes(client, picture, dataset).values():
            assert_no_room(response)
        assert_no_room(client.post("/models/active", json={"model_id": DETECTOR}))
        for path in ("/readyz", "/models", "/jobs", "/api/datasets", "/metrics"):
            assert client.get(path).status_code == 200, path
        text = client.get("/metrics", headers={"Accept": "text/plain"}).text
        assert 'visionloop_errors_total{code="INSUFFICIENT_STORAGE"}' in text
    assert client.get("/api/datasets").json() == datasets
    assert client.get("/jobs").json()["jobs"] == []
    assert client.post("/models/active", json={"model_id": DETECTOR}).status_code == 200


def test_the_reserve_is_kept_and_small_writes_go_on(
    server: Server, client: httpx.Client, picture: Picture, dataset: str
) -> None:
    with full(server, leave=RESERVE - 2**20):
        for response in writes(client, picture, dataset).values():
            assert_no_room(response)
            assert "VISIONLOOP_DISK_RESERVE" in response.json()["message"]
        assert client.post("/infer", files={"image": picture()}).status_code == 200
        assert client.post("/models/active", json={"model_id": DETECTOR}).status_code == 200
    upload = client.post("/api/datasets", files={"file": ("a.zip", dataset_zip(picture))})
    assert upload.status_code == 201
    assert client.delete(f"/api/datasets/{upload.json()['id']}").status_code == 204


def test_live_counts_of_a_full_disk_are_stored_once_there_is_room(
    server: Server, client: httpx.Client, picture: Picture
) -> None:
    with full(server):
        before = client.get(f"/models/{DETECTOR}/live").json()
        client.post("/infer", files={"image": picture()})
        wait_until(lambda: "cannot be stored yet" in server.log.read_text())
    wait_until(lambda: client.get(f"/models/{DETECTOR}/live").json() != before)


def test_a_locked_database_refuses_writes_and_inference_goes_on(
    server: Server, client: httpx.Client, picture: Picture
) -> None:
    wait_until(lambda: stored_images(server) > 0)
    with locked(server.home / "home" / "visionloop.db"):
        for seed in range(5):
            answer = client.post("/infer", files={"image": picture(seed=seed)})
            assert answer.status_code == 200
        refused = client.post("/models/active", json={"model_id": DETECTOR})
        assert refused.status_code == 503
        assert refused.json()["code"] == "DATABASE_BUSY"
        assert int(refused.headers["Retry-After"]) > 0
        for path in ("/readyz", "/models", "/jobs", "/api/datasets", "/metrics"):
            assert client.get(path).status_code == 200, path
        before = stored_images(server)
    assert client.post("/models/active", json={"model_id": DETECTOR}).status_code == 200
    wait_until(lambda: stored_images(server) >= before + 5)
