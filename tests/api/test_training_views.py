"""Both client families' training jobs, and `/jobs`: the same rows in three forms. No training."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import update

from api.app import create_app, with_middleware
from api.routes.metrics import gauges
from jobs.artifacts import note_best
from jobs.finalizer import JobFinalizer
from jobs.job import Job
from jobs.states import SHARED
from settings import Settings
from tests.support.dispatching import begin
from tests.support.training_app import FORM, TASK, UNKNOWN, Service


@pytest.mark.parametrize(
    ("path", "training_type"),
    [("regular", "regular"), ("freeze-strategy", "freeze_strategy")],
)
def test_the_form_is_taken_as_it_is(service: Service, path: str, training_type: str) -> None:
    answer = service.post(f"/api/training/{path}", FORM | {"data_path": str(service.data)})
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"task_id", "status", "message", "notes"}
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
    assert sent == FORM | {"data_path": str(service.data), "resolved": resolved}
    assert (sent["epochs"], sent["imgsz"], sent["batch"], sent["patience"]) == (50, 640, 8, 15)
    assert resolved["name"] == "detect_yolov8n"
    assert "from scratch" in " ".join(resolved["notes"])
    assert service.get("/api/training/tasks") == [task]
    request, waits = task["logs"]
    assert "] Request " in request
    assert "] Waits for a slot: " in waits


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
    }
    answer = service.post("/train", body)
    assert answer.status_code == 200, answer.text
    job_id = answer.json()["job_id"]
    notes = answer.json()["notes"]
    assert answer.json() == {"status": "queued", "job_id": job_id, "model_id": "n", "notes": notes}
    assert "from scratch" in notes[0]
    config = service.jobs.get(job_id).config
    assert {name: config[name] for name in body} == body
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
        "message": f"Job {job_id} is stopping.",
    }
    assert service.get(f"/train/{job_id}")["status"] == "stopped"
    assert service.call(service.app, "DELETE", f"/train/{job_id}").status_code == 409


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
        claim = service.run(job)
        service.jobs.note(job.id, claim, progress=42.5, current_epoch=2, metrics={"loss": 0.5})
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


OWN_WORDS = {status for row in STATUSES for status in row} - SHARED


@pytest.mark.parametrize("running", [False, True])
def test_logs_and_errors_use_no_word_that_one_family_does_not_know(
    service: Service, running: bool
) -> None:
    job = service.start()
    if running:
        service.run(job)
    texts = []
    body = FORM | {"data_path": str(service.data), "resume_weights": job.id}
    texts.append(service.post("/api/training/regular", body).json()["message"])
    if running:
        service.jobs.request_cancel(job.id)
        texts.append(service.post("/api/training/regular", body).json()["message"])
        JobFinalizer(service.jobs, 3, lambda _: None).finalize(job.id, "It ended.")
    else:
        service.post(f"/api/training/tasks/{job.id}/cancel")
    assert service.get(f"/train/{job.id}")["status"] == "stopped"
    answer = service.post(f"/api/training/tasks/{job.id}/cancel")
    assert answer.status_code == 409
    texts += [answer.json()["message"], *service.get(f"/jobs/{job.id}/logs")["logs"]]
    assert len(texts) == 5 + running
    for text in texts:
        assert not set(re.findall(r"[a-z]+", text.lower())) & OWN_WORDS, text


def test_the_openapi_document_explains_each_status(service: Service) -> None:
    schemas = service.get("/openapi.json")["components"]["schemas"]
    for name, column in (("JobView", 0), ("ShownJob", 1), ("Task", 2), ("TaskStarted", 2)):
        status = schemas[name]["properties"]["status"]
        words = {row[column] for row in STATUSES}
        assert set(status["enum"]) == words
        for word in words:
            assert f"{word}: " in status["description"]


def test_a_job_whose_process_is_gone_is_not_called_running(service: Service) -> None:
    job = service.start()
    begin(service.jobs, job.id, 2**22 + 1)
    assert service.get(f"/jobs/{job.id}")["status"] == "queued"
    assert service.get(f"/api/training/tasks/{job.id}")["status"] == "pending"
    answer = service.post(f"/api/training/tasks/{job.id}/cancel")
    assert answer.json()["status"] == "cancelled"


@pytest.mark.parametrize("epochs", [0, 4])
def test_a_job_cancelled_in_the_queue_leaves_the_best_of_an_earlier_attempt(
    service: Service, epochs: int
) -> None:
    job = service.start()
    folder = service.jobs.folder(job.id)
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "last.pt").touch()
    if epochs:
        (checkpoints / "best.pt").touch()
        note_best(checkpoints, epochs)
    assert service.post(f"/jobs/{job.id}/cancel").json()["status"] == "stopped"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "log"][not epochs :]
    assert not (checkpoints / "last.pt").exists()
    body = FORM | {"data_path": str(service.data), "resume_weights": job.id}
    first = {"model_id": "n", "dataset_path": str(service.data)}
    first["parameters"] = {"resume_weights": job.id}  # type: ignore[assignment]
    short = body | {"resume_weights": job.id[:8]}
    other = body | {"resume_weights": None, "model_type": job.id[:8]}
    sending = [("/api/training/regular", sent) for sent in (body, short, other)]
    for path, sent in (*sending, ("/train", first)):
        answer = service.post(path, sent)
        if not epochs:
            assert answer.status_code == 400
            assert "has no weights" in answer.json()["message"]
            continue
        started = answer.json().get("task_id") or answer.json()["job_id"]
        recipe = service.jobs.get(started).recipe
        assert (recipe["base"]["kind"], recipe["base"]["value"]) == ("job", job.id)
        assert recipe["name"] == job.recipe["name"]


def test_a_job_that_has_ended_can_be_deleted_whatever_its_kind(service: Service) -> None:
    training = service.start()
    other = service.jobs.create("annotation", config={}, recipe={})
    for job in (training, other):
        answer = service.call(service.app, "DELETE", f"/jobs/{job.id}")
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
        assert service.post(f"/jobs/{job.id}/cancel").json()["log_path"].endswith(f"{job.id}/log")
        assert service.call(service.app, "DELETE", f"/jobs/{job.id}").status_code == 204
        assert not service.jobs.folder(job.id).exists()
        assert service.call(service.app, "DELETE", f"/jobs/{job.id}").status_code == 404
    assert service.get("/jobs")["jobs"] == []


def test_a_long_list_comes_in_pages(service: Service) -> None:
    ids = [service.jobs.create("annotation", config={}, recipe={}).id for _ in range(5)][::-1]
    pages, before = [], ""
    while page := service.get(f"/jobs?limit=2&before={before}")["jobs"]:
        pages.append([job["job_id"] for job in page])
        before = pages[-1][-1]
    assert pages == [ids[:2], ids[2:4], ids[4:]]
    for wrong in ("limit=0", "limit=1001"):
        assert service.call(service.app, "GET", f"/jobs?{wrong}").status_code == 400
    assert service.call(service.app, "GET", f"/jobs?before={UNKNOWN}").status_code == 404


def test_a_list_can_be_of_some_statuses(service: Service) -> None:
    queued, stopped, failed = (
        service.jobs.create("annotation", config={}, recipe={}) for _ in range(3)
    )
    service.jobs.request_cancel(stopped.id)
    service.jobs.finish(failed.id, "failed", "It broke.")
    for query, wanted in (
        ("status=queued", [queued]),
        ("status=failed&status=stopped", [failed, stopped]),
        ("status=failed&status=stopped&limit=1", [failed]),
        (f"status=failed&status=stopped&before={failed.id}", [stopped]),
        ("status=running", []),
    ):
        found = [job["job_id"] for job in service.get(f"/jobs?{query}")["jobs"]]
        assert found == [job.id for job in wanted], query
    wrong = service.call(service.app, "GET", "/jobs?status=cooking")
    assert wrong.status_code == 400
    assert "'queued', 'running'" in wrong.json()["message"]


def test_an_export_is_listed_although_no_route_makes_one_yet(service: Service) -> None:
    assert service.get("/jobs?kind=export")["jobs"] == []
    job = service.jobs.create("annotation", config={}, recipe={})
    with service.jobs.database.write() as session:
        session.execute(update(Job).where(Job.id == job.id).values(kind="export"))
    assert service.get(f"/jobs/{job.id}")["kind"] == "export"
    for query in ("", "?kind=export"):
        assert [found["kind"] for found in service.get(f"/jobs{query}")["jobs"]] == ["export"]
    answer = service.call(service.app, "GET", "/jobs?kind=exports")
    assert answer.status_code == 400
    assert "must be one of training, evaluation, export, annotation" in answer.json()["message"]


def test_a_kind_that_another_version_stored_is_still_shown(service: Service) -> None:
    job = service.jobs.create("annotation", config={}, recipe={})
    with service.jobs.database.write() as session:
        session.execute(update(Job).where(Job.id == job.id).values(kind="pruning"))
    assert service.get(f"/jobs/{job.id}")["kind"] == "pruning"
    assert [found["kind"] for found in service.get("/jobs")["jobs"]] == ["pruning"]


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


def test_every_job_route_takes_a_unique_beginning_and_answers_the_whole_id(
    service: Service,
) -> None:
    job, other = service.start(), service.start()
    short = next(job.id[:n] for n in range(4, 33) if not other.id.startswith(job.id[:n]))
    for path, field in (
        (f"/train/{short}", "job_id"),
        (f"/api/training/tasks/{short}", "task_id"),
        (f"/jobs/{short}", "job_id"),
    ):
        assert service.get(path)[field] == job.id
    assert service.get(f"/jobs/{short}/logs")["logs"]
    assert service.get(f"/api/training/tasks/{short}/logs")["logs"]
    assert [found["job_id"] for found in service.get(f"/jobs?before={short}")["jobs"]] == []
    answer = service.call(service.app, "DELETE", f"/train/{short}").json()
    assert answer["job_id"] == job.id
    assert job.id in answer["message"]
    answer = service.post(f"/api/training/tasks/{other.id[:31]}/cancel").json()
    assert answer["task_id"] == other.id
    assert other.id in answer["message"]
    assert service.call(service.app, "DELETE", f"/jobs/{short}").status_code == 204
    assert [found["job_id"] for found in service.get("/jobs")["jobs"]] == [other.id]


def test_a_beginning_of_several_ids_is_refused_on_every_route(service: Service) -> None:
    job = service.start()
    twin = job.id[:31] + ("0" if job.id[31] != "0" else "1")
    other = service.start()
    with service.jobs.database.write() as session:
        session.execute(update(Job).where(Job.id == other.id).values(id=twin))
    for method, path in JOB_ROUTES:
        answer = service.call(service.app, method, path.format(job.id[:31]))
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
        assert job.id in answer.json()["message"]
        assert twin in answer.json()["message"]
    body = FORM | {"data_path": str(service.data), "resume_weights": job.id[:31]}
    assert "2 jobs begin with" in service.post("/api/training/regular", body).json()["message"]


JOB_ROUTES = [
    ("GET", "/train/{}"),
    ("DELETE", "/train/{}"),
    ("GET", "/api/training/tasks/{}"),
    ("GET", "/api/training/tasks/{}/logs"),
    ("GET", "/api/training/tasks/{}/logs?follow=true"),
    ("POST", "/api/training/tasks/{}/cancel"),
    ("GET", "/jobs/{}"),
    ("GET", "/jobs/{}/logs"),
    ("POST", "/jobs/{}/cancel"),
    ("DELETE", "/jobs/{}"),
]


@pytest.mark.parametrize(("method", "path"), JOB_ROUTES)
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
    guarded = with_middleware(create_app(service.gateway), settings)
    job = service.start()
    body = FORM | {"data_path": str(service.data)}
    changing = [
        ("POST", "/train", {"model_id": "n", "dataset_path": str(service.data)}),
        ("POST", "/api/training/regular", body),
        ("POST", "/models/fetch", {"network": "n"}),
        ("DELETE", f"/train/{job.id}", None),
        ("POST", f"/api/training/tasks/{job.id}/cancel", None),
        ("POST", f"/jobs/{job.id}/cancel", None),
        ("DELETE", f"/jobs/{job.id}", None),
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


def test_prometheus_sees_the_jobs(service: Service) -> None:
    service.start()
    service.run(service.start())
    samples = {
        (s.name, *s.labels.values()): s.value for m in gauges(service.gateway) for s in m.samples
    }
    assert samples["visionloop_jobs", "training", "queued"] == 1
    assert samples["visionloop_jobs", "training", "running"] == 1
    assert samples["visionloop_jobs", "annotation", "failed"] == 0
    assert samples["visionloop_jobs", "export", "failed"] == 0
    assert samples["visionloop_job_queue_length",] == 1
