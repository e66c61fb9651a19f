"""Batch annotation through a whole server: killed, resumed, cancelled, corrected, told of."""

from __future__ import annotations

import io
import json
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import psutil
import pytest

from synthetic.scenes import draw_scene
from tests.support.patience import PATIENCE, wait_until
from tests.support.seeds import rng
from tests.support.serving import Server

DETECTOR = "traffic_signs_yolov8n"
PICTURES = 40


@pytest.fixture(scope="module")
def running(
    new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("roots")
    server = Server(new_home(), VISIONLOOP_DATA_ROOTS=str(folder), VISIONLOOP_KEEP_BELOW="1")
    try:
        yield server.start(), folder
    finally:
        server.stop()


@pytest.fixture(scope="module")
def client(running: tuple[Server, Path]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running[0].url, timeout=PATIENCE) as client:
        yield client


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """The job once it is final."""

    def final() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
        return job if job["status"] in ("completed", "failed", "stopped") else None

    return dict(wait_until(final, 0.1))


def worker(server: Server, job_id: str) -> psutil.Process:
    assert server.process is not None
    for child in psutil.Process(server.process.pid).children(recursive=True):
        if "worker" in child.cmdline() and job_id in child.cmdline():
            return child
    raise AssertionError("no worker")


def test_a_folder_is_annotated_though_its_worker_is_killed(
    running: tuple[Server, Path], client: httpx.Client, scenes: list[bytes]
) -> None:
    server, folder = running
    (folder / "street").mkdir()
    for index, data in enumerate(scenes):
        (folder / "street" / f"{index:03}.jpg").write_bytes(data)
    (folder / "street" / "torn.jpg").write_bytes(scenes[0][:900])
    body = {
        "dataset": str(folder / "street"),
        "tool": "object_detection",
        "model": DETECTOR,
        "bands": {"accept": 0.9, "review": 0.2},
        "format": "coco",
        "tiles": "off",
    }
    started = client.post("/api/auto_annotate/batch", json=body)
    assert started.status_code == 202, started.text
    job_id, dataset = started.json()["job_id"], started.json()["dataset_id"]
    assert client.get(f"/api/datasets/{dataset}").status_code == 404  # not yet
    wait_until(lambda: client.get(f"/jobs/{job_id}").json()["progress"] >= 10, 0.02)
    os.kill(worker(server, job_id).pid, signal.SIGKILL)
    job = ended(client, job_id)
    log = "\n".join(client.get(f"/jobs/{job_id}/logs").json()["logs"])
    assert (job["status"], job["kind"], job["attempts"]) == ("completed", "annotation", 2), log
    assert "of them were annotated before a restart." in log
    assert "Skipped torn.jpg" in log
    assert job["metrics"]["pictures"] == len(scenes)
    assert job["config"]["tool"] == "object_detection"

    card = client.get(f"/api/datasets/{dataset}").json()
    assert card["annotation"]["problems"][0]["image"] == "torn.jpg"
    assert card["annotation"]["pictures"] == len(scenes)
    assert card["to_review"] > 0
    queue = client.get("/api/annotation/queue", params={"dataset": dataset, "limit": 5}).json()
    assert queue["waiting"] == len(scenes)
    assert all(entry["reason"] for entry in queue["queue"])
    first = queue["queue"][0]

    # the person empties the first picture: every pre-label in it was wrong
    url = f"/api/datasets/{dataset}/annotations"
    corrected = client.post(url, json={"names": [], "labels": {first["image"]: ""}})
    assert corrected.status_code == 201, corrected.text
    after = client.get("/api/annotation/queue", params={"dataset": dataset, "limit": 5}).json()
    assert (after["waiting"], after["annotated"]) == (len(scenes) - 1, 1)
    assert first["content"] not in {entry["content"] for entry in after["queue"]}
    path = f"/api/datasets/{dataset}/revisions/{corrected.json()['revision']}/diff"
    (judged,) = client.get(path).json()["compared"]
    assert judged["before"] == started.json()["model_id"]
    assert (judged["pictures"], judged["accepted"], judged["added"]) == (1, 0, 0)
    live = client.get(f"/models/{started.json()['model_id']}/live").json()["corrections"]
    assert live["removed"] == judged["removed"]

    export = client.get(f"/api/datasets/{dataset}/export")
    archive = zipfile.ZipFile(io.BytesIO(export.content))
    names = archive.namelist()
    assert sum(name.endswith(".jpg") for name in names) == len(scenes)
    splits = [json.loads(archive.read(n)) for n in names if n.startswith("annotations/")]
    assert sum(len(split["images"]) for split in splits) == len(scenes)


def test_an_uploaded_zip_is_annotated_and_can_be_cancelled(
    running: tuple[Server, Path], client: httpx.Client, scenes: list[bytes]
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, data in enumerate(scenes):
            archive.writestr(f"in/{index}.jpg", data)
    files = {"file": ("street.zip", buffer.getvalue())}
    form = {"tool": "object_detection", "bands": '{"accept": 0.5, "review": 0.2}'}
    started = client.post("/api/auto_annotate/batch", data=form, files=files)
    assert started.status_code == 202, started.text
    job_id = started.json()["job_id"]
    cancelled = client.post(f"/jobs/{job_id}/cancel")
    assert cancelled.status_code == 200
    assert ended(client, job_id)["status"] == "stopped"
    dataset = started.json()["dataset_id"]
    assert client.get(f"/api/datasets/{dataset}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "'tool'"),
        ({"tool": "object_detection"}, 400, "'dataset' is required"),
        ({"tool": "object_detection", "dataset": "/etc"}, 403, "VISIONLOOP_DATA_ROOTS"),
        ({"tool": "object_detection", "dataset": "nobody"}, 404, "No dataset 'nobody'"),
        ({"tool": "keypoint_detection", "dataset": "."}, 404, "pose"),
        ({"tool": "object_detection", "dataset": ".", "bands": {"accept": 2}}, 400, "bands"),
        ({"tool": "object_detection", "dataset": ".", "format": "csv"}, 400, "label_studio"),
    ],
)
def test_a_wrong_request_is_told_why(
    client: httpx.Client, body: dict[str, Any], status: int, says: str
) -> None:
    answer = client.post("/api/auto_annotate/batch", json=body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["message"]


def test_kept_traffic_waits_in_the_queue(client: httpx.Client, scenes: list[bytes]) -> None:
    options = {"model_id": DETECTOR, "confidence": "0.01"}
    answer = client.post("/infer", data=options, files={"image": NEW})
    assert answer.json()["predictions"], answer.text

    def from_traffic() -> list[dict[str, Any]]:
        found = client.get("/api/annotation/queue", params={"limit": 500}).json()
        return [entry for entry in found["queue"] if entry["source"] == "live"]

    (entry,) = wait_until(from_traffic, 0.1)
    assert entry["dataset_id"] is None
    assert client.get(entry["url"]).content == NEW
    hidden = client.get("/api/annotation/queue", params={"limit": 500, "kept": False}).json()
    assert "live" not in {entry["source"] for entry in hidden["queue"]}


def scene(seed: int) -> bytes:
    """A drawn picture of traffic signs, as a JPEG."""
    pixels, _, _ = draw_scene(rng(seed), 480, 360)
    return cv2.imencode(".jpg", pixels[..., ::-1])[1].tobytes()


NEW = scene(1000)


@pytest.fixture(scope="module")
def scenes() -> list[bytes]:
    return [scene(seed) for seed in range(PICTURES)]
