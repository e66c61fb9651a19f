"""What one request of a tool may multiply: tasks, messages, log lines, lists."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from annotation.preannotation import Preannotation
from api.tools import label_studio
from api.tools.label_studio import (
    CONCURRENCY,
    MESSAGE,
    MOST_ANNOTATIONS,
    MOST_CONTROLS,
    MOST_POINTS,
    MOST_TASKS,
    TASK_MESSAGE,
    Predict,
    _predictions,
)
from api.tools.xanylabeling import MOST_CLASSES
from errors import ValidationFailed, VisionLoopError
from formats.label_studio_config import parse_label_config
from serving.gateway import TOOL_TASKS
from tests.support.training_app import FORM, Service

CONFIG = """<View><Image name="i" value="$image"/><RectangleLabels name="{name}" toName="i">
<Label value="stop"/></RectangleLabels></View>"""
PLAIN = CONFIG.format(name="r")


def project() -> Preannotation:
    """A project with a share, whose model is never called."""
    share: Any = SimpleNamespace(model=SimpleNamespace(id="signs:1"))
    return Preannotation(parse_label_config(PLAIN), (share,), ())


def predicted(count: int, gateway: Any = None, project: Preannotation | None = None) -> Any:
    gateway = gateway or SimpleNamespace(tool_tasks=asyncio.Semaphore(TOOL_TASKS))
    body = Predict(tasks=[{"id": number} for number in range(count)], project="7.1")
    return _predictions(gateway, project or globals()["project"](), body, [])


def test_more_than_a_thousand_tasks_are_refused(service: Service) -> None:
    body = {"label_config": PLAIN, "tasks": [{}] * MOST_TASKS}
    assert service.post("/label-studio/predict", body).status_code == 200
    answer = service.post("/label-studio/predict", body | {"tasks": [{}] * (MOST_TASKS + 1)})
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert "'tasks' must be a list of at most 1,000 tasks" in answer.json()["message"]


def test_what_fits_no_model_is_told_once_and_shortened(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    long = CONFIG.format(name="n" * 200_000)
    body = {"label_config": long, "tasks": [{}] * 100}
    answer = service.post("/label-studio/predict", body)
    assert len(answer.json()["message"]) == MESSAGE
    assert len(answer.content) < 2 * MESSAGE + 100 * TASK_MESSAGE
    (record,) = (record for record in caplog.records if "Label Studio" in record.getMessage())
    assert len(record.getMessage()) < MESSAGE + 100


def test_tasks_that_fail_are_one_line_of_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def one(gateway: Any, project: Any, task: dict[str, Any], drawn: Any) -> dict[str, Any]:
        if task["id"] % 3 == 0:
            raise ValidationFailed("x" * 5000)
        message = "signs:1 finds no object in the image." if task["id"] % 3 == 1 else ""
        return {"result": [], "score": 0.0, "model_version": "signs:1", "message": message}

    monkeypatch.setattr(label_studio, "_one", one)
    with caplog.at_level(logging.INFO, "visionloop"):
        answer = asyncio.run(predicted(30))
    assert [row["model_version"] for row in answer["results"][:3]] == ["failed", *["signs:1"] * 2]
    assert len(answer["results"][0]["message"]) == TASK_MESSAGE
    warning, note = (record.getMessage() for record in caplog.records)
    assert "project 7.1: 10 of 30 tasks failed, the first is task 0: xxx" in warning
    assert len(warning) < TASK_MESSAGE + 100
    assert "10 of 30 tasks have no regions, the first is task 1: signs:1 finds no" in note


def test_only_some_tasks_of_a_request_and_of_all_requests_are_worked_on_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now: dict[int, int] = {}
    most: dict[str, int] = {"one": 0, "all": 0}

    async def one(gateway: Any, project: Any, task: dict[str, Any], drawn: Any) -> dict[str, Any]:
        request = id(project)
        now[request] = now.get(request, 0) + 1
        most["one"] = max(most["one"], now[request])
        most["all"] = max(most["all"], sum(now.values()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        now[request] -= 1
        return {"result": [], "score": 0.0, "model_version": "signs:1", "message": ""}

    monkeypatch.setattr(label_studio, "_one", one)

    async def story() -> None:
        gateway = SimpleNamespace(tool_tasks=asyncio.Semaphore(TOOL_TASKS))
        projects = [project() for _ in range(10)]
        found = await asyncio.gather(*(predicted(40, gateway, one) for one in projects))
        assert [len(answer["results"]) for answer in found] == [40] * 10

    asyncio.run(story())
    assert most == {"one": CONCURRENCY, "all": TOOL_TASKS}


def test_tasks_that_are_not_done_in_time_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one(gateway: Any, project: Any, task: dict[str, Any], drawn: Any) -> dict[str, Any]:
        if task["id"]:
            await asyncio.Event().wait()
        return {"result": [], "score": 0.0, "model_version": "signs:1", "message": ""}

    monkeypatch.setattr(label_studio, "_one", one)
    monkeypatch.setattr(label_studio, "TIMEOUT", 0.05)
    answer = asyncio.run(predicted(20))
    assert [row["model_version"] for row in answer["results"]] == ["signs:1", *["failed"] * 19]


def test_if_all_fail_so_does_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one(gateway: Any, project: Any, task: dict[str, Any], drawn: Any) -> dict[str, Any]:
        raise ValidationFailed("no image")

    monkeypatch.setattr(label_studio, "_one", one)
    with pytest.raises(VisionLoopError, match="no image"):
        asyncio.run(predicted(3))


def test_a_configuration_of_many_controls_is_refused(service: Service) -> None:
    control = '<RectangleLabels name="r" toName="i" model="x"><Label value="a"/></RectangleLabels>'
    config = f'<View><Image name="i" value="$image"/>{control * (MOST_CONTROLS + 1)}</View>'
    for path, body in (
        ("/label-studio/predict", {"label_config": config, "tasks": []}),
        ("/label-studio/setup", {"schema": config}),
    ):
        answer = service.post(path, body)
        assert answer.status_code == 400
        assert "has 65 controls that models can fill; 64 are allowed" in answer.json()["message"]


@pytest.mark.parametrize("context", [{"result": {"a": 1}}, {"result": ["x"]}, {"result": 1}, [1]])
def test_a_context_of_another_form_selects_nothing(service: Service, context: Any) -> None:
    body = {"label_config": PLAIN, "tasks": [{}], "params": {"context": context}}
    assert service.post("/label-studio/predict", body).status_code == 200


def test_a_drawn_region_of_many_points_is_refused(service: Service) -> None:
    region = {"type": "polygonlabels", "value": {"points": [[0, 0]] * (MOST_POINTS + 1)}}
    context = {"context": {"result": [region]}}
    answer = service.post(
        "/label-studio/predict", {"label_config": PLAIN, "tasks": [{}], "params": context}
    )
    assert answer.status_code == 400
    assert "more than 10,000 points" in answer.json()["message"]


def test_an_event_of_many_annotations_names_the_way_for_whole_projects(service: Service) -> None:
    body = {"action": "ANNOTATIONS_CREATED", "annotation": [{}] * (MOST_ANNOTATIONS + 1)}
    answer = service.post("/label-studio/webhook", body)
    assert answer.status_code == 400
    assert "POST /label-studio/pull/{project}" in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/predict", {"params": {"filter_classes": ["a"] * (MOST_CLASSES + 1)}}, "params"),
        ("/api/training/incremental", FORM | {"new_classes": ["a"] * 10_001}, "new_classes"),
        ("/api/training/incremental", FORM | {"new_classes": "a" * 100_001}, "new_classes"),
    ],
)
def test_other_lists_are_bounded_too(
    service: Service, path: str, body: dict[str, Any], field: str
) -> None:
    answer = service.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert field in answer.json()["message"]
