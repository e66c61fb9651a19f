"""What is wrong with a request for a training is said, and nothing is queued."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.training_app import FORM, Service


def _second(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/api/training/regular", {"data_path": "DATA"} | fields


def _staged(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/api/training/freeze-strategy", {"data_path": "DATA"} | fields


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
        (_second(epochs=True), 400, "'epochs' must be a whole number"),
        (
            ("/api/training/distillation", {"data_path": "DATA", "distill_temperature": True}),
            400,
            "'distill_temperature' must be",
        ),
        (_second(hyper={"lr0": True}), 400, "lr0"),
        (_first(batch_size=True), 400, "'batch_size' must be"),
        (_second(epochs="many"), 400, "'epochs'"),
        (_second(epochs=10**9), 400, "'epochs'"),
        (_second(imgsz=8), 400, "from 32"),
        (_second(batch=0), 400, "'batch' must be"),
        (_second(patience=-1), 400, "'patience' must be"),
        (_staged(min_epochs_per_stage=0), 400, "'min_epochs_per_stage'"),
        (_staged(use_freeze_strategy="perhaps"), 400, "true or false"),
        (
            _first(parameters={"mode": "freeze_strategy", "min_epochs_per_stage": 0}),
            400,
            "'min_epochs_per_stage'",
        ),
        (_second(model_type="no_such_model"), 404, "no_such_model"),
        (_second(model_type="yolov8q"), 400, "yolov8q"),
        (_second(resume_weights="/etc/passwd"), 403, ""),
        (_second(hyper={"save_dir": "/"}), 400, "save_dir"),
        (_second(hyper={"lr0": "x"}), 400, "lr0"),
        (_second(hyper={"lr0": 10**400}), 400, "lr0"),
        (_second(data_path="a\0b"), 400, "'data_path' is not plain Unicode"),
        (_second(resume_weights="\0"), 400, "'resume_weights' is not plain Unicode"),
        (("/api/training/regular", []), 400, "JSON object"),
        (("/api/training/incremental", {"data_path": "DATA"}), 400, "base_model_path is missing"),
        (("/api/training/distillation", {"data_path": "DATA"}), 400, "teacher_model_path"),
        (_first(parameters={"mode": [1, 2]}), 400, "mode"),
        (_first(parameters={"mode": "distillation"}), 400, "teacher_model_path"),
        (
            ("/api/training/distillation", {"data_path": "DATA", "distill_cls_weight": 1e30}),
            400,
            "a number from 0 to 1000",
        ),
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
        (_first(parameters={"imgz": 64}), 400, "Unknown field 'imgz': did you mean 'imgsz'?"),
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


@pytest.mark.parametrize("path", ["/api/training/regular", "/train"])
def test_what_belongs_to_other_modes_is_not_looked_at(service: Service, path: str) -> None:
    foreign = {"min_epochs_per_stage": 0, "distill_temperature": 0, "replay_ratio": "x"}
    foreign |= {"new_classes": 7, "project": 12}
    body: dict[str, Any] = {"data_path": str(service.data), **foreign}
    if path == "/train":
        body = {"model_id": "n", "dataset_path": str(service.data), "parameters": foreign}
    answer = service.post(path, body)
    assert answer.status_code == 200
    assert service.jobs.list()[0].recipe["min_epochs_per_stage"] == 15
    named = "min_epochs_per_stage, distill_temperature, replay_ratio, new_classes"
    assert f"{named} have no effect in mode regular." in answer.json()["notes"]


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({}, None),  # the form of the old clients sends the fields of every mode
        ({"replay_ratio": "0.20", "enable_consistency": "False"}, None),
        ({"teacher_model_path": "signs"}, "teacher_model_path has no effect in mode regular."),
    ],
)
def test_what_was_meant_for_another_mode_is_told(
    service: Service, fields: dict[str, Any], note: str | None
) -> None:
    body = {**FORM, "data_path": str(service.data), "model_type": "n", **fields}
    notes = service.post("/api/training/regular", body).json()["notes"]
    told = [line for line in notes if "no effect" in line]
    assert told == ([note] if note else [])


def test_the_stage_length_of_the_old_form_is_lowered_and_the_answer_says_so(
    service: Service,
) -> None:
    body = {**FORM, "data_path": str(service.data), "model_type": "n"}
    answer = service.post("/api/training/freeze-strategy", body)
    assert answer.status_code == 200, answer.text
    assert any("min_epochs_per_stage is 5" in note for note in answer.json()["notes"])
    assert service.jobs.list()[0].recipe["min_epochs_per_stage"] == 5


def test_a_body_that_is_not_json(service: Service) -> None:
    text = service.call(service.app, "POST", "/train", content=b"{}")
    assert (text.status_code, text.json()["code"]) == (400, "VALIDATION_ERROR")
    headers = {"Content-Type": "application/json"}
    broken = service.call(service.app, "POST", "/train", content=b"{", headers=headers)
    assert "not valid JSON" in broken.json()["message"]


@pytest.mark.parametrize("there", [True, False])
def test_a_yaml_that_would_download_is_refused_with_the_remedy(
    service: Service, there: bool
) -> None:
    text = service.data.read_text() if there else "train: nowhere\nval: nowhere\nnames: [a]\n"
    evil = service.data.with_name("evil.yaml")
    evil.write_text(text + "download: https://x/evil.sh\n")
    answer = service.post("/api/training/regular", {"data_path": str(evil)})
    assert (answer.status_code, answer.json()["code"]) == (400, "DATASET_INVALID")
    assert "Put the data in place yourself and remove the key" in answer.json()["message"]
    assert service.jobs.list() == []


@pytest.fixture
def two_jobs_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_JOBS_PER_TOKEN", "2")


def test_too_many_jobs_of_a_caller_get_a_429_that_says_how_to_cancel(
    two_jobs_each: None, service: Service
) -> None:
    body = {"data_path": str(service.data)}
    answers = [service.post("/api/training/regular", body) for _ in range(3)]
    assert [answer.status_code for answer in answers[:2]] == [200, 200], answers[0].text
    assert answers[2].status_code == 429
    assert answers[2].json()["code"] == "RATE_LIMITED"
    assert int(answers[2].headers["Retry-After"]) == 60
    message = answers[2].json()["message"]
    path = message[message.index("/jobs/") :].rstrip(".")
    assert service.post(path).status_code == 200
    assert service.post("/api/training/regular", body).status_code == 200


@pytest.mark.parametrize(
    ("name", "published"),
    [("Signs", None), ("Meine Schilder", "meine-schilder"), ("猫", "model-a810bf")],
)
def test_a_name_that_models_cannot_have_is_changed_and_told(
    service: Service, name: str, published: str | None
) -> None:
    body = {**FORM, "data_path": str(service.data), "model_type": "n", "name": name}
    notes = service.post("/api/training/regular", body).json()["notes"]
    assert any(f"The model is named '{published}', not" in note for note in notes) is bool(
        published
    )
    assert service.jobs.list()[0].model_name == (published or "signs")
