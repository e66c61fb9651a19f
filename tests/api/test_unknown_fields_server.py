"""Fields that no call knows, through a whole server: notes, BentoML's own routes, tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.patience import PATIENCE
from tests.support.serving import Server

NOTE = "'session' is not a field of this request and was ignored."
TOOL = {"tool": "object_detection"}


def post(server: Server, path: str, **options: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", timeout=PATIENCE, **options)


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/infer", {}), ("/predict", {}), ("/api/auto_annotate", TOOL), ("/annotate", TOOL)],
)
def test_what_had_no_effect_is_noted(
    server: Server, picture: Callable[..., bytes], path: str, fields: dict[str, str]
) -> None:
    files = {"image": ("a.jpg", picture())}
    answer = post(server, path, files=files, data=fields | {"session": "7"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["notes"] == [NOTE]
    answer = post(server, f"{path}?session=7", files=files, data=fields)
    assert answer.json()["notes"] == [NOTE]
    assert "notes" not in post(server, path, files=files, data=fields).json()
    assert NOTE in server.log.read_text()
    for wrong in ({"conf": "0.5"}, {"treshold": ""}):
        answer = post(server, path, files=files, data=fields | wrong)
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
        assert "did you mean 'confidence'" in answer.json()["message"]
    answer = post(server, f"{path}?confidence=0.5", files=files, data=fields)
    assert answer.status_code == 400
    assert "belongs in the body" in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"parameters": {}, "session": 7}, "Unknown field 'session'"),
        ({"parameter": {}}, "did you mean 'parameters'"),
    ],
)
@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_tasks_know_their_fields(server: Server, task: str, body: Any, said: str) -> None:
    answer = post(server, f"/tasks/{task}", json=body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["message"]


def test_what_a_task_is_given_is_looked_at_too(server: Server) -> None:
    body = {"parameters": {"model_id": "n", "dataset_path": "x", "frezee": True}}
    answer = post(server, "/tasks/train", json=body)
    assert answer.status_code == 400, answer.text
    assert "did you mean 'use_freeze_strategy' inside 'parameters'" in answer.json()["message"]
    answer = post(server, "/tasks/evaluate", json={"parameters": {"model_id": "n", "data": "x"}})
    assert answer.status_code == 400, answer.text
    assert "did you mean 'dataset_path'" in answer.json()["message"]
