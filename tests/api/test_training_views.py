"""Both client families' training jobs, and `/jobs`: the same rows in three forms. No training."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from api import job_logs
from api.app import create_app, layered
from api.gateway import Gateway
from api.jobs import gauges
from models_store.registry import Registry
from settings import Settings
from tests.drawn_data import write_shapes
from training.jobs import Job, JobStore
from training.logs import LogWriter
from training.processes import started_at

FORM = {  # what the second family's web form sends, whatever is chosen in it
    "task": "detect",
    "model_type": "n",
    "epochs": 50,
    "imgsz": 640,
    "batch": 8,
    "patience": 15,
    "name": "",
    "project": "",
    "resume_weights": "",
    "use_freeze_strategy": True,
    "min_epochs_per_stage": 15,
    "base_model_path": "",
    "new_classes": [],
    "old_data_path": "",
    "replay_ratio": 0.2,
    "max_replay_samples": 1000,
    "teacher_model_path": "",
    "distill_temperature": 2.0,
    "distill_cls_weight": 1.0,
    "distill_reg_weight": 2.0,
    "distill_feat_weight": 5.0,
    "distill_mask_weight": 1.0,
    "enable_consistency": False,
    "consistency_weight": 1.0,
    "pseudo_conf_threshold": 0.7,
    "replay_distill_boost": 1.0,
    "trainingType": "regular",
    "project_id": "12",
}
TASK = {
    "task_id",
    "training_type",
    "status",
    "progress",
    "current_epoch",
    "total_epochs",
    "created_at",
    "started_at",
    "completed_at",
    "error_message",
    "result_path",
    "model_id",
    "metrics",
    "config",
    "logs",
}
UNKNOWN = "0" * 32

Call = Callable[..., httpx.Response]


@dataclass
class Service:
    """The application without its server, and the table behind it."""

    app: ASGIApp
    gateway: Gateway
    data: Path
    call: Call

    @property
    def jobs(self) -> JobStore:
        return self.gateway.jobs

    def get(self, path: str, **options: Any) -> Any:
        answer = self.call(self.app, "GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.call(self.app, "POST", path, json=body, **options)

    def start(self) -> Job:
        """A job that was asked for as the second family does."""
        answer = self.post("/api/training/regular", FORM | {"data_path": str(self.data)})
        return self.jobs.get(answer.json()["task_id"])

    def run(self, job: Job, pid: int | None = None) -> int:
        """Have a process that lives run the job: this one."""
        pid = pid or os.getpid()
        assert self.jobs.start(job.id, pid, started_at(pid))
        return pid


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", "detect", 6, 2, 64)


@pytest.fixture
def service(tmp_path: Path, data: Path, call: Call) -> Iterator[Service]:
    settings = Settings(home=tmp_path / "home", data_roots=(data.parent.parent,), device="cpu")
    gateway = Gateway(settings, Registry(settings), {})
    yield Service(layered(create_app(gateway), settings), gateway, data, call)
    gateway.registry.close()
    gateway.jobs.close()


@pytest.mark.parametrize(
    ("path", "training_type"),
    [("regular", "regular"), ("freeze-strategy", "freeze_strategy")],
)
def test_the_form_is_taken_as_it_is(service: Service, path: str, training_type: str) -> None:
    answer = service.post(f"/api/training/{path}", FORM | {"data_path": str(service.data)})
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"task_id", "status", "message"}
    assert answer.json()["status"] == "pending"
    task = service.get(f"/api/training/tasks/{answer.json()['task_id']}")
    assert set(task) == TASK
    expected = {
        "training_type": training_type,
        "status": "pending",
        "progress": 0.0,
        "current_epoch": 0,
        "total_epochs": 50,
        "model_id": None,
        "metrics": {},
    }
    assert {name: task[name] for name in expected} == expected
    sent, resolved = task["config"], task["config"]["resolved"]
    assert (sent["epochs"], sent["imgsz"], sent["batch"], sent["patience"]) == (50, 640, 8, 15)
    assert resolved["name"] == "detect_yolov8n"
    assert "from scratch" in " ".join(resolved["notes"])
    assert service.get("/api/training/tasks") == [task]
    assert len(task["logs"]) == 1


def test_a_nearly_empty_form_has_the_defaults_of_the_contract(service: Service) -> None:
    body = {"data_path": str(service.data), "epochs": "", "task": None}
    task_id = service.post("/api/training/regular", body).json()["task_id"]
    recipe = service.jobs.get(task_id).recipe
    expected = {"task": "detect", "epochs": 50, "imgsz": 640, "batch": 8, "patience": 15}
    assert {name: recipe[name] for name in expected} == expected
    assert recipe["name"] == "detect_yolov8s"


def test_a_free_text_name_becomes_a_usable_one(service: Service) -> None:
    body = {"data_path": str(service.data), "name": "My Signs (v2)"}
    task_id = service.post("/api/training/regular", body).json()["task_id"]
    assert service.jobs.get(task_id).model_name == "my-signs-v2"


def test_the_first_family_starts_watches_and_stops(service: Service) -> None:
    body = {
        "model_id": "n",
        "dataset_path": str(service.data),
        "epochs": 3,
        "batch_size": 4,
        "parameters": {"imgsz": 96, "patience": "", "hyper": {"lr0": 0.01}},
        "user": "an extra key",
    }
    answer = service.post("/train", body)
    assert answer.status_code == 200, answer.text
    job_id = answer.json()["job_id"]
    assert answer.json() == {"status": "queued", "job_id": job_id, "model_id": "n"}
    recipe = service.jobs.get(job_id).recipe
    expected = {"epochs": 3, "batch": 4, "imgsz": 96, "patience": 15, "hyper": {"lr0": 0.01}}
    assert {name: recipe[name] for name in expected} == expected

    (listed,) = service.get("/train")["jobs"]
    assert {"job_id", "model_id", "status", "progress", "created_at"} == set(listed)
    shown = service.get(f"/train/{job_id}")
    assert {"job_id", "model_id", "status", "progress", "metrics"} <= set(shown)
    assert {"current_epoch", "total_epochs", "loss", "accuracy", "last_updated"} <= set(
        shown["metrics"]
    )
    assert shown["metrics"]["total_epochs"] == 3

    answer = service.call(service.app, "DELETE", f"/train/{job_id}")
    assert answer.json() == {
        "status": "stopping",
        "job_id": job_id,
        "message": f"Job {job_id} is being stopped.",
    }
    assert service.get(f"/train/{job_id}")["status"] == "stopped"
    assert service.call(service.app, "DELETE", f"/train/{job_id}").status_code == 409


def _second(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/api/training/regular", {"data_path": "DATA"} | fields


def _first(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/train", {"model_id": "n", "dataset_path": "DATA"} | fields


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (("/api/training/regular", {}), 400, "data_path"),
        (_second(data_path=""), 400, "data_path"),
        (_second(data_path="DATA/../nowhere.yaml"), 404, "nowhere"),
        (_second(data_path="/etc/passwd"), 403, "VISIONLOOP_DATA_ROOTS"),
        (_second(data_path="DATA/../../../../../../../etc/hosts"), 403, "VISIONLOOP_DATA_ROOTS"),
        (_second(data_path="no_such_dataset"), 404, "no_such_dataset"),
        (_second(task="fly"), 400, "detect, segment, classify, pose"),
        (_second(epochs=0), 400, "'epochs' must be a whole number from 1"),
        (_second(epochs=1.5), 400, "'epochs'"),
        (_second(epochs="many"), 400, "'epochs'"),
        (_second(epochs=10**9), 400, "'epochs'"),
        (_second(imgsz=8), 400, "from 32"),
        (_second(batch=0), 400, "'batch' must be"),
        (_second(patience=-1), 400, "'patience' must be"),
        (_second(min_epochs_per_stage=0), 400, "'min_epochs_per_stage'"),
        (_second(use_freeze_strategy="perhaps"), 400, "true or false"),
        (_second(model_type="no_such_model"), 404, "no_such_model"),
        (_second(model_type="yolov8q"), 400, "yolov8q"),
        (_second(resume_weights="/etc/passwd"), 403, ""),
        (_second(hyper={"save_dir": "/"}), 400, "save_dir"),
        (_second(hyper={"lr0": "x"}), 400, "lr0"),
        (_second(hyper={"lr0": 10**400}), 400, "lr0"),
        (_second(data_path="a\0b"), 400, "is not a path"),
        (_second(resume_weights="\0"), 404, ""),
        (("/api/training/regular", []), 400, "JSON object"),
        (("/api/training/incremental", {"data_path": "DATA"}), 400, "base_model_path is missing"),
        (("/api/training/distillation", {"data_path": "DATA"}), 400, "teacher_model_path"),
        (_first(parameters={"mode": "distillation"}), 400, "teacher_model_path"),
        (_first(model_id="no_such", parameters={"mode": "incremental"}), 404, "no_such"),
        (("/train", {}), 400, "'model_id' is required"),
        (("/train", {"model_id": "n"}), 400, "'dataset_path' is required"),
        (_first(model_id=""), 400, "'model_id' is required"),
        (_first(dataset_path=""), 400, "'dataset_path' is required"),
        (_first(dataset_path="/etc"), 403, "VISIONLOOP_DATA_ROOTS"),
        (_first(model_id="no_such_model"), 404, "no_such_model"),
        (_first(epochs=0), 400, "'epochs' must be a whole number from 1"),
        (_first(batch_size=0), 400, "'batch_size' must be"),
        (_first(parameters=[]), 400, "'parameters' must be an object"),
        (_first(parameters={"imgz": 64}), 400, "no field 'imgz'. Known: "),
        (_first(parameters={"imgsz": "big"}), 400, "'imgsz' must be"),
        (_first(parameters={"mode": "magic"}), 400, "'mode' must be"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_queued(
    service: Service, request_: tuple[str, Any], status: int, words: str
) -> None:
    path, body = request_
    if isinstance(body, dict):
        body = {
            name: value.replace("DATA", str(service.data)) if isinstance(value, str) else value
            for name, value in body.items()
        }
    answer = service.post(path, body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["message"]
    assert service.jobs.list() == []


def test_a_body_that_is_not_json(service: Service) -> None:
    text = service.call(service.app, "POST", "/train", content=b"{}")
    assert (text.status_code, text.json()["code"]) == (400, "VALIDATION_ERROR")
    headers = {"Content-Type": "application/json"}
    broken = service.call(service.app, "POST", "/train", content=b"{", headers=headers)
    assert "not valid JSON" in broken.json()["message"]


def test_a_yaml_that_would_download_its_pictures_says_what_to_do(service: Service) -> None:
    evil = service.data.with_name("evil.yaml")
    evil.write_text("train: nowhere\nval: nowhere\nnames: [a]\ndownload: https://x/evil.sh\n")
    answer = service.post("/api/training/regular", {"data_path": str(evil)})
    assert (answer.status_code, answer.json()["code"]) == (400, "DATASET_INVALID")
    assert "never run here: fetch the data" in answer.json()["message"]


STATUSES = [
    # the table's, first family, second family
    ("queued", "queued", "pending"),
    ("running", "running", "running"),
    ("stopping", "stopping", "running"),
    ("stopped", "stopped", "cancelled"),
    ("completed", "completed", "completed"),
    ("failed", "failed", "failed"),
]


@pytest.mark.parametrize(("status", "first", "second"), STATUSES)
def test_every_status_in_each_view(service: Service, status: str, first: str, second: str) -> None:
    job = service.start()
    if status != "queued":
        pid = service.run(job)
        service.jobs.note(job.id, pid, progress=42.5, current_epoch=2, metrics={"loss": 0.5})
    if status == "stopping":
        service.jobs.request_cancel(job.id)
    elif status == "completed":
        service.jobs.finish(job.id, "completed", model_id="gone:1")
    elif status == "failed":
        service.jobs.finish(job.id, "failed", "It broke.")
    elif status == "stopped":
        service.jobs.finish(job.id, "stopped")

    shown = service.get(f"/train/{job.id}")
    task = service.get(f"/api/training/tasks/{job.id}")
    plain = service.get(f"/jobs/{job.id}")
    assert (shown["status"], task["status"], plain["status"]) == (first, second, first)
    progress = {"queued": 0.0, "completed": 100.0}.get(status, 42.5)
    assert shown["progress"] == task["progress"] == plain["progress"] == progress
    if status != "queued":
        assert shown["metrics"]["loss"] == task["metrics"]["loss"] == 0.5
        assert task["started_at"] is not None
    assert (task["completed_at"] is not None) == (status in ("stopped", "completed", "failed"))
    assert task["error_message"] == plain["error"] == ("It broke." if status == "failed" else None)
    assert task["model_id"] == ("gone:1" if status == "completed" else None)
    counts = service.get("/api/training/status")
    assert counts[second] == 1
    assert counts["queue_length"] == (status == "queued")
    assert counts["device"] == "cpu"


def test_a_job_whose_process_is_gone_is_not_called_running(service: Service) -> None:
    job = service.start()
    service.jobs.start(job.id, 2**22 + 1, 1.0)
    assert service.get(f"/jobs/{job.id}")["status"] == "queued"
    assert service.get(f"/api/training/tasks/{job.id}")["status"] == "pending"
    answer = service.post(f"/api/training/tasks/{job.id}/cancel")
    assert answer.json()["status"] == "cancelled"


def test_kinds_are_kept_apart(service: Service) -> None:
    training = service.start()
    other = service.jobs.create("evaluation", config={}, recipe={})
    assert [job["job_id"] for job in service.get("/jobs")["jobs"]] == [other.id, training.id]
    assert [j["job_id"] for j in service.get("/jobs?kind=evaluation")["jobs"]] == [other.id]
    assert [job["job_id"] for job in service.get("/train")["jobs"]] == [training.id]
    for path in (f"/train/{other.id}", f"/api/training/tasks/{other.id}"):
        assert service.call(service.app, "GET", path).json()["code"] == "JOB_NOT_FOUND"
    wrong = service.call(service.app, "GET", "/jobs?kind=cooking")
    assert "training, evaluation, export, annotation" in wrong.json()["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/train/{}"),
        ("DELETE", "/train/{}"),
        ("GET", "/api/training/tasks/{}"),
        ("GET", "/api/training/tasks/{}/logs"),
        ("GET", "/api/training/tasks/{}/logs?follow=true"),
        ("POST", "/api/training/tasks/{}/cancel"),
        ("GET", "/jobs/{}"),
        ("GET", "/jobs/{}/logs"),
        ("POST", "/jobs/{}/cancel"),
    ],
)
def test_an_unknown_job(service: Service, method: str, path: str) -> None:
    for job_id in (UNKNOWN, "x", "%2e%2e%2fetc"):
        answer = service.call(service.app, method, path.format(job_id))
        assert answer.status_code == 404
        assert answer.json()["code"] in ("JOB_NOT_FOUND", "NOT_FOUND")


def test_starting_and_cancelling_need_the_admin_token(service: Service) -> None:
    settings = service.gateway.settings.model_copy(
        update=Settings(token="use", admin_token="admin").model_dump(
            include={"token", "admin_token"}
        )
    )
    guarded = layered(create_app(service.gateway), settings)
    job = service.start()
    body = FORM | {"data_path": str(service.data)}
    changing = [
        ("POST", "/train", {"model_id": "n", "dataset_path": str(service.data)}),
        ("POST", "/api/training/regular", body),
        ("DELETE", f"/train/{job.id}", None),
        ("POST", f"/api/training/tasks/{job.id}/cancel", None),
        ("POST", f"/jobs/{job.id}/cancel", None),
        ("POST", "/tasks/train/submit", {}),
        ("GET", "/tasks/train/get", None),
    ]
    use, admin = ({"Authorization": f"Bearer {token}"} for token in ("use", "admin"))
    for method, path, sent in changing:
        assert service.call(guarded, method, path, json=sent).status_code == 401
        assert service.call(guarded, method, path, json=sent, headers=use).status_code == 403
    for path in ("/train", "/api/training/tasks", "/api/training/status", "/jobs"):
        assert service.call(guarded, "GET", path, headers=use).status_code == 200
    answer = service.call(guarded, "POST", f"/jobs/{job.id}/cancel", headers=admin)
    assert answer.json()["status"] == "stopped"


def test_logs_are_listed_with_their_times(service: Service) -> None:
    job = service.start()
    LogWriter(service.jobs.log(job.id)).say("Epoch 1/50")
    for path in (f"/api/training/tasks/{job.id}/logs", f"/jobs/{job.id}/logs"):
        *_, last = service.get(path)["logs"]
        assert last.startswith("[20")
        assert last.endswith("] Epoch 1/50")


async def collect(service: Service, job_id: str, offset: int = 0) -> str:
    text = ""
    async for piece in job_logs.events(service.gateway, job_id, offset, lambda job: job.status):
        text += piece
    return text


def test_followed_logs_come_whole_and_end_with_the_job(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_logs, "HEARTBEAT", 0.0)
    monkeypatch.setattr(job_logs, "LOOK", 0.02)
    job = service.start()
    writer = LogWriter(service.jobs.log(job.id))

    async def story() -> str:
        following = asyncio.create_task(collect(service, job.id))
        for number in range(20):
            await asyncio.sleep(0.01)
            writer.say(f"line {number}")
        await asyncio.sleep(0.1)
        assert not following.done()
        writer.say("the last word")
        service.jobs.finish(job.id, "failed", "It broke.")
        return await asyncio.wait_for(following, 5)

    text = asyncio.run(story())
    lines = [line.partition("] ")[2] for line in text.splitlines() if line.startswith("data: [")]
    assert lines[1:] == [f"line {number}" for number in range(20)] + ["the last word"]
    assert text.endswith('event: end\ndata: {"status": "failed"}\n\n')
    assert ": still there\n\n" in text
    ids = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
    assert ids[-1] == writer.path.stat().st_size
    assert asyncio.run(collect(service, job.id, ids[-2])).count("data: [") == 1


def test_a_follower_that_has_everything_is_told_not_to_come_again(service: Service) -> None:
    job = service.start()
    service.jobs.finish(job.id, "stopped")
    path = f"/api/training/tasks/{job.id}/logs?follow=true"
    answer = service.call(service.app, "GET", path)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert 'data: {"status": "cancelled"}' in answer.text
    size = str(service.jobs.log(job.id).stat().st_size)
    again = service.call(service.app, "GET", path, headers={"Last-Event-ID": size})
    assert again.status_code == 204
    odd = service.call(service.app, "GET", path, headers={"Last-Event-ID": "-3; DROP"})
    assert odd.text == answer.text


def test_a_stream_ends_when_the_server_does(service: Service) -> None:
    job = service.start()

    async def story() -> str:
        following = asyncio.create_task(collect(service, job.id))
        await asyncio.sleep(0.1)
        service.gateway.leaving.set()
        return await asyncio.wait_for(following, 2)

    assert "event: end" not in asyncio.run(story())


def test_prometheus_sees_the_jobs(service: Service) -> None:
    service.start()
    service.run(service.start())
    samples = {
        (s.name, *s.labels.values()): s.value for m in gauges(service.gateway) for s in m.samples
    }
    assert samples["visionloop_jobs", "training", "queued"] == 1
    assert samples["visionloop_jobs", "training", "running"] == 1
    assert samples["visionloop_jobs", "export", "failed"] == 0
    assert samples["visionloop_job_queue_length",] == 1
