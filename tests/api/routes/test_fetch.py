"""`POST /models/fetch`, and the notes of a started training."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.training_app import FORM, Service


@pytest.fixture
def fetching(service: Service) -> Service:
    registry = service.gateway.registry
    changed = {"allow_download": "auto", "download_url": "http://mirror.example/weights"}
    registry.settings = registry.settings.model_copy(update=changed)
    return service


def test_a_job_is_queued_and_says_what_it_will_do(fetching: Service) -> None:
    answer = fetching.post("/models/fetch", {"network": "YOLO11n.pt", "activate": True})
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["status"] == "queued"
    assert body["notes"] == ["yolo11n.pt will be fetched from mirror.example."]
    job = fetching.get(f"/jobs/{body['job_id']}")
    assert (job["kind"], job["status"], job["task"]) == ("fetch", "queued", "detect")
    assert (job["base_model"], job["model_name"]) == ("yolo11n", "yolo11n-coco")
    assert job["config"] == {"network": "YOLO11n.pt", "activate": True}
    assert [one["job_id"] for one in fetching.get("/jobs?kind=fetch")["jobs"]] == [job["job_id"]]
    assert fetching.get("/train")["jobs"] == []
    assert fetching.post(f"/jobs/{job['job_id']}/cancel").json()["status"] == "stopped"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"network": "yolov7n"}, "Known are yolov8, yolov9, yolov10, yolo11, yolo12 and yolo26"),
        ({"network": "rtdetr-l"}, "RT-DETR is not supported"),
        ({}, "'network'"),
        ({"network": "yolo11n", "activte": True}, "did you mean"),
    ],
)
def test_what_cannot_be_fetched_is_refused(fetching: Service, body: Any, reason: str) -> None:
    answer = fetching.post("/models/fetch", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert reason in answer.json()["message"]
    assert fetching.jobs.list() == []


def test_never_is_a_403(service: Service) -> None:
    answer = service.post("/models/fetch", {"network": "yolo11n"})
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert "VISIONLOOP_ALLOW_DOWNLOAD=never" in answer.json()["message"]
    assert service.jobs.list() == []


def test_both_families_are_told_what_a_training_starts_from(fetching: Service) -> None:
    note = "No yolov8n weights here: they will be fetched, else it starts from scratch."
    form = FORM | {"data_path": str(fetching.data)}
    assert fetching.post("/api/training/regular", form).json()["notes"] == [note]
    first = {"model_id": "n", "dataset_path": str(fetching.data), "epochs": 1, "batch_size": 2}
    answer = fetching.post("/train", first)
    assert answer.status_code == 200, answer.text
    assert answer.json()["notes"] == [note]
    task = fetching.get(f"/api/training/tasks/{answer.json()['job_id']}")
    assert task["config"]["resolved"]["base"] == {"kind": "download", "from": "yolov8n.pt"}
    assert task["config"]["resolved"]["notes"] == [note]
