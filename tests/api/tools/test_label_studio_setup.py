"""What the setup of a Label Studio project stores: nothing with the use token, little with any."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from annotation.datasets import AnnotatedDatasets
from annotation.tables import AnnotatedDataset
from api.app import create_app, with_middleware
from api.tools.label_studio_project import Incoming, project_source, take
from database import Database
from dataset.store import DatasetStore
from errors import ValidationFailed
from evaluation.store import EvaluationStore
from formats.label_studio_config import LONGEST, parse_label_config
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.store import ModelStore
from serving.annotation_inbox import AnnotationInbox
from serving.tool_images import ToolImages
from settings import Settings

USE, ADMIN = "a-use-token", "an-admin-token"
CREATED = "2026-01-01T00:00:00Z"
PROJECT = "7.1767225600"
CONFIG = """<View><Image name="i" value="$image"/><RectangleLabels name="r" toName="i">
<Label value="stop"{more}/></RectangleLabels></View>"""
TRUE, FORGED = CONFIG.format(more=""), CONFIG.format(more=' predicted_values="yield"')


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {"home": tmp_path / "home", "token": USE, "admin_token": ADMIN, "disk_reserve": "1"}
    )


@pytest.fixture
def gateway(tmp_path: Path, settings: Settings) -> Iterator[Any]:
    database = Database(settings)
    store, jobs = AnnotatedDatasets(database), JobStore(database)
    registry = Registry(database, ModelStore(tmp_path / "bento"))
    images = ToolImages(settings, httpx.MockTransport(lambda _: httpx.Response(404)))
    yield SimpleNamespace(
        settings=settings,
        registry=registry,
        jobs=jobs,
        datasets=DatasetStore(settings),
        annotated=store,
        inbox=AnnotationInbox(store, images, registry, jobs, EvaluationStore(database)),
    )
    database.close()


def call(gateway: Any, method: str, path: str, token: str, body: Any = None) -> httpx.Response:
    async def send() -> httpx.Response:
        app = with_middleware(create_app(gateway), gateway.settings)
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 40000))
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, json=body, headers=headers)

    return asyncio.run(send())


def setup(gateway: Any, token: str, schema: str, project: str = PROJECT) -> httpx.Response:
    body = {"project": project, "schema": schema}
    return call(gateway, "POST", "/label-studio/setup", token, body)


def rows(gateway: Any) -> int:
    with gateway.inbox.store.database.read() as session:
        return int(session.scalar(select(func.count()).select_from(AnnotatedDataset)))


def stored(gateway: Any) -> Any:
    return gateway.inbox.store.find(f"label_studio:{PROJECT}")


def test_the_use_token_does_not_change_what_a_label_means(gateway: Any) -> None:
    assert setup(gateway, ADMIN, TRUE).status_code == 200
    answer = setup(gateway, USE, FORGED)
    assert answer.status_code == 200
    assert "admin token" in answer.json()["message"]
    assert stored(gateway).options["label_config"] == TRUE


def test_the_use_token_adds_no_project(gateway: Any) -> None:
    for number in range(3):
        assert setup(gateway, USE, TRUE, f"x{number}").status_code == 200
    assert rows(gateway) == 0


def test_the_admin_token_stores_the_configuration_and_is_told_where(gateway: Any) -> None:
    answer = setup(gateway, ADMIN, TRUE).json()
    assert "admin token" not in answer["message"]
    assert answer["dataset"] == stored(gateway).id


def test_a_project_without_annotations_can_be_deleted(gateway: Any) -> None:
    known = setup(gateway, ADMIN, TRUE).json()["dataset"]
    folder = gateway.annotated.folder(known)
    folder.mkdir(parents=True)
    (folder / "image.jpg").write_bytes(b"an image of a project that was never built")
    path = f"/api/datasets/{known}"
    assert call(gateway, "DELETE", path, USE).status_code == 403
    assert call(gateway, "DELETE", path, ADMIN).status_code == 204
    assert rows(gateway) == 0
    assert not folder.exists()
    assert call(gateway, "DELETE", path, ADMIN).status_code == 404


@pytest.mark.parametrize("token", [USE, ADMIN])
def test_a_huge_configuration_is_refused(gateway: Any, token: str) -> None:
    long = TRUE.replace("<View>", f"<View><!--{'x' * LONGEST}-->")
    answer = setup(gateway, token, long)
    assert answer.status_code == 400
    assert "256 KiB" in answer.json()["message"]
    assert rows(gateway) == 0


def test_a_huge_configuration_stored_by_a_version_before_is_still_read() -> None:
    long = TRUE.replace("<View>", f"<View><!--{'x' * LONGEST}-->")
    assert parse_label_config(long).controls[0].labels_of(["stop"]) == {"stop": "stop"}


@pytest.mark.parametrize("action", ["PROJECT_UPDATED", "ANNOTATION_CREATED"])
def test_an_event_with_a_huge_configuration_stores_nothing(gateway: Any, action: str) -> None:
    setup(gateway, ADMIN, TRUE)
    long = TRUE.replace("<View>", f"<View><!--{'ä' * (LONGEST // 2)}-->")  # counted in bytes
    project = {"id": 7, "created_at": CREATED, "title": "Signs", "label_config": long}
    event = Incoming(action=action, project=project, annotation={"id": 1}, task={"id": 1})
    with pytest.raises(ValidationFailed, match="256 KiB"):
        asyncio.run(take(gateway, event))
    assert stored(gateway).options["label_config"] == TRUE


@pytest.mark.parametrize("number", ["7" * 200, {"a": 1}])
def test_a_project_needs_a_plain_id(number: Any) -> None:
    with pytest.raises(ValidationFailed, match="id"):
        project_source({"id": number, "created_at": CREATED})


def test_the_reserve_of_the_disk_is_kept(gateway: Any, settings: Settings) -> None:
    setup(gateway, ADMIN, TRUE)
    gateway.settings = settings.model_copy(update={"disk_reserve": 2**60})
    again = setup(gateway, ADMIN, TRUE)  # nothing is written
    assert again.status_code == 200
    changed = setup(gateway, ADMIN, FORGED)
    assert (changed.status_code, changed.json()["code"]) == (507, "INSUFFICIENT_STORAGE")
    assert stored(gateway).options["label_config"] == TRUE
