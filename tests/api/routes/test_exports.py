"""Exports over HTTP, in this process; the jobs that they start are not run here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from filelock import FileLock
from starlette.types import ASGIApp

from api.app import create_app, with_middleware
from database import Database
from engines.job import run_export
from engines.store import ExportStore
from engines.submission import ExportRecipe
from jobs.job import Job
from models_store.registry import Registry
from models_store.store import ModelStore
from serving.gateway import Gateway
from settings import Settings, get_settings
from tests.support.patience import PATIENCE
from tests.support.small_models import make_model
from tests.support.trainer_job import RecordingJob

Call = Callable[..., httpx.Response]


class _Runner:
    """A runner that has nothing to do."""

    up = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models") / "detect"
    make_model(found, "detect", 32)
    return found


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    settings = Settings(
        home=tmp_path / "home",
        device="cpu",
        request_timeout=PATIENCE,
        import_timeout=PATIENCE,
        token="use",
        admin_token="admin",
    )
    registry = Registry(Database(settings), ModelStore(tmp_path / "bento"))
    runners: Any = dict.fromkeys(("detector", "annotator"), _Runner())
    yield Gateway(settings, registry, runners)
    registry.database.close()


@pytest.fixture
def app(gateway: Gateway) -> ASGIApp:
    return with_middleware(create_app(gateway), gateway.settings)


@pytest.fixture
def model(gateway: Gateway, folder: Path) -> str:
    return gateway.registry.publish(folder, "small", {"kind": "import"}).id


@pytest.fixture
def ask(call: Call, app: ASGIApp) -> Call:
    def request(method: str, path: str, token: str = "admin", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} | options.pop("headers", {})
        return call(app, method, path, headers=headers, **options)

    return request


def only(gateway: Gateway) -> Job:
    [job] = gateway.jobs.list("export")
    return job


def finish(gateway: Gateway, tmp_path: Path) -> None:
    """Do the one job that waits, as its worker would."""
    job = only(gateway)
    run_export(
        ExportRecipe.model_validate(job.recipe), RecordingJob(tmp_path / "job"), gateway.registry
    )
    gateway.jobs.finish(job.id, "completed")


def test_an_export_is_a_job_and_then_a_file(
    ask: Call, gateway: Gateway, model: str, tmp_path: Path
) -> None:
    wanted = {"format": "onnx", "max_batch": 2}
    started = ask("POST", f"/models/{model}/export", json=wanted)
    assert started.status_code == 202
    answer = started.json()
    assert (answer["status"], answer["model_id"]) == ("queued", model)
    told = answer["message"].partition("download it: GET ")[2]
    assert told == f"/models/{model}/download?format=onnx&max_batch=2"
    job = ask("GET", f"/jobs/{answer['job_id']}").json()
    assert (job["kind"], job["mode"], job["base_model"]) == ("export", "onnx", model)
    assert job["config"]["resolved"]["max_batch"] == 2

    again = ask("POST", "/models/small/export", json=wanted | {"precision": "fp32", "imgsz": 32})
    assert (again.status_code, again.json()["job_id"]) == (202, answer["job_id"])
    early = ask("GET", f"/models/{model}/download?format=onnx&max_batch=2")
    assert (early.status_code, early.json()["code"]) == (409, "CONFLICT")
    assert answer["job_id"] in early.json()["message"]

    finish(gateway, tmp_path)
    done = ask("POST", f"/models/{model}/export", json=wanted)
    assert done.status_code == 200
    exported = done.json()["exported"]
    assert done.json()["job_id"] is None
    assert exported["id"] == "onnx-fp32-32-batch2"
    assert exported["parity"]["max_box_error_px"] <= exported["parity"]["allowed_box_error_px"]
    assert ask("GET", f"/models/{model}/exports", token="use").json() == {
        "model_id": model,
        "exports": [exported],
    }
    file = ask("GET", told)
    assert file.status_code == 200
    assert file.headers["content-length"] == str(len(file.content)) == str(exported["size_bytes"])
    assert hashlib.sha256(file.content).hexdigest() == exported["sha256"]
    assert file.headers["etag"] == f'"{exported["sha256"]}"'
    assert file.headers["content-disposition"] == f'attachment; filename="{exported["file"]}"'
    onnx.load_from_string(file.content)


def test_an_archive_needs_no_job_and_follows_the_metrics(
    ask: Call, gateway: Gateway, model: str
) -> None:
    def downloaded() -> dict[str, Any]:
        answer = ask("GET", "/models/small/download?format=archive")
        assert answer.status_code == 200
        with zipfile.ZipFile(BytesIO(answer.content)) as archive:
            return dict(json.loads(archive.read("manifest.json")))

    assert downloaded()["metrics"] is None
    gateway.registry.set_metrics(model, {"accuracy": 0.5})
    assert downloaded()["metrics"] == {"accuracy": 0.5}
    assert gateway.jobs.list("export") == []


def test_onnx_needs_no_job_and_the_child_process_makes_it(ask: Call, model: str) -> None:
    answer = ask("GET", f"/models/{model}/download?format=onnx")
    assert answer.status_code == 200, answer.text
    props = {p.key: p.value for p in onnx.load_from_string(answer.content).metadata_props}
    assert props["names"] == "{0: 'round', 1: 'square', 2: 'star'}"
    [exported] = ask("GET", f"/models/{model}/exports").json()["exports"]
    assert exported["id"] == "onnx-fp32-32"


def test_downloads_of_one_file_wait_for_it_together_and_others_come_again(
    app: ASGIApp, model: str
) -> None:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": "Bearer admin"}
        base = f"http://localhost/models/{model}"
        async with httpx.AsyncClient(
            transport=transport, base_url=base, headers=headers, timeout=PATIENCE
        ) as client:
            paths = ("/download?format=onnx", "/download?format=pt") * 2
            return await asyncio.gather(*map(client.get, paths))

    onnx_file, pt_file, onnx_again, pt_again = asyncio.run(run())
    pairs = [(onnx_file, onnx_again), (pt_file, pt_again)]
    codes = sorted([first.status_code, second.status_code] for first, second in pairs)
    assert codes == [[200, 200], [503, 503]]
    refused = onnx_file if onnx_file.status_code == 503 else pt_file
    assert refused.json()["code"] == "BACKEND_UNAVAILABLE"
    assert refused.headers["retry-after"] == "10"


def test_a_download_comes_again_while_another_gateway_process_makes_a_file(
    ask: Call, model: str
) -> None:
    path = f"/models/{model}/download?format=pt"
    locks = get_settings().paths.locks
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "download.lock"):
        answer = ask("GET", path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert ask("GET", path).status_code == 200


def test_parts_and_unchanged_files(ask: Call, model: str) -> None:
    path = f"/models/{model}/download?format=archive"
    whole = ask("GET", path)
    part = ask("GET", path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    end = ask("GET", path, headers={"Range": "bytes=-5"})
    assert (end.status_code, end.content) == (206, whole.content[-5:])
    odd_ranges = (
        "bytes=99999999999-",
        "bytes=5-2",
        "bytes=-0",
        "lines=1-2",
        "bytes=a-b",
        "bytes=-",
    )
    for odd in (*odd_ranges, f"bytes={'9' * 5000}-", f"bytes=-{'9' * 5000}", "bytes=0-1,4-5"):
        answer = ask("GET", path, headers={"Range": odd})
        assert (answer.status_code, answer.content) == (200, whole.content), odd
    for known in (whole.headers["etag"], f'"other", W/{whole.headers["etag"]}', "*"):
        same = ask("GET", path, headers={"If-None-Match": known})
        assert (same.status_code, same.content) == (304, b""), known
    assert ask("GET", path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "'format'"),
        ({"format": "coreml"}, "onnx, openvino"),
        ({"format": "pt", "imgsz": 640}, "does not apply to pt"),
        ({"format": "onnx", "precision": "int8"}, "int8 is not offered"),
        ({"format": "onnx", "imgsz": 33}, "multiples of 16"),
        ({"format": "onnx", "half": True}, "'half'"),
    ],
)
def test_what_cannot_be_made_is_refused_before_a_job(
    ask: Call, gateway: Gateway, model: str, body: dict[str, Any], sentence: str
) -> None:
    answer = ask("POST", f"/models/{model}/export", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert sentence in answer.json()["message"]
    assert gateway.jobs.list("export") == []


def test_an_engine_needs_tensorrt_and_a_gpu(ask: Call, model: str) -> None:
    answer = ask("POST", f"/models/{model}/export", json={"format": "engine"})
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    assert "Choose onnx" in answer.json()["message"] or "choose onnx" in answer.json()["message"]


@pytest.mark.parametrize("query", ["format=openvino", "format=onnx&precision=fp16"])
def test_what_was_not_made_is_a_404_that_says_how(ask: Call, model: str, query: str) -> None:
    answer = ask("GET", f"/models/{model}/download?{query}")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    assert f"Start it: POST /models/{model}/export with {{" in answer.json()["message"]


def test_an_unknown_query_or_model_is_refused(ask: Call, model: str) -> None:
    answer = ask("GET", f"/models/{model}/download?format=pt&half=1")
    assert (answer.status_code, "half" in answer.json()["message"]) == (400, True)
    for method, path in (("GET", "exports"), ("GET", "download?format=pt"), ("POST", "export")):
        answer = ask(method, f"/models/cats/{path}", json={"format": "pt"})
        assert (answer.status_code, answer.json()["code"]) == (404, "MODEL_NOT_FOUND")


def test_a_token_for_use_does_not_take_a_model_away(ask: Call, model: str) -> None:
    for method, path in (
        ("POST", "export"),
        ("GET", "download?format=archive"),
        ("DELETE", "exports/archive"),
    ):
        answer = ask(method, f"/models/{model}/{path}", token="use", json={"format": "pt"})
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN"), path


def test_an_export_is_deleted_alone_or_with_its_model(
    ask: Call, gateway: Gateway, model: str
) -> None:
    path = f"/models/{model}/download?format=archive"
    folder = ExportStore(gateway.settings).folder(gateway.registry.get(model))
    assert ask("GET", path).status_code == 200
    assert ask("DELETE", f"/models/{model}/exports/archive").status_code == 204
    missing = ask("DELETE", f"/models/{model}/exports/..%2Farchive")
    assert missing.status_code == 404
    missing = ask("DELETE", f"/models/{model}/exports/archive")
    assert (missing.status_code, missing.json()["message"][-12:]) == (404, "Known: none.")
    assert ask("GET", path).status_code == 200
    assert folder.is_dir()
    gateway.registry.delete(model)
    assert not folder.exists()


def test_exports_of_a_model_that_is_gone_are_swept(gateway: Gateway, model: str) -> None:
    kept = gateway.settings.paths.exports / model.replace(":", "/")
    stray = gateway.settings.paths.exports / "gone" / "1"
    for folder in (kept, stray):
        (folder / "onnx").mkdir(parents=True)
    assert gateway.registry.sweep() == ["Removed the exports of gone:1, which does not exist."]
    assert kept.is_dir()
    assert not stray.exists()


def test_a_model_is_not_deleted_while_it_is_exported(
    ask: Call, gateway: Gateway, model: str
) -> None:
    ask("POST", f"/models/{model}/export", json={"format": "pt"})
    answer = ask("DELETE", f"/models/{model}")
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    assert only(gateway).id in answer.json()["message"]


def test_a_damaged_model_is_not_exported(ask: Call, gateway: Gateway, model: str) -> None:
    path = gateway.registry.get(model).path
    for name in ("model.safetensors", "model.onnx"):
        (path / name).write_bytes(b"x")
    answer = ask("GET", f"/models/{model}/download?format=pt")
    assert (answer.status_code, answer.json()["code"]) == (503, "MODEL_DAMAGED")
    shutil.rmtree(path)
