"""Large JSON bodies: many values are refused unparsed, long ones are parsed in a thread."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from _bentoml_impl.serde import JSONSerde
from bentoml.exceptions import BadInput

from api import requests
from api.native import Predict
from api.schemas import MOST_NAMES
from api.tools.label_studio_project import LARGEST_EXTRA
from serving.large_bodies import LARGE
from tests.support.training_app import Service

MANY = "[" + ",".join(["[]"] * 700_000) + "]"


def sent(service: Service, path: str, text: str) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return service.call(service.app, "POST", path, content=text, headers=headers)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/infer/base64", "image_base64"),
        ("/v1/predict", "params"),
        ("/api/function_invocations", "image"),
        ("/label-studio/setup", "extra_params"),
        ("/label-studio/predict", "params"),
        ("/label-studio/webhook", "task"),
        ("/train", "parameters"),
        ("/models/active", "model_id"),
    ],
)
def test_a_body_of_many_values_is_not_parsed(
    service: Service, monkeypatch: pytest.MonkeyPatch, path: str, field: str
) -> None:
    parsed: list[Any] = []
    monkeypatch.setattr(requests, "check", lambda *given: parsed.append(given))
    monkeypatch.setattr("api.tools.cvat._find", lambda *_: (None, False))
    service_headers = {"Content-Type": "application/json", "x-nuclio-function-name": "a"}
    answer = service.call(
        service.app, "POST", path, content=f'{{"{field}": {MANY}}}', headers=service_headers
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert "Send less in one request." in answer.json()["message"]
    assert not parsed


def test_a_long_body_is_parsed_and_decoded_in_the_thread(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    check = requests.check

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return check(*given)

    monkeypatch.setattr(requests, "check", noted)
    for size in (10, LARGE):
        answer = sent(service, "/infer/base64", f'{{"image_base64": "{"?" * size}"}}')
        assert answer.json()["code"] == "INVALID_IMAGE_FORMAT"
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("large-bodies")


def test_an_object_of_many_names_inside_a_body_is_refused_at_once(service: Service) -> None:
    gate = dict.fromkeys(map(str, range(MOST_NAMES + 1)), 1)
    answer = service.post("/models/a/promote", {"gate": gate})
    assert answer.status_code == 400
    assert "'gate' has 1,001 names; 1,000 are allowed." in answer.json()["message"]


def test_long_extra_params_are_refused(service: Service) -> None:
    body = {"schema": "<View/>", "extra_params": " " * (LARGEST_EXTRA + 1)}
    answer = service.post("/label-studio/setup", body)
    assert answer.status_code == 400
    assert "'extra_params' has more than 65,536 characters" in answer.json()["message"]


def test_a_native_route_parses_no_long_json() -> None:
    async def body() -> bytes:
        return b'{"image": "' + b"A" * LARGE + b'"}'

    sent: Any = SimpleNamespace(query_params={}, url=SimpleNamespace(path="/predict"), body=body)
    with pytest.raises(BadInput, match="may have 256 KiB"):
        asyncio.run(JSONSerde().parse_request(sent, Predict))
