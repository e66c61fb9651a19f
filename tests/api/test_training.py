"""Real trainings through a real server: started, watched, cancelled, killed, and used."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.api.serving import Server
from tests.drawn_data import SHAPES, write_shapes
from tests.drawn_truth import Found, share_found
from training.__main__ import main
from training.processes import marked

QUICK = {"workers": 0, "optimizer": "AdamW", "lr0": 2e-3, "warmup_epochs": 1}
LONG = 180.0  # seconds; a busy machine needs most of it
FINAL = ("stopped", "completed", "failed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], data: Path) -> Iterator[Server]:
    running = Server(new_home(), VISIONLOOP_DATA_ROOTS=str(data))
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def until(client: httpx.Client, job_id: str, done: Callable[[dict[str, Any]], bool]) -> Any:
    """The job, once it is as wanted."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        job = client.get(f"/jobs/{job_id}").json()
        if done(job):
            return job
        assert job["status"] not in FINAL, job
        time.sleep(0.1)
    raise AssertionError(f"not within {LONG:g} s: {job}")


def classes(data: Path) -> Path:
    """A drawn tree of classes, made once."""
    root = data / "classify"
    return root if root.exists() else write_shapes(root, "classify", 64, 16, 64)


def asking(client: httpx.Client, model_id: str) -> Found:
    def ask(image: bytes) -> list[dict[str, Any]]:
        answer = client.post("/infer", files={"image": image}, data={"model_id": model_id})
        return list(answer.json()["predictions"])

    return ask


def test_a_detector_is_trained_watched_and_used(
    server: Server, client: httpx.Client, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = write_shapes(data / "detect", "detect", 64, 16, 96)
    body = {
        "task": "detect",
        "model_type": "n",
        "data_path": str(shapes),
        "epochs": 10,
        "imgsz": 96,
        "batch": 8,
        "name": "Shapes",
        "trainingType": "regular",
        "resume_weights": "",
        "hyper": QUICK | {"mosaic": 0},
    }
    task_id = client.post("/api/training/regular", json=body).json()["task_id"]
    seen: list[tuple[float, int]] = []

    def poll() -> None:
        task: dict[str, Any] = {"status": "pending"}
        while task["status"] in ("pending", "running"):
            task = httpx.get(f"{server.url}/api/training/tasks/{task_id}", timeout=60).json()
            seen.append((task["progress"], task["current_epoch"]))
            time.sleep(0.1)

    watcher = threading.Thread(target=poll)
    watcher.start()
    assert main(["watch", task_id[:12], "--url", server.url]) == 0
    watcher.join(LONG)

    assert seen == sorted(seen)
    inside = {epoch: {p for p, e in seen if e == epoch} for _, epoch in seen}
    assert sum(len(shown) > 1 for shown in inside.values()) >= 3, "it moves within an epoch"
    shown = capsys.readouterr().out
    listed = client.get(f"/api/training/tasks/{task_id}/logs").json()["logs"]
    assert len(listed) > 5
    assert all(line in shown for line in listed)
    assert f"Job {task_id} is completed. shapes:" in shown

    task = client.get(f"/api/training/tasks/{task_id}").json()
    assert (task["status"], task["progress"], task["error_message"]) == ("completed", 100.0, None)
    assert client.get(f"/train/{task_id}").json()["status"] == "completed"
    assert Path(task["result_path"]).is_dir()
    model = client.get(f"/models/{task['model_id']}").json()
    assert model["classes"] == list(SHAPES)
    assert model["source"]["job_id"] == task_id
    assert model["metrics"]["mAP50"] > 0.8
    assert client.get("/models/active").json()["active_model"]["id"] != model["id"]
    assert share_found(data / "detect", "detect", asking(client, task["model_id"])) > 0.8

    text = client.get("/metrics", headers={"Accept": "text/plain"}).text
    assert 'visionloop_jobs{kind="training",status="completed"} 1.0' in text
    assert 'visionloop_epoch_seconds_count{mode="regular"}' in text


def test_a_killed_worker_goes_on_from_its_checkpoint(client: httpx.Client, data: Path) -> None:
    root = classes(data)
    body = {
        "model_id": "n",
        "dataset_path": str(root),
        "epochs": 10,
        "batch_size": 8,
        "parameters": {"task": "classify", "imgsz": 64, "name": "kinds", "hyper": QUICK},
    }
    job_id = client.post("/train", json=body).json()["job_id"]
    until(client, job_id, lambda job: job["current_epoch"] >= 3)
    family = marked()[job_id]
    for process in family:
        if "training.worker" in process.cmdline():
            process.kill()
    resumed = until(client, job_id, lambda job: job["attempts"] == 2)
    assert resumed["current_epoch"] >= 2
    ended = until(client, job_id, lambda job: job["status"] == "completed")
    assert ended["attempts"] == 2
    assert job_id not in marked()
    text = "\n".join(client.get(f"/jobs/{job_id}/logs").json()["logs"])
    assert "ended by SIGKILL. The job goes on from the checkpoint of epoch" in text
    assert client.get(f"/models/{ended['model_id']}").json()["metrics"]["accuracy"] > 0.8
    assert share_found(root, "classify", asking(client, ended["model_id"])) > 0.8


def test_a_job_is_cancelled_within_an_epoch_from_the_shell(
    server: Server, client: httpx.Client, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = write_shapes(data / "cancelled", "detect", 96, 8, 96)
    command = ["start", "freeze-strategy", "--data", str(shapes), "--model", "n", "--imgsz", "96"]
    command += ["--epochs", "50", "--no-watch", "--url", server.url, "--hyper", "workers=0"]
    assert main(command) == 0
    job_id = capsys.readouterr().out.split()[-1]
    until(client, job_id, lambda job: job["progress"] > 0)
    family: list[psutil.Process] = marked()[job_id]
    began = time.monotonic()
    assert main(["cancel", job_id[:12], "--url", server.url]) == 0
    assert time.monotonic() - began < 5
    assert capsys.readouterr().out == f"Job {job_id} is stopped.\n"
    assert not [process for process in family if process.is_running() and _lives(process)]
    assert client.get(f"/api/training/tasks/{job_id}").json()["status"] == "cancelled"
    assert client.delete(f"/train/{job_id}").status_code == 409
    assert main(["list", "--url", server.url]) == 0
    assert job_id[:8] in capsys.readouterr().out


def test_bentomls_tasks_are_a_way_to_the_same_jobs(client: httpx.Client, data: Path) -> None:
    def submit(**parameters: Any) -> str:
        answer = client.post("/tasks/train/submit", json={"parameters": parameters})
        return str(answer.json()["task_id"])

    def result(task_id: str) -> httpx.Response:
        deadline = time.monotonic() + 30
        params = {"task_id": task_id}
        while time.monotonic() < deadline:
            status = client.get("/tasks/train/status", params=params).json()["status"]
            if status != "in_progress":
                return client.get("/tasks/train/get", params=params)
            time.sleep(0.1)
        raise AssertionError("the task did not end")

    refused = result(submit(data_path="/etc"))
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    refused = result(submit(data_path=str(data), model_type="no_such_model"))
    assert (refused.status_code, refused.json()["code"]) == (404, "MODEL_NOT_FOUND")

    task_id = submit(task="classify", model_type="n", data_path=str(classes(data)))
    jobs = client.get("/jobs").json()["jobs"]
    while jobs[0]["status"] not in ("queued", "running"):
        jobs = client.get("/jobs").json()["jobs"]
    client.post(f"/jobs/{jobs[0]['job_id']}/cancel")
    job = result(task_id).json()
    assert (job["job_id"], job["status"]) == (jobs[0]["job_id"], "stopped")


def test_a_restarted_server_goes_on_within_the_epoch(
    server: Server, client: httpx.Client, data: Path
) -> None:
    root = classes(data)
    body = {"task": "classify", "model_type": "mobilenet", "data_path": str(root), "imgsz": 64}
    body |= {"epochs": 10, "batch": 8, "patience": 0, "name": "small", "hyper": {"workers": 0}}
    job_id = client.post("/api/training/regular", json=body).json()["task_id"]
    before = until(client, job_id, lambda job: job["progress"] >= 0.97 * (10 + 1))
    assert server.process is not None
    with client.stream("GET", f"/jobs/{job_id}/logs", params={"follow": "true"}) as stream:
        server.process.send_signal(signal.SIGTERM)  # an open stream does not hold it up
        began = time.monotonic()
        assert "event: end" not in stream.read().decode()
    server.stop()
    assert time.monotonic() - began < 15
    assert job_id not in marked()
    server.start()
    job = until(client, job_id, lambda job: job["attempts"] == 2)
    assert job["progress"] >= before["progress"]
    job = until(client, job_id, lambda job: job["status"] == "completed")
    text = "\n".join(client.get(f"/jobs/{job_id}/logs").json()["logs"])
    saved = re.search(r"Saved after batch (\d+) of 8 in epoch (\d+)\.", text)
    assert saved is not None, text
    batch, epoch = map(int, saved.groups())
    where = f"batch {batch + 1} of 8 in epoch" if batch < 8 else "the validation of epoch"
    assert f"Training from {where} {epoch} to epoch 10" in text
    assert client.get(f"/models/{job['model_id']}").json()["metrics"]["accuracy"] > 0.8
    assert share_found(root, "classify", asking(client, job["model_id"])) > 0.8


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
