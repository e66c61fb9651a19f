"""Real trainings through a real server: started, watched, cancelled, killed, gone on with, used.

Two run at a time, so that the tests share what workers need to start.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from jobs.processes import marked
from synthetic.shapes import SHAPES
from tests.support.drawn_truth import Found, share_found
from tests.support.mirror import mirror
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import ROOT, Server
from tests.support.shapes import write_shapes
from tests.support.small_models import checkpoint, network
from training.__main__ import main

QUICK = {"workers": 0, "optimizer": "AdamW", "lr0": 2e-3, "warmup_epochs": 1}
LONG = 6 * PATIENCE  # seconds; a quiet machine needs a minute
FINAL = ("stopped", "completed", "failed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], data: Path) -> Iterator[Server]:
    weights = checkpoint(data / "weights.pt", network("detect")).read_bytes()
    with mirror(yolov9t=weights, yolov9s=weights) as served:  # of other networks it has none
        running = Server(
            new_home(),
            VISIONLOOP_DATA_ROOTS=str(data),
            VISIONLOOP_TRAIN_SLOTS="2",
            VISIONLOOP_ALLOW_DOWNLOAD="auto",
            VISIONLOOP_DOWNLOAD_URL=served.url,
        )
        try:
            yield running.start()
        finally:
            running.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def classes(data: Path) -> Path:
    return write_shapes(data / "classify", "classify", 64, 16, 64)


@dataclass
class Watched:
    """A job that is looked at all the time, and by `python -m training watch`."""

    url: str
    task_id: str
    shell: subprocess.Popen[str]
    seen: list[tuple[float, int]] = field(default_factory=list)  # progress, epoch

    def look(self) -> None:
        task: dict[str, Any] = {"status": "pending"}
        while task["status"] in ("pending", "running"):
            task = httpx.get(
                f"{self.url}/api/training/tasks/{self.task_id}", timeout=PATIENCE
            ).json()
            self.seen.append((task["progress"], task["current_epoch"]))
            time.sleep(0.02)


@pytest.fixture(scope="module")
def detector(server: Server, client: httpx.Client, data: Path) -> Watched:
    """A training that goes on beside the tests before the one that asks how it was."""
    body = {
        "task": "detect",
        "model_type": "n",
        "data_path": str(write_shapes(data / "detect", "detect", 64, 16, 96)),
        "epochs": 12,
        "imgsz": 96,
        "batch": 8,
        "name": "Shapes",
        "trainingType": "regular",
        "resume_weights": "",
        "hyper": QUICK | {"mosaic": 0},
    }
    task_id = client.post("/api/training/regular", json=body).json()["task_id"]
    command = [sys.executable, "-m", "training", "watch", task_id[:12], "--url", server.url]
    shell = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    watched = Watched(server.url, task_id, shell)
    threading.Thread(target=watched.look, daemon=True).start()
    return watched


@pytest.fixture(scope="module")
def killed(detector: Watched, client: httpx.Client, classes: Path) -> str:
    """A job whose worker was killed in its third epoch."""
    body = {
        "model_id": "n",
        "dataset_path": str(classes),
        "epochs": 8,
        "batch_size": 8,
        "parameters": {"task": "classify", "imgsz": 64, "name": "kinds", "hyper": QUICK},
    }
    job_id = str(client.post("/train", json=body).json()["job_id"])
    until(client, job_id, lambda job: job["current_epoch"] >= 3)
    for process in marked()[job_id]:
        if "worker" in process.cmdline():
            process.kill()
    return job_id


def until(client: httpx.Client, job_id: str, done: Callable[[dict[str, Any]], bool]) -> Any:
    """The job, once it is as wanted."""

    def found() -> Any:
        job = client.get(f"/jobs/{job_id}").json()
        if done(job):
            return job
        assert job["status"] not in FINAL, job
        return None

    return wait_until(found, 0.1, LONG)


def log_of(client: httpx.Client, job_id: str) -> str:
    return "\n".join(client.get(f"/jobs/{job_id}/logs").json()["logs"])


def asking(client: httpx.Client, model_id: str) -> Found:
    def ask(image: bytes) -> list[dict[str, Any]]:
        answer = client.post("/infer", files={"image": image}, data={"model_id": model_id})
        return list(answer.json()["predictions"])

    return ask


def assert_served_as_evaluated(client: httpx.Client, model_id: str, classes: Path) -> None:
    """Over HTTP it is as right as its evaluation says, and better than by chance (a third)."""
    # The gateway follows what a worker wrote within a second.
    metrics = wait_until(lambda: client.get(f"/models/{model_id}").json()["metrics"])
    accuracy = metrics["accuracy"]
    assert accuracy > 0.45
    found = share_found(classes, "classify", asking(client, model_id))
    assert found == pytest.approx(accuracy, abs=1 / 16 + 1e-6)  # one of 16 may be a near draw


def test_a_killed_worker_is_started_again(client: httpx.Client, killed: str) -> None:
    resumed = until(client, killed, lambda job: job["attempts"] == 2)
    assert resumed["current_epoch"] >= 2


def test_a_detector_is_trained_watched_and_used(
    detector: Watched, client: httpx.Client, data: Path
) -> None:
    task_id = detector.task_id
    shown, _ = detector.shell.communicate(timeout=LONG)
    assert detector.shell.returncode == 0

    seen = list(detector.seen)
    assert seen == sorted(seen)
    inside = {epoch: {p for p, e in seen if e == epoch} for _, epoch in seen}
    assert any(len(steps) > 1 for steps in inside.values()), "it moves within an epoch"
    listed = client.get(f"/api/training/tasks/{task_id}/logs").json()["logs"]
    assert len(listed) > 5
    assert all(line in shown for line in listed)
    assert f"Job {task_id} is completed. shapes:" in shown

    task = client.get(f"/api/training/tasks/{task_id}").json()
    assert (task["status"], task["progress"], task["error_message"]) == ("completed", 100.0, None)
    assert client.get(f"/train/{task_id}").json()["status"] == "completed"
    assert Path(task["result_path"]).is_dir()
    metrics = wait_until(lambda: client.get(f"/models/{task['model_id']}").json()["metrics"])
    model = client.get(f"/models/{task['model_id']}").json()
    assert model["classes"] == list(SHAPES)
    assert model["source"]["job_id"] == task_id
    assert client.get("/models/active").json()["active_model"]["id"] != model["id"]
    history = client.get(f"/jobs/{task_id}/metrics/history").json()["epochs"]
    assert [one["epoch"] for one in history] == list(range(1, task["current_epoch"] + 1))
    assert all(one["seconds"] > 0 for one in history)
    assert history[-1]["metrics"].keys() >= {"loss", "box_loss", "val_loss", "mAP50", "fitness"}
    report = client.get(f"/metrics/{task['model_id']}/report").json()
    assert report["figures"]["mAP50"] == metrics["mAP50"]
    recall = report["at_serving"]["recall"]
    assert recall > 0.1, "nothing was learned that could be found"
    found = share_found(data / "detect", "detect", asking(client, task["model_id"]))
    assert found == pytest.approx(recall, abs=0.1)

    text = client.get("/metrics", headers={"Accept": "text/plain"}).text
    assert re.search(r'visionloop_jobs\{kind="training",status="completed"\} [1-9]', text)
    assert 'visionloop_epoch_seconds_count{mode="regular"}' in text


def test_a_killed_worker_goes_on_from_its_checkpoint(
    client: httpx.Client, killed: str, classes: Path
) -> None:
    ended = until(client, killed, lambda job: job["status"] == "completed")
    assert ended["attempts"] == 2
    assert killed not in marked()
    assert "killed by SIGKILL. The job resumes from the checkpoint of epoch" in log_of(
        client, killed
    )
    history = client.get(f"/jobs/{killed}/metrics/history").json()["epochs"]
    assert [one["epoch"] for one in history] == list(range(1, 9)), "each epoch, and each once"
    assert all(one["metrics"].keys() >= {"loss", "val_loss", "accuracy"} for one in history)
    assert_served_as_evaluated(client, ended["model_id"], classes)


def test_a_cancelled_job_is_gone_and_another_starts_from_its_weights(
    server: Server, client: httpx.Client, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = write_shapes(data / "cancelled", "detect", 16, 4, 64)
    command = ["start", "freeze-strategy", "--data", str(shapes), "--model", "n", "--imgsz", "64"]
    command += ["--epochs", "500", "--no-watch", "--url", server.url, "--hyper", "workers=0"]
    assert main(command) == 0
    job_id = re.findall(r" Job ([0-9a-f]{32})\n", capsys.readouterr().out)[0]
    until(client, job_id, lambda job: job["current_epoch"] > 1)
    family: list[psutil.Process] = marked()[job_id]
    assert main(["cancel", job_id[:12], "--url", server.url]) == 0
    until(client, job_id, lambda job: job["status"] == "stopped")
    assert not [process for process in family if process.is_running() and _lives(process)]
    assert client.get(f"/api/training/tasks/{job_id}").json()["status"] == "cancelled"
    assert client.delete(f"/train/{job_id}").status_code == 409
    assert f"are kept. To start from them, send resume_weights={job_id}." in log_of(client, job_id)

    capsys.readouterr()
    assert main([*command, "--weights", job_id]) == 0
    again = re.findall(r" Job ([0-9a-f]{32})\n", capsys.readouterr().out)[0]
    until(client, again, lambda job: job["progress"] > 0)
    text = log_of(client, again)
    assert f"Starts from the best weights of job {job_id}, of its epoch" in text
    assert "Start weights know 3 of the 3 classes by name." in text
    assert client.delete(f"/jobs/{job_id}").status_code == 409
    client.post(f"/jobs/{again}/cancel")
    until(client, again, lambda job: job["status"] == "stopped")
    assert main(["list", "--url", server.url]) == 0
    assert job_id[:8] in capsys.readouterr().out
    assert main(["delete", job_id, "--url", server.url]) == 0
    assert client.get(f"/jobs/{job_id}").status_code == 404


@pytest.mark.slow
def test_weights_are_fetched_on_demand_and_by_a_training(
    server: Server,
    client: httpx.Client,
    data: Path,
    picture: Callable[..., bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = client.post("/models/fetch", json={"network": "yolov9t"})
    assert answer.status_code == 202, answer.text
    job = until(client, answer.json()["job_id"], lambda job: job["status"] == "completed")
    model = client.get("/models/yolov9t-coco").json()
    assert (model["id"], model["source"]["kind"]) == (job["model_id"], "fetch")
    asking(client, "yolov9t-coco")(picture())

    shapes = write_shapes(data / "fetched", "detect", 16, 4, 64)
    command = ["start", "regular", "--data", str(shapes), "--model", "yolov9s", "--imgsz", "64"]
    command += ["--epochs", "1", "--no-watch", "--url", server.url, "--hyper", "workers=0"]
    assert main(command) == 0
    told, *_, queued = capsys.readouterr().out.splitlines()
    assert told.startswith("No yolov9s weights here: they will be fetched")
    job = until(client, queued.split()[-1], lambda job: job["status"] == "completed")
    base = client.get("/models/yolov9s-coco").json()
    assert base["source"]["fetched_by"] == job["job_id"]
    assert job["config"]["resolved"]["base"] == {"kind": "model", "from": base["id"]}
    source = client.get(f"/models/{job['model_id']}").json()["source"]
    assert source["parent"] == base["id"]
    assert "yolov9s.pt was fetched from 127.0.0.1" in source["start"]
    assert source["start"] in log_of(client, job["job_id"])


def test_bentomls_tasks_are_a_way_to_the_same_jobs(
    client: httpx.Client, data: Path, classes: Path
) -> None:
    def submit(**parameters: Any) -> str:
        answer = client.post("/tasks/train/submit", json={"parameters": parameters})
        return str(answer.json()["task_id"])

    def result(task_id: str) -> httpx.Response:
        params = {"task_id": task_id}

        def over() -> bool:
            status = client.get("/tasks/train/status", params=params).json()["status"]
            return bool(status != "in_progress")

        wait_until(over, 0.1, LONG)
        return client.get("/tasks/train/get", params=params)

    refused = result(submit(data_path="/etc"))
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    refused = result(submit(data_path=str(data), model_type="no_such_model"))
    assert (refused.status_code, refused.json()["code"]) == (404, "MODEL_NOT_FOUND")
    refused = result(submit(model_id="no_such_model", dataset_path=str(data)))
    assert (refused.status_code, refused.json()["code"]) == (404, "MODEL_NOT_FOUND")
    refused = result(submit(data_path=str(data), imgz=64))
    assert "Unknown field 'imgz'" in refused.json()["message"]

    def known() -> set[str]:
        return {job["job_id"] for job in client.get("/jobs").json()["jobs"]}

    before = known()
    task_id = submit(task="classify", model_type="n", data_path=str(classes))
    (made,) = wait_until(lambda: known() - before)
    client.post(f"/jobs/{made}/cancel")
    job = result(task_id).json()
    assert (job["job_id"], job["status"]) == (made, "stopped")


@pytest.mark.slow
def test_a_restarted_server_goes_on_within_the_epoch(
    new_home: Callable[[], Path], data: Path, classes: Path
) -> None:
    server = Server(new_home(), VISIONLOOP_DATA_ROOTS=str(data))  # others' jobs run on theirs
    try:
        with httpx.Client(base_url=server.start().url, timeout=PATIENCE) as client:
            _restart_within_an_epoch(server, client, classes)
    finally:
        server.stop()


def _restart_within_an_epoch(server: Server, client: httpx.Client, classes: Path) -> None:
    body = {"task": "classify", "model_type": "mobilenet", "data_path": str(classes), "imgsz": 64}
    body |= {"epochs": 7, "batch": 8, "patience": 0, "name": "small", "hyper": {"workers": 0}}
    job_id = client.post("/api/training/regular", json=body).json()["task_id"]
    before = until(client, job_id, lambda job: job["progress"] >= 100 * 0.97 * (1 + 0.1) / 7)
    assert server.process is not None
    with client.stream("GET", f"/jobs/{job_id}/logs", params={"follow": "true"}) as stream:
        server.process.send_signal(signal.SIGTERM)  # an open stream does not hold it up
        assert "event: end" not in stream.read().decode()
    server.stop()
    assert job_id not in marked()
    server.start()
    job = until(client, job_id, lambda job: job["attempts"] == 2)
    assert job["progress"] >= before["progress"]
    job = until(client, job_id, lambda job: job["status"] == "completed")
    text = log_of(client, job_id)
    saved = re.search(r"Saved after batch (\d+) of 8 in epoch (\d+)\.", text)
    assert saved is not None, text
    batch, epoch = map(int, saved.groups())
    where = f"batch {batch + 1} of 8 in epoch" if batch < 8 else "the validation of epoch"
    assert f"Training from {where} {epoch} to epoch 7" in text
    assert_served_as_evaluated(client, job["model_id"], classes)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
