"""What outlives a request: restarts, deaths, second servers, tokens of a whole server."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from bentoml.exceptions import BentoMLException

from database import Database
from files import PARTIAL
from models_store.archive import export_archive
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import ROOT, Server
from tests.support.webhook_receiver import SECRET, Receiver, always, receiving

DETECTOR = "traffic_signs_yolov8n"
CLASSIFIER = "traffic_signs_mobilenet_v2"
USE = {"Authorization": "Bearer use"}
ADMIN = {"Authorization": "Bearer admin"}

Picture = Callable[..., bytes]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def whole(new_home: Callable[[], Path], receiver: Receiver) -> Iterator[Server]:
    server = Server(
        new_home(),
        VISIONLOOP_TOKEN="use",
        VISIONLOOP_ADMIN_TOKEN="admin",
        VISIONLOOP_WEBHOOK_URL=receiver.url,
        VISIONLOOP_WEBHOOK_SECRET=SECRET,
    )
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def guarded(whole: Server) -> Server:
    """A server with tokens that runs and serves the detector, whatever the test before did."""
    if whole.process is None:
        whole.start()
    url, choice = f"{whole.url}/models/active", {"model_id": DETECTOR}
    httpx.post(url, json=choice, headers=ADMIN, timeout=PATIENCE).raise_for_status()
    return whole


def infer(server: Server, image: bytes, **fields: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}/infer", files={"image": image}, data=fields, headers=USE, timeout=PATIENCE
    )


def test_tokens_guard_every_route_bentomls_own_too(
    guarded: Server, picture: Picture, tmp_path: Path
) -> None:
    with httpx.Client(base_url=guarded.url, timeout=PATIENCE) as client:
        for path in ("/models", "/metrics", "/schema.json", "/static_content/x", "/nowhere"):
            assert client.get(path).status_code == 401
        for path in ("/infer", "/predict", "/infer/base64"):
            assert client.post(path).status_code == 401
        for path in ("/", "/docs", "/openapi.json", "/readyz", "/livez"):
            assert client.get(path).status_code == 200
        choice = {"model_id": DETECTOR}
        assert client.post("/models/active", json=choice, headers=USE).status_code == 403
        assert client.delete(f"/models/{CLASSIFIER}", headers=USE).status_code == 403
        assert client.post("/models/active", json=choice, headers=ADMIN).status_code == 200
    file = tmp_path / "a.jpg"
    file.write_bytes(picture())
    with bentoml.SyncHTTPClient(guarded.url, token="use", timeout=PATIENCE) as native:
        assert native.predict(image=file)["model_id"].startswith(DETECTOR)
    with (
        pytest.raises(BentoMLException),
        bentoml.SyncHTTPClient(guarded.url, token="wrong", timeout=PATIENCE) as native,
    ):
        native.predict(image=file)


def test_the_start_is_announced_without_the_secrets(guarded: Server) -> None:
    log = guarded.log.read_text()
    assert "token=(set)" in log
    for said in ("admin_token", "administration", "token environment admin token"):
        log = log.replace(said, "")
    assert "admin" not in log
    assert SECRET not in log
    assert log.count("Settings:") == guarded.starts


def test_a_second_server_is_refused_and_the_first_is_none_the_worse(guarded: Server) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", "service:VisionLoop", "--port", "1"]
    second = subprocess.run(
        command, cwd=ROOT, env=guarded.environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert second.returncode == 1
    assert second.stderr.strip() == (
        f"Another VisionLoop server is using {guarded.home / 'home'}. "
        "Stop it, or set VISIONLOOP_HOME to another folder."
    )
    with httpx.Client(base_url=guarded.url, headers=USE, timeout=PATIENCE) as client:
        text = client.get("/metrics", headers={"Accept": "text/plain"}).text
    assert 'route="/models/active",status="200"' in text


@pytest.mark.slow
def test_the_end_of_a_job_is_announced_though_the_server_is_killed_in_between(
    guarded: Server, receiver: Receiver
) -> None:
    def deliveries() -> list[dict[str, Any]]:
        path = f"{guarded.url}/webhooks/deliveries"
        found = httpx.get(path, headers=ADMIN, timeout=PATIENCE).raise_for_status()
        return list(found.json()["deliveries"])

    receiver.reply = always(503)
    with httpx.Client(base_url=guarded.url, headers=ADMIN, timeout=PATIENCE) as client:
        job = client.post(f"/metrics/{CLASSIFIER}/evaluate").json()["job_id"]
        client.post(f"/jobs/{job}/cancel").raise_for_status()
        wait_until(lambda: client.get(f"/jobs/{job}").json()["finished_at"])
        wait_until(lambda: [one for one in deliveries() if one["last_status"] == 503])
        client.delete(f"/jobs/{job}").raise_for_status()
    guarded.stop(signal.SIGKILL)
    refused = len(receiver.requests)
    receiver.reply = always(200)
    guarded.start()
    wait_until(lambda: [one["state"] for one in deliveries()] == ["delivered"])
    (delivery,) = deliveries()
    assert delivery["event"] == "job.cancelled"
    assert delivery["attempts"] == len(receiver.requests) == refused + 1
    assert {one.headers["VisionLoop-Delivery"] for one in receiver.requests} == {delivery["id"]}
    assert json.loads(receiver.requests[-1].body)["job"]["job_id"] == job
    headers = ADMIN | {"Accept": "text/plain"}
    text = httpx.get(f"{guarded.url}/metrics", headers=headers, timeout=PATIENCE).text
    assert 'visionloop_webhook_attempts_total{outcome="delivered"} 1.0' in text


def test_a_damaged_database_is_said_in_a_sentence(new_home: Callable[[], Path]) -> None:
    broken = Server(new_home())
    database = broken.home / "home" / "visionloop.db"
    database.write_bytes(b"no database " * 1000)
    command = [sys.executable, "-m", "bentoml", "serve", "service:VisionLoop", "--port", "1"]
    ended = subprocess.run(
        command, cwd=ROOT, env=broken.environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.returncode == 1
    assert ended.stderr.strip().startswith(f"The database {database}: The database is damaged")
    assert "Traceback" not in ended.stderr


def test_a_deleted_model_is_gone_and_a_hurrying_request_is_told(
    guarded: Server, picture: Picture
) -> None:
    registry = _registry(guarded)
    folder = registry.get(CLASSIFIER).path
    copied = Path(shutil.copytree(folder, guarded.home / "copy"))
    model = registry.publish(copied, "short_lived", {"kind": "import"})
    registry.database.close()

    def loaded() -> str:
        headers = USE | {"Accept": "text/plain"}
        text = httpx.get(f"{guarded.url}/metrics", headers=headers, timeout=PATIENCE).text
        return "\n".join(line for line in text.splitlines() if "_model_loaded{" in line)

    image = picture()
    assert infer(guarded, image, model_id="short_lived").json()["model_id"] == model.id
    assert f'model="{model.id}"' in loaded()

    async def race() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=guarded.url, headers=USE, timeout=PATIENCE) as client:
            asked = [
                client.post("/infer", files={"image": image}, data={"model_id": model.id})
                for _ in range(30)
            ]
            deleting = client.delete(f"/models/{model.id}", headers=ADMIN)
            *answers, deleted = await asyncio.gather(*asked, deleting)
            assert deleted.status_code == 204
            return list(answers)

    for answer in asyncio.run(race()):
        if answer.status_code == 200:
            assert answer.json()["model_id"] == model.id
        else:
            assert (answer.status_code, answer.json()["code"]) == (404, "MODEL_NOT_FOUND")
    assert infer(guarded, image, model_id=model.id).status_code == 404
    assert not model.path.exists()
    assert f'model="{model.id}"' not in loaded()


def test_importing_needs_the_admin_token_and_a_whole_file(guarded: Server, tmp_path: Path) -> None:
    registry = _registry(guarded)
    known = registry.get(CLASSIFIER)
    archive = export_archive(known, tmp_path / "carried.zip").read_bytes()
    registry.database.close()
    with httpx.Client(base_url=guarded.url, timeout=PATIENCE) as client:

        def send(
            file: str, content: bytes, headers: dict[str, str] = ADMIN, **options: str
        ) -> httpx.Response:
            files = {"file": (file, content)}
            return client.post("/models/import", files=files, data=options, headers=headers)

        assert send("a.zip", archive, USE).status_code == 403
        for file, content in (
            ("a.pt", b"version https://git-lfs.github.com/spec/v1\n"),
            ("a.pt", b""),
            ("a.zip", archive[:-1000]),
        ):
            answer = send(file, content)
            assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_MODEL_FILE")
        assert send("a.exe", archive).json()["code"] == "VALIDATION_ERROR"
        assert send("a.zip", archive, name="not a name").json()["code"] == "VALIDATION_ERROR"
        assert client.post("/models/import", headers=ADMIN).json()["code"] == "VALIDATION_ERROR"

        arrived = send("a.zip", archive, name="carried")
        assert arrived.status_code == 201, arrived.text
        model = arrived.json()
        assert (model["name"], model["source"]["kind"]) == ("carried", "import")
        assert client.delete(f"/models/{model['id']}", headers=ADMIN).status_code == 204


def _registry(server: Server) -> Registry:
    settings = Settings.model_validate({"home": server.home / "home"})
    return Registry(Database(settings), ModelStore(server.home / "bento"))


def test_a_restart_keeps_the_active_model_and_a_killed_server_leaves_no_process(
    guarded: Server, picture: Picture
) -> None:
    with httpx.Client(base_url=guarded.url, headers=ADMIN, timeout=PATIENCE) as client:
        client.post("/models/active", json={"model_id": CLASSIFIER})
    assert infer(guarded, picture()).json()["model_id"].startswith(CLASSIFIER)
    guarded.stop(signal.SIGKILL)
    left = guarded.home / "home" / "datasets" / "dogs" / f"{PARTIAL}killed"
    left.mkdir(parents=True)
    guarded.start()
    assert not left.exists()
    left.parent.rmdir()
    assert infer(guarded, picture()).json()["model_id"].startswith(CLASSIFIER)
    active = httpx.get(f"{guarded.url}/models/active", headers=USE, timeout=PATIENCE).json()
    assert active["active_model"]["name"] == CLASSIFIER


def test_a_stop_ends_a_connection_that_is_kept_open_with_a_response(guarded: Server) -> None:
    """A client that sends one request after the other is told, and never sees a reset."""
    seen: list[tuple[int, str | None, str | None]] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=PATIENCE)
        while not seen or seen[-1][1] != "close":
            connection.request("GET", "/livez")
            answer = connection.getresponse()
            answer.read()
            seen.append(
                (answer.status, answer.headers["Connection"], answer.headers["Retry-After"])
            )
        connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: len(seen) > 3)
    guarded.stop()
    asking.join()
    *served, last = seen
    assert {status for status, _, _ in served} == {200}
    assert last in [(200, "close", None), (503, "close", "5")]


def test_a_stop_lets_running_requests_finish(guarded: Server, picture: Picture) -> None:
    image = picture(640, 640)

    async def run() -> list[int]:
        async with httpx.AsyncClient(base_url=guarded.url, headers=USE, timeout=PATIENCE) as client:
            asked = [
                asyncio.create_task(
                    client.post("/infer", files={"image": image}, data={"model_id": DETECTOR})
                )
                for _ in range(24)
            ]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert not all(task.done() for task in asked)
            await asyncio.to_thread(guarded.stop)
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(run()) == [200] * 24
