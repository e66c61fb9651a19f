"""What a Label Studio project sends: all of an event, or nothing; what was there before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from annotation.datasets import AnnotatedDatasets
from api.tools.label_studio_project import Incoming, pull, take, training_request
from database import Database
from errors import ValidationFailed
from evaluation.store import EvaluationStore
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.store import ModelStore
from serving.annotation_inbox import AnnotationInbox
from serving.tool_images import ToolImages
from settings import Settings

HOST = "http://labels.example:8080"
CONFIG = """<View><Image name="i" value="$image"/><RectangleLabels name="r" toName="i">
<Label value="box"/></RectangleLabels></View>"""
PROJECT = {"id": 7, "title": "Signs", "created_at": "2026-11-22T03:28:08Z", "label_config": CONFIG}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Any]:
    """Of a gateway the inbox, with a Label Studio that has a project of three tasks."""
    settings = Settings.model_validate(
        {"home": tmp_path, "label_studio_url": HOST, "label_studio_token": "0123"}
    )
    tasks = [task(1) | {"annotations": [annotation(11)]}, task(2) | {"annotations": []}]
    tasks.append(task(3) | {"annotations": [annotation(31), annotation(32, was_cancelled=True)]})
    answers: dict[str, Any] = {"/api/projects/7/": PROJECT, "/api/projects/7/export": tasks}

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Token 0123"
        if request.url.path not in answers:
            return httpx.Response(404)
        return httpx.Response(200, json=answers[request.url.path])

    database = Database(settings)
    store, jobs = AnnotatedDatasets(database), JobStore(database)
    evaluations = EvaluationStore(database)
    registry = Registry(database, ModelStore(tmp_path / "bento"))
    images = ToolImages(settings, httpx.MockTransport(answer))
    yield SimpleNamespace(inbox=AnnotationInbox(store, images, registry, jobs, evaluations))
    database.close()


def task(number: int) -> dict[str, Any]:
    return {"id": number, "data": {"image": f"/data/upload/{number}.jpg"}}


def annotation(number: int, **more: Any) -> dict[str, Any]:
    value = {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["box"]}
    region = {"id": "a", "type": "rectanglelabels", "value": value}
    stamp = "2026-11-22T03:29:00.000000Z"
    return {"id": number, "result": [region], "updated_at": stamp} | more


def created(annotations: list[Any], tasks: list[Any]) -> Incoming:
    return Incoming(
        action="ANNOTATIONS_CREATED", project=PROJECT, annotation=annotations, task=tasks
    )


def waiting(gateway: Any) -> list[tuple[str, str, str]]:
    return sorted((e.key, e.task, e.address) for e in gateway.inbox.store.entries.waiting())


def stored(gateway: Any) -> list[Any]:
    return list(gateway.inbox.store.entries.waiting())


def test_annotations_belong_to_the_tasks_that_they_name(gateway: Any) -> None:
    found = [annotation(21, task=2), annotation(11, task=1), annotation(12, task=1)]
    asyncio.run(take(gateway, created(found, [task(1), task(2)])))
    assert waiting(gateway) == [
        ("11", "1", "/data/upload/1.jpg"),
        ("12", "1", "/data/upload/1.jpg"),
        ("21", "2", "/data/upload/2.jpg"),
    ]


@pytest.mark.parametrize(
    ("annotations", "tasks"),
    [
        ([annotation(1), annotation(2), annotation(3)], [task(1), task(2), {"id": 3, "data": {}}]),
        ([annotation(1), annotation(2), {"id": 3}], [task(1), task(2), task(3)]),
        ([annotation(1), annotation(2)], [task(1)]),
        ([], []),
    ],
)
def test_of_an_event_that_is_not_understood_nothing_is_taken(
    gateway: Any, annotations: list[Any], tasks: list[Any]
) -> None:
    with pytest.raises(ValidationFailed):
        asyncio.run(take(gateway, created(annotations, tasks)))
    assert waiting(gateway) == []


def test_what_cannot_be_held_is_told_at_once(gateway: Any) -> None:
    brush = annotation(1, result=[{"id": "b", "type": "vectorlabels", "value": {}}])
    told = asyncio.run(take(gateway, created([brush, annotation(2)], [task(1), task(2)])))
    assert told["message"].startswith("2 annotations were stored. Annotation 1: ")
    assert "vectorlabels" in told["message"]


TWO = """<View><Image name="a" value="$left"/><Image name="b" value="$right"/>
<RectangleLabels name="r" toName="a"><Label value="box"/></RectangleLabels>
<RectangleLabels name="s" toName="b"><Label value="box"/></RectangleLabels>
<Choices name="c" toName="a"><Choice value="night"/></Choices></View>"""


def test_a_region_goes_to_the_image_that_it_is_on(gateway: Any) -> None:
    (region,) = annotation(1)["result"]
    rows = [region | {"id": str(n), "to_name": name} for n, name in enumerate("abb")]
    choice = {"id": "c", "type": "choices", "to_name": "a", "value": {"choices": ["night"]}}
    sent = created(
        [annotation(1, result=[*rows, choice, {"type": "relation"}])],
        [{"id": 1, "data": {"left": "/data/a.jpg", "right": "/data/b.jpg"}}],
    )
    sent.project = PROJECT | {"label_config": TWO}
    told = asyncio.run(take(gateway, sent))
    assert told["message"] == (
        "1 annotations were stored. Passed over: 1 × Label Studio relation results, 1 × choices "
        "for a whole image, which are not objects."
    )
    assert waiting(gateway) == [("1", "1", "/data/a.jpg"), ("1#1", "1", "/data/b.jpg")]
    kept = {e.key: [r["id"] for r in e.document["regions"]] for e in stored(gateway)}
    assert kept == {"1": ["0", "c"], "1#1": ["1", "2"]}
    gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}]}
    asyncio.run(take(gateway, Incoming(project=sent.project, **gone)))
    assert waiting(gateway) == []


def test_a_region_on_an_image_that_is_not_there_goes_to_no_image(gateway: Any) -> None:
    (region,) = annotation(1)["result"]
    lost = annotation(1, result=[region | {"to_name": "before"}])
    told = asyncio.run(take(gateway, created([lost, annotation(2)], [task(1), task(2)])))
    assert "Annotation 1: Region 'a' is on 'before'" in told["message"]
    asyncio.run(gateway.inbox.bring(again=True))
    errors = {entry.key: entry.error for entry in stored(gateway)}
    assert "is on 'before'" in errors["1"]


def test_what_was_annotated_before_the_webhook_is_pulled_once(gateway: Any) -> None:
    told = asyncio.run(pull(gateway, 7))
    assert told["message"] == "2 annotations were stored; 1 skipped annotations were ignored."
    assert [key for key, _, _ in waiting(gateway)] == ["11", "31"]
    (entry, _) = gateway.inbox.store.entries.waiting()
    asyncio.run(pull(gateway, 7))
    again = gateway.inbox.store.entries.waiting()[0]
    assert (again.key, again.dataset_id) == (entry.key, told["dataset"])
    with pytest.raises(ValidationFailed, match="404"):
        asyncio.run(pull(gateway, 8))


@pytest.mark.parametrize(
    ("family", "mode", "words"),
    [
        ("yolo", "incremental", "Incremental training from signs:1."),
        ("mobilenet", "regular", "forgets the others"),
        (None, "regular", "no classify model is active"),
    ],
)
def test_a_project_is_told_whether_the_model_forgets(
    family: str | None, mode: str, words: str
) -> None:
    dataset: Any = SimpleNamespace(options={}, id="ab12", name="Signs")
    base: Any = SimpleNamespace(id="signs:1", description=SimpleNamespace(family=family))
    request, message = training_request(dataset, "classify", base if family else None)
    assert request.mode == mode
    assert words in message
