"""`/models` in this process: a registry of small models, and runners that only take notes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from api import predictions
from api.app import create_app, with_middleware
from database import Database
from errors import BackendTimeout, BackendUnavailable, InvalidImage, ModelNotFound
from inference.cpu.engine_choice import (
    EngineTrial,
    StoredChoice,
    machine,
    onnx_digest,
    write_choice,
)
from models_store.registry import Registry
from models_store.store import ModelStore
from serving.gateway import Gateway
from settings import Settings
from tests.support.patience import PATIENCE
from tests.support.small_models import make_model

Call = Callable[..., httpx.Response]


class Notes:
    """What a runner was asked for."""

    up = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.seconds = 0.0
        self.engines: dict[str, str] = {}

    async def warm(self, tag: str) -> None:
        self.asked.append(("warm", tag))
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error

    async def unload(self, tag: str) -> None:
        self.asked.append(("unload", tag))

    async def status(self) -> dict[str, Any]:
        self.asked.append(("status", ""))
        return {"engines": self.engines, "letterboxes": dict.fromkeys(self.engines, "rect")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models") / "detect"
    make_model(found, "detect", 32)
    return found


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def gateway(tmp_path: Path, notes: Notes) -> Iterator[Gateway]:
    settings = Settings(home=tmp_path / "home", request_timeout=8)
    registry = Registry(Database(settings), ModelStore(tmp_path / "bento"))
    runners: Any = {"detector": notes, "annotator": notes}
    found = Gateway(settings, registry, runners)
    yield found
    registry.database.close()


@pytest.fixture
def app(gateway: Gateway) -> ASGIApp:
    return with_middleware(create_app(gateway), gateway.settings)


@pytest.fixture
def ids(gateway: Gateway, folder: Path) -> list[str]:
    """The active model, then two versions of another; the first is promoted."""
    source = {"kind": "import"}
    used = gateway.registry.publish(folder, "used", source).id
    first = gateway.registry.publish(folder, "other", source, promote=True).id
    second = gateway.registry.publish(folder, "other", source).id
    gateway.registry.activate(used)
    return [used, first, second]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_name_of_several_versions_deletes_none(call: Call, app: ASGIApp, ids: list[str]) -> None:
    answer = call(app, "DELETE", "/models/other")
    assert code(answer) == (400, "VALIDATION_ERROR")
    assert ids[1] in answer.json()["message"]
    assert len(call(app, "GET", "/models").json()["models"]) == 3


def test_a_deleted_version_is_dropped_by_every_runner(
    call: Call, app: ASGIApp, ids: list[str], notes: Notes
) -> None:
    assert call(app, "DELETE", f"/models/{ids[2]}").status_code == 204
    assert notes.asked == [("unload", ids[2])] * 2
    assert call(app, "GET", f"/models/{ids[2]}").status_code == 404


@pytest.mark.parametrize("final", [False, True])
def test_a_model_that_a_job_starts_from_stays(
    call: Call, app: ASGIApp, gateway: Gateway, ids: list[str], final: bool
) -> None:
    recipe = {"base": {"kind": "model", "value": ids[1]}}
    job = gateway.jobs.create("training", config={}, recipe=recipe)
    if final:
        gateway.jobs.finish(job.id, "stopped")
        assert call(app, "DELETE", f"/models/{ids[1]}").status_code == 204
    else:
        answer = call(app, "DELETE", f"/models/{ids[1]}")
        assert code(answer) == (409, "CONFLICT")
        assert job.id in answer.json()["message"]


def test_an_active_model_is_not_deleted(call: Call, app: ASGIApp, ids: list[str]) -> None:
    assert code(call(app, "DELETE", f"/models/{ids[0]}")) == (409, "CONFLICT")


@pytest.mark.parametrize("error", [None, BackendUnavailable("Starting."), BackendTimeout("Slow.")])
def test_a_model_is_activated_even_when_the_runner_has_no_time_for_it(
    call: Call, app: ASGIApp, ids: list[str], notes: Notes, error: Exception | None
) -> None:
    notes.error = error
    notes.seconds = 0 if error else PATIENCE
    answer = call(app, "POST", "/models/active", json={"model_id": ids[1]})
    assert (answer.status_code, answer.json()["active_model"]["id"]) == (200, ids[1])
    assert call(app, "GET", "/models/active").json()["active_model"]["id"] == ids[1]


def test_a_model_that_the_runner_does_not_find_is_not_activated(
    call: Call, app: ASGIApp, ids: list[str], notes: Notes
) -> None:
    notes.error = ModelNotFound("No model: it has been deleted.")
    answer = call(app, "POST", "/models/active", json={"model_id": ids[1]})
    assert code(answer) == (404, "MODEL_NOT_FOUND")
    assert call(app, "GET", "/models/active").json()["active_model"]["id"] == ids[0]


def test_engines_are_shown_and_asked_for_once(
    call: Call, app: ASGIApp, ids: list[str], notes: Notes
) -> None:
    notes.engines = {ids[0]: "onnxruntime"}
    listed = call(app, "GET", "/models").json()["models"]
    assert {model["id"]: model["engine"] for model in listed} == {
        ids[0]: "onnxruntime",
        ids[1]: None,
        ids[2]: None,
    }
    assert notes.asked == [("status", "")]
    active = call(app, "GET", "/models/active").json()["active_model"]
    assert active["engine"] == call(app, "GET", "/models/used").json()["engine"] == "onnxruntime"


def test_a_header_that_takes_long_to_read_keeps_the_event_loop_free(
    call: Call, app: ASGIApp, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def read_header(*_: object) -> None:
        threads.append(threading.current_thread())
        raise InvalidImage("No picture.")

    monkeypatch.setattr(predictions, "read_header", read_header)
    answer = call(app, "POST", "/infer", files={"image": b"x"})
    assert code(answer) == (400, "INVALID_IMAGE_FORMAT")
    assert threads
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_one_model_s_metrics_do_not_end_the_answers_for_all(
    call: Call, app: ASGIApp, gateway: Gateway, folder: Path, value: float
) -> None:
    source = {"kind": "import"}
    gateway.registry.publish(folder, "good", source, {"accuracy": 0.5})
    bad = gateway.registry.publish(folder, "bad", source, {"accuracy": value}).id
    answer = call(app, "GET", "/metrics")
    assert answer.status_code == 200
    found = {row["model_name"]: row["metrics"] for row in answer.json()["models_metrics"]}
    assert found == {"good": {"accuracy": 0.5}, "bad": {"accuracy": None}}
    for path in (f"/metrics/{bad}", "/models", f"/models/{bad}", "/v1/models"):
        assert call(app, "GET", path).status_code == 200


def test_the_choice_of_a_models_engine_is_shown(
    call: Call, app: ASGIApp, gateway: Gateway, ids: list[str]
) -> None:
    assert call(app, "GET", f"/models/{ids[0]}").json()["engines"] is None
    path = gateway.registry.get(ids[0]).path
    choice = StoredChoice(
        engine="int8",
        reason="OpenVINO int8 serves: it takes 0.50 of the time of ONNX Runtime fp32.",
        engines=[
            EngineTrial(
                engine="int8",
                usable=True,
                note="It is exact enough.",
                milliseconds={"32x32 one thread": 1.5},
                relative_time=0.5,
                metrics={"mAP50_95": 0.801},
                fp32_metrics={"mAP50_95": 0.803},
                worst_class="stop",
                worst_class_drop=0.01,
            )
        ],
        dataset="signs",
        split="val",
        calibration_images=300,
        machine=machine(gateway.settings),
        load=0.1,
        measured_at="2026-11-30T12:00:00+00:00",
        seconds=60.0,
        onnx=onnx_digest(path),
        files={"int8.xml": "x"},
    )
    write_choice(path, choice, gateway.settings)
    found = call(app, "GET", f"/models/{ids[0]}").json()["engines"]
    assert found == choice.to_json()
    assert found["engines"][0]["metrics"] == {"mAP50_95": 0.801}
    assert not {"files", "onnx"} & set(found)


def test_a_trial_of_the_engines_is_queued_once(
    call: Call, app: ASGIApp, gateway: Gateway, ids: list[str]
) -> None:
    answer = call(app, "POST", f"/models/{ids[0]}/engines")
    assert answer.status_code == 202
    started = answer.json()
    job = gateway.jobs.get(started["job_id"])
    assert (job.kind, job.status, job.base_model) == ("engine", "queued", ids[0])
    assert started == {"job_id": job.id, "model_id": ids[0], "status": "queued"}
    assert call(app, "POST", f"/models/{ids[0]}/engines").json() == started
    assert code(call(app, "POST", "/models/cats/engines")) == (404, "MODEL_NOT_FOUND")
