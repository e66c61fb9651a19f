"""`/api/datasets` and the choosing of files, in this process."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.types import ASGIApp

from annotation.datasets import AnnotatedDatasets
from annotation.uploads.upload import add_upload
from api.app import create_app, with_middleware
from api.routes import local_files
from database import Database
from dataset.store import DatasetStore
from errors import DatasetNotFound, Forbidden, ValidationFailed
from files import PARTIAL
from models_store.description import Task
from settings import Settings
from tests.support.shapes import write_shapes

Call = Callable[..., httpx.Response]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return Settings(home=tmp_path / "home", data_roots=(tmp_path / "data",), max_upload_mb=1)


@pytest.fixture
def store(settings: Settings) -> DatasetStore:
    return DatasetStore(settings)


@pytest.fixture
def jobs() -> list[Any]:
    """What runs."""
    return []


@pytest.fixture
def app(settings: Settings, store: DatasetStore, jobs: list[Any]) -> ASGIApp:
    listing = SimpleNamespace(list=lambda *_: jobs)
    gateway: Any = SimpleNamespace(
        settings=settings,
        datasets=store,
        jobs=listing,
        annotated=AnnotatedDatasets(Database(settings)),
    )
    return with_middleware(create_app(gateway), settings)


@pytest.fixture
def zipped(tmp_path: Path) -> Callable[..., bytes]:
    """A drawn data set as a zip, in a folder of its own as people pack it."""

    def pack(task: Task = "detect", spoil: Callable[[Path], None] | None = None) -> bytes:
        folder = tmp_path / f"drawn-{task}"
        write_shapes(folder, task, 6, 3, imgsz=48)
        if spoil is not None:
            spoil(folder)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, Path("shapes", path.relative_to(folder)))
        return buffer.getvalue()

    return pack


def upload(call: Call, app: ASGIApp, data: bytes, **fields: str) -> httpx.Response:
    files = {"file": ("My Shapes.zip", data)}
    return call(app, "POST", "/api/datasets", files=files, data=fields)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify"])
def test_an_upload_is_listed_described_shown_and_deleted(
    call: Call, app: ASGIApp, store: DatasetStore, zipped: Callable[..., bytes], task: Task
) -> None:
    answer = upload(call, app, zipped(task))
    assert answer.status_code == 201
    card = answer.json()
    assert card["id"].startswith("my-shapes-")
    assert (card["task"], card["usable"], card["problems"]) == (task, True, [])
    assert card["splits"]["train"]["images"] == 6
    assert sum(row["train"] for row in card["class_counts"]) >= 6
    assert card["image_size"] == {
        "min_width": 48,
        "max_width": 48,
        "min_height": 48,
        "max_height": 48,
    }
    assert call(app, "GET", f"/api/datasets/{card['id']}").json() == card
    assert call(app, "GET", "/api/datasets").json() == {"datasets": [card]}
    sheet = call(app, "GET", f"/api/datasets/{card['id']}/sheet.png?split=val&count=4")
    assert sheet.headers["content-type"] == "image/png"
    pixels = np.asarray(Image.open(io.BytesIO(sheet.content)).convert("RGB"))
    assert pixels.shape == (230, 624, 3)
    assert pixels.std() > 20
    assert store.resolve(card["id"]).exists()
    assert call(app, "DELETE", f"/api/datasets/{card['id']}").status_code == 204
    assert code(call(app, "GET", f"/api/datasets/{card['id']}")) == (404, "DATASET_NOT_FOUND")
    assert os.listdir(store.folder) == os.listdir(store.staging) == []


def test_what_is_wrong_with_an_upload_can_be_read(
    call: Call, app: ASGIApp, zipped: Callable[..., bytes]
) -> None:
    def spoil(folder: Path) -> None:
        (folder / "labels/train/0000.txt").write_text("9 .5 .5 .1 .1\nx\n")
        (folder / "labels/train/0001.txt").unlink()

    card = upload(call, app, zipped(spoil=spoil)).json()
    assert not card["usable"]
    assert [problem["kind"] for problem in card["problems"]] == [
        "class_id",
        "missing_label",
        "malformed_line",
    ]
    assert "labels/train/0000.txt line 1: class id 9" in card["problems"][0]["message"]
    assert card["splits"]["train"]["unlabelled"] == 2


@pytest.mark.parametrize(
    ("data", "fields", "expected"),
    [
        (b"no zip", {}, (400, "DATASET_INVALID")),
        (b"", {}, (400, "DATASET_INVALID")),
        (b"\0" * 2**21, {}, (413, "PAYLOAD_TOO_LARGE")),
        (b"x", {"task": "draw"}, (400, "VALIDATION_ERROR")),
        (b"x", {"name": "x" * 101}, (400, "VALIDATION_ERROR")),
    ],
)
def test_a_refused_upload_leaves_nothing(
    call: Call,
    app: ASGIApp,
    store: DatasetStore,
    data: bytes,
    fields: dict[str, str],
    expected: tuple[int, str],
) -> None:
    assert code(upload(call, app, data, **fields)) == expected
    for folder in (store.folder, store.staging):
        assert not folder.exists() or os.listdir(folder) == []


def test_an_upload_without_a_description_says_what_it_needs(call: Call, app: ASGIApp) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "x")
    assert "data.yaml" in upload(call, app, buffer.getvalue()).json()["message"]
    answer = call(app, "POST", "/api/datasets", data={"task": "detect"})
    assert code(answer) == (400, "NO_FILE_UPLOADED")


def test_a_failure_half_way_is_never_seen(
    store: DatasetStore, zipped: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        assert store.list() == []
        raise OSError("disk full")

    monkeypatch.setattr("annotation.uploads.upload.report", fail)
    with pytest.raises(OSError, match="disk full"):
        add_upload(store, io.BytesIO(zipped()), "x")
    assert os.listdir(store.folder) == os.listdir(store.staging) == []


def test_what_a_killed_server_left_is_cleared_away_at_the_next_upload(
    store: DatasetStore, zipped: Callable[..., bytes]
) -> None:
    for name in (f"{PARTIAL}killed", "mine"):
        (store.staging / name / "content").mkdir(parents=True)
    with store.staged() as uploading:
        add_upload(store, io.BytesIO(zipped()), "x")
        assert sorted(os.listdir(store.staging)) == sorted([uploading.parent.name, "mine"])
    assert os.listdir(store.staging) == ["mine"]


@pytest.mark.parametrize(
    "recipe",
    [
        lambda path: {"dataset": path},
        lambda path: {"dataset": "/elsewhere", "incremental": {"old_data": path}},
        lambda path: {"dataset": "/elsewhere", "more": [{"data": path}]},
    ],
)
def test_a_data_set_in_use_stays(
    call: Call,
    app: ASGIApp,
    store: DatasetStore,
    jobs: list[Any],
    zipped: Callable[..., bytes],
    recipe: Callable[[str], dict[str, Any]],
) -> None:
    card = upload(call, app, zipped()).json()
    path = store.resolve(card["id"])
    assert store.resolve(str(store.folder / card["id"])) == path
    jobs.append(SimpleNamespace(id="j1", recipe=recipe(str(path))))
    assert code(call(app, "DELETE", f"/api/datasets/{card['id']}")) == (409, "CONFLICT")
    jobs.clear()
    assert call(app, "DELETE", f"/api/datasets/{card['id']}").status_code == 204


def test_data_on_the_server_can_be_checked_by_path(
    call: Call, app: ASGIApp, tmp_path: Path
) -> None:
    file = write_shapes(tmp_path / "data" / "shapes", "segment", 4, 2, imgsz=32)
    for path in (str(file), str(file.parent), "shapes", "shapes/data.yaml"):
        answer = call(app, "POST", "/api/datasets/check", json={"data_path": path, "task": ""})
        assert (answer.json()["task"], answer.json()["usable"]) == ("segment", True)
    for path, expected in {
        "/etc": (403, "FORBIDDEN"),
        "../../etc": (403, "FORBIDDEN"),
        "other": (404, "DATASET_NOT_FOUND"),
        "C:\\data\\data.yaml": (404, "DATASET_NOT_FOUND"),
        "a\0b": (400, "VALIDATION_ERROR"),
        "": (400, "VALIDATION_ERROR"),
    }.items():
        assert code(call(app, "POST", "/api/datasets/check", json={"data_path": path})) == expected


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("no-such-thing", DatasetNotFound),
        ("/etc/passwd", Forbidden),
        ("../database", Forbidden),
        ("", ValidationFailed),
        ("a\0", ValidationFailed),
    ],
)
def test_references_are_resolved_inside_the_roots(
    store: DatasetStore, reference: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        store.resolve(reference)


def test_files_are_listed_from_the_roots_down(call: Call, app: ASGIApp, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "signs").mkdir()
    (data / "signs" / "data.yaml").write_text("names: [a]\n")
    (data / "signs" / "best.pt").write_bytes(b"12")
    (data / "signs" / ".hidden.yaml").touch()
    (data / "out").symlink_to("/etc")
    (data / "self").symlink_to("self")

    def listed(**query: str) -> dict[str, Any]:
        return dict(call(app, "GET", local_files.SELECT, params=query).json())

    top = listed(file_type="dataset")
    assert (top["path"], top["root"]) == (None, str(data))  # the datasets folder is not there yet
    assert [entry["name"] for entry in top["entries"]] == ["signs"]
    below = listed(file_type="dataset", dir=top["entries"][0]["path"])
    assert below["entries"] == [
        {"name": "data.yaml", "path": f"{data}/signs/data.yaml", "type": "file", "size": 11}
    ]
    models = listed(file_type="model", dir=str(data / "signs"))
    assert [entry["name"] for entry in models["entries"]] == ["best.pt"]
    for folder, expected in {
        "/etc": (403, "FORBIDDEN"),
        f"{data}/../..": (403, "FORBIDDEN"),
        f"{data}/out": (403, "FORBIDDEN"),
        f"{data}/none": (404, "NOT_FOUND"),
    }.items():
        assert code(call(app, "GET", local_files.SELECT, params={"dir": folder})) == expected
    assert code(call(app, "GET", local_files.SELECT, params={"file_type": "x"})) == (
        400,
        "VALIDATION_ERROR",
    )


@pytest.mark.parametrize(
    ("chosen", "answer"),
    [
        ("data/a.yaml", {"path": "{tmp}/data/a.yaml"}),
        (None, {"path": None}),
        ("/etc/passwd", {"code": "FORBIDDEN"}),
    ],
)
def test_a_dialog_answers_the_path_if_it_may(
    call: Call,
    app: ASGIApp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: str | None,
    answer: dict[str, str | None],
) -> None:
    async def ask(_: str) -> str | None:
        return str(tmp_path / chosen) if chosen else None

    monkeypatch.setattr(local_files, "ask", ask)
    monkeypatch.setattr(local_files, "has_desktop", lambda: True)
    body = call(app, "GET", local_files.SELECT).json()
    for key, value in answer.items():
        assert body[key] == (value.format(tmp=tmp_path) if value else None)


@pytest.mark.parametrize(
    ("host", "headers", "local"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("10.0.0.5", {}, False),
        ("127.0.0.1", {"x-forwarded-for": "10.0.0.5"}, False),
        ("127.0.0.1", {"sec-fetch-site": "same-site"}, True),
        ("127.0.0.1", {"sec-fetch-site": "cross-site"}, False),
        ("localhost.example", {}, False),
    ],
)
def test_only_who_sits_at_the_machine_is_asked(
    host: str, headers: dict[str, str], local: bool
) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "client": (host, 1), "headers": raw})
    assert local_files.is_local(request) is local


def test_administration_needs_the_admin_token(
    call: Call, settings: Settings, store: DatasetStore
) -> None:
    guarded = Settings.model_validate(
        settings.model_dump() | {"token": "user", "admin_token": "admin"}
    )
    gateway: Any = SimpleNamespace(settings=guarded, datasets=store)
    app = with_middleware(create_app(gateway), guarded)
    bearer = {"Authorization": "Bearer user"}
    assert call(app, "GET", "/api/datasets", headers=bearer).json() == {"datasets": []}
    for method, path in (
        ("POST", "/api/datasets"),
        ("POST", "/api/datasets/check"),
        ("DELETE", "/api/datasets/x"),
        ("GET", local_files.SELECT),
    ):
        answer = call(app, method, path, headers=bearer, json={"data_path": "x"})
        assert code(answer) == (403, "FORBIDDEN")
