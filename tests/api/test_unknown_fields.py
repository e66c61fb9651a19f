"""Nothing that a client says is passed over in silence: fields that no call knows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bentoml.exceptions import BadInput
from pydantic import BaseModel

from api import schemas
from api.middleware.errors import check
from api.native import Annotate, Predict, check_names
from api.training_fields import IGNORED_FIELDS, TrainingFields
from errors import ValidationFailed
from field_names import MOST_UNKNOWN, meant, unknown_sentence
from tests.support.training_app import FORM, Service

KNOWN = ["image", "image_url", "model_id", "draw_boxes", "confidence", "iou", "max_det"]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("conf", "confidence"),
        ("Conf", "confidence"),
        ("conf_thres", "confidence"),
        ("threshold", "confidence"),
        ("treshold", "confidence"),
        ("confidense", "confidence"),
        ("iou_threshold", "iou"),
        ("iuo", "iou"),
        ("file", "image"),
        ("img", "image"),
        ("url", "image_url"),
        ("imageUrl", "image_url"),
        ("weights", "model_id"),
        ("model", "model_id"),
        ("modelid", "model_id"),
        ("max_dets", "max_det"),
    ],
)
def test_aliases_and_slips_mean_acheck_namesn_field(name: str, known: str) -> None:
    assert meant(name, KNOWN) == known
    assert f"did you mean {known!r}" in unknown_sentence(name, KNOWN)


@pytest.mark.parametrize(
    "name",
    ["user_id", "session", "image_id", "imgsz", "size", "x", "", "csrf_token", "device", "注", "_"],
)
def test_what_means_nothingcheck_namesn_means_nothing(name: str) -> None:
    assert meant(name, KNOWN) is None


def test_what_a_call_does_notcheck_names_is_no_alias_there() -> None:
    assert meant("size", [*KNOWN, "imgsz"]) == "imgsz"
    assert meant("batch_size", ["batch"]) == "batch"
    assert meant("batch", ["batch_size"]) == "batch_size"
    assert meant("b64", ["image_base64"]) == "image_base64"


def refused(answer: Any, *said: str) -> None:
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert body["code"] == "VALIDATION_ERROR"
    for part in said:
        assert part in body["message"]


@pytest.mark.parametrize("value", ["0.5", "", "x"])
@pytest.mark.parametrize("path", ["/infer", "/api/auto_annotate"])
def test_a_near_miss_in_a_form_is_refused_whatever_its_value(
    service: Service, path: str, value: str
) -> None:
    fields = {"threshold": value, "tool": "object_detection"}
    data = {"threshold": value} if path == "/infer" else fields
    answer = service.post(path, data=data, files={"image": ("a.jpg", b"x")})
    refused(answer, "'threshold'", "did you mean 'confidence'")


def test_a_file_under_another_name_is_refused_by_its_name(service: Service) -> None:
    answer = service.post("/infer", files={"file": ("a.jpg", b"x")})
    refused(answer, "'file'", "did you mean 'image'")
    answer = service.post("/api/datasets", files={"zip": ("a.zip", b"x")})
    refused(answer, "'zip'", "did you mean 'file'")
    answer = service.post("/models/import", files={"weights": ("a.pt", b"x")})
    refused(answer, "'weights'", "did you mean 'file'")


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/infer/base64", {"image_base64": "aGk=", "conf": 0.5}, "did you mean 'confidence'"),
        ("/infer/base64", {"b64": "aGk="}, "did you mean 'image_base64'"),
        ("/models/active", {"model": "a"}, "did you mean 'model_id'"),
        ("/models/active", {"model_id": "a", "force": True}, "Unknown field 'force'"),
        ("/models/shadow", {"model_id": "a", "share": 0.5}, "did you mean 'fraction'"),
        ("/models/a/promote", {"gates": {}}, "did you mean 'gate'"),
        ("/models/a/promote", {"gate": {"min_gian": 0}}, "did you mean 'min_gain'"),
        ("/metrics/a/evaluate", {"data_path": "x"}, "did you mean 'dataset_path'"),
        ("/api/datasets/check", {"dataset": "x"}, "did you mean 'data_path'"),
        ("/api/datasets/check", {"data_path": "x", "cow": 1}, "Unknown field 'cow'. Known:"),
        ("/api/auto_annotate/batch", {"tool": "object_detection", "data": "x"}, "'dataset'"),
    ],
)
def test_no_body_has_an_unknown_field(
    service: Service, path: str, body: dict[str, Any], said: str
) -> None:
    refused(service.post(path, body), said)


@pytest.mark.parametrize("mode", ["regular", "incremental", "distillation", "freeze-strategy"])
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"frezee": True}, "did you mean 'use_freeze_strategy'"),
        ({"lr0": 0.1}, "did you mean 'lr0' inside 'hyper'"),
        ({"learning_rate": 0.1}, "did you mean 'lr0' inside 'hyper'"),
        ({"batch_size": 4}, "did you mean 'batch'"),
        ({"size": 320}, "did you mean 'imgsz'"),
        ({"whatever": None}, "Unknown field 'whatever'"),
    ],
)
def test_a_trainingcheck_namess_every_field(
    service: Service, mode: str, more: dict[str, Any], said: str
) -> None:
    body = FORM | {"data_path": str(service.data)} | more
    refused(service.post(f"/api/training/{mode}", body), said)
    assert not service.jobs.list("training")


def test_a_hyperparameter_ischeck_namesn_too(service: Service) -> None:
    body = FORM | {"data_path": str(service.data), "hyper": {"lr_0": 1}}
    refused(service.post("/api/training/regular", body), "did you mean 'lr0'")


def test_what_the_old_form_sends_is_passed_over(service: Service) -> None:
    assert set(FORM) - set(TrainingFields.model_fields) == IGNORED_FIELDS
    answer = service.post("/api/training/regular", FORM | {"data_path": str(service.data)})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"batch": 4}, "did you mean 'batch_size'"),
        ({"imgsz": 320}, "did you mean 'imgsz' inside 'parameters'"),
        ({"frezee": True}, "did you mean 'use_freeze_strategy' inside 'parameters'"),
        ({"lr0": 0.1}, "did you mean 'lr0' inside 'hyper'"),
        ({"trainingType": "regular"}, "Unknown field 'trainingType'"),
        ({"parameters": {"size": 320}}, "did you mean 'imgsz'"),
        ({"parameters": {"trainingType": "regular"}}, "Unknown field 'trainingType'"),
        ({"parameters": {"hyper": {"lr": 1}}}, "did you mean 'lr0'"),
    ],
)
def test_the_first_family_s_training_too(service: Service, more: dict[str, Any], said: str) -> None:
    body = {"model_id": "n", "dataset_path": str(service.data), "epochs": 1} | more
    refused(service.post("/train", body), said)
    assert not service.jobs.list("training")


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/jobs?limt=3", "did you mean 'limit'"),
        ("GET", "/jobs?per_page=3", "did you mean 'limit'"),
        ("GET", "/jobs?Kind=training", "did you mean 'kind'"),
        ("GET", "/metrics/compare?a=x&b=y&data=z", "did you mean 'dataset'"),
        ("GET", "/metrics/x/report?datset=z", "did you mean 'dataset'"),
        ("GET", "/api/datasets/x/export?fmt=coco", "did you mean 'format'"),
        ("GET", "/api/training/tasks/x/logs?folow=true", "did you mean 'follow'"),
        ("POST", "/infer?confidence=0.5", "belongs in the body"),
        ("POST", "/infer?conf=0.5", "did you mean 'confidence', in the body"),
        ("POST", "/api/datasets?task=detect", "belongs in the body"),
        ("POST", "/api/training/regular?epochs=3", "belongs in the body"),
        ("POST", "/train?whatever=3", "Unknown field 'whatever'"),
        ("DELETE", "/models/x/live/kept?img=3", "did you mean 'image'"),
    ],
)
def test_queries_too(service: Service, method: str, path: str, said: str) -> None:
    refused(service.call(service.app, method, path), said)


def test_other_tools_may_send_what_they_like(service: Service) -> None:
    for path, body in (
        ("/label-studio/setup", {"project": "1.2", "hostname": "x", "force_reload": False}),
        ("/label-studio/webhook", {"action": "PROJECT_CREATED", "conf": 1}),
        ("/v1/predict", {"conf": 1}),
        ("/api/function_invocations", {"conf": 1}),
    ):
        answer = service.post(path, body)
        assert "Unknown field" not in answer.text


LENIENT = {"Setup", "Predict", "Incoming", "Asked", "Invocation"}
"""Bodies of other tools: Label Studio, X-AnyLabeling, CVAT."""


def test_every_body_says_what_becomes_of_unknown_fields(service: Service) -> None:
    for name, model in schemas.BODIES.items():
        if name in LENIENT:
            assert getattr(model, "unknown", "pass") == "pass"
        else:
            assert issubclass(model, schemas.RequestFields), name
            noting = {"InferForm", "InferBase64", "NativeForm", "AnnotateForm"}
            noting |= {"NativeAnnotateForm"}
            assert model.unknown == ("note" if name in noting else "refuse"), name


class _Sent:
    """As much of a request as the native routes look at."""

    def __init__(self, **query: str) -> None:
        self.query_params = query
        self.url = type("URL", (), {"path": "/predict"})


@pytest.mark.parametrize("model", [Predict, Annotate])
def test_bentoml_s_own_routescheck_names_their_fields(model: type[BaseModel]) -> None:
    check_names(_Sent(), list(model.model_fields), model)  # type: ignore[arg-type]
    check_names(_Sent(), ["image", "session"], model)  # type: ignore[arg-type]
    for names, query in ((["conf"], {}), (["image"], {"confidence": "1"}), ([], {"conf": "1"})):
        with pytest.raises(BadInput, match="confidence"):
            check_names(_Sent(**query), names, model)  # type: ignore[arg-type]


def test_an_unknown_field_is_answered_in_notes() -> None:
    options = schemas.InferForm.model_validate({"session": "1", "confidence": "0.5"})
    assert options.confidence == 0.5
    assert options.notes == ["'session' is not a field of this request and was ignored."]
    body = json.dumps({"session": 1, "image_base64": "x"}).encode()
    assert len(check(schemas.InferBase64, body).notes) == 1
    with pytest.raises(ValidationFailed, match="did you mean 'confidence'"):
        check(schemas.InferBase64, b'{"conf": 0.5}')


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs?colour=red", 400),
        ("/api/annotation/queue?colour=red", 400),
        ("/jobs?_=1700000000", 200),
        ("/v1/models?colour=red", 200),
        ("/?utm_source=mail", 200),
    ],
)
def test_a_query_without_meaning_is_refused_but_for_caches_and_tools(
    service: Service, path: str, status: int
) -> None:
    answer = service.call(service.app, "GET", path)
    assert answer.status_code == status, answer.text
    assert status == 200 or "colour" in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/models/active", "GET, POST"),
        ("/api/datasets/check", "POST"),
        ("/models/x", "DELETE, GET"),
    ],
)
def test_a_405_lists_the_methods_of_the_path_itself(
    service: Service, path: str, allowed: str
) -> None:
    answer = service.call(service.app, "PATCH", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


MANY = [f"q{number}zz" for number in range(MOST_UNKNOWN + 1)]


@pytest.fixture
def nothing_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison of two names fails the test: it would block the event loop of every client."""

    def compared(one: str, other: str) -> float:
        raise AssertionError(f"{one} was compared with {other}")

    monkeypatch.setattr("field_names._closeness", compared)


@pytest.mark.usefixtures("nothing_compared")
@pytest.mark.parametrize("path", ["/infer", "/infer/base64", "/label-studio/setup", "/train"])
def test_a_query_of_many_names_is_refused_before_any_is_compared(
    service: Service, path: str
) -> None:
    answer = service.call(service.app, "POST", f"{path}?{'&'.join(MANY)}")
    refused(answer, "may have 64 parameters")


@pytest.mark.usefixtures("nothing_compared")
@pytest.mark.parametrize("path", ["/infer/base64", "/models/active", "/train", "/models/a/promote"])
def test_a_body_of_many_unknown_names_is_refused_before_any_is_compared(
    service: Service, path: str
) -> None:
    answer = service.post(path, dict.fromkeys(MANY, 1))
    refused(answer, "has 65 unknown fields, such as 'q0zz'; more than 64 are refused. Known:")


@pytest.mark.usefixtures("nothing_compared")
def test_many_extra_params_of_label_studio_are_refused_before_any_is_compared(
    service: Service,
) -> None:
    extra = dict.fromkeys(MANY, 1)
    for given in (extra, json.dumps(extra)):
        body = {"schema": "<View/>", "extra_params": given}
        refused(service.post("/label-studio/setup", body), "has 65 unknown fields")


@pytest.mark.usefixtures("nothing_compared")
@pytest.mark.parametrize("model", [Predict, Annotate])
def test_many_names_at_bentoml_s_own_routes_are_refused_before_any_is_compared(
    model: type[BaseModel],
) -> None:
    for names, query in ((MANY, {}), (["image"], dict.fromkeys(MANY, ""))):
        with pytest.raises(BadInput, match="has 65 unknown fields"):
            check_names(_Sent(**query), names, model)  # type: ignore[arg-type]


def test_of_the_errors_in_a_body_only_those_shown_are_compared(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def noted(name: str, known: Any) -> str:
        compared.append(name)
        return unknown_sentence(name, known)

    monkeypatch.setattr("api.middleware.errors.unknown_sentence", noted)
    body = {"gate": dict.fromkeys(MANY, 1)}
    refused(service.post("/models/a/promote", body), "gate: Unknown field 'q0zz'")
    assert compared == MANY[:3]


def test_every_ignored_name_is_noted() -> None:
    names = dict.fromkeys(MANY[:MOST_UNKNOWN], 1)
    options = schemas.InferForm.model_validate(names)
    assert len(options.notes) == MOST_UNKNOWN
