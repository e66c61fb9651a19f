"""The traps of BentoML are avoided; `api.native` installs the patches of the native routes."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from _bentoml_impl.serde import MultipartSerde
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from bentoml.exceptions import BadInput
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

import api.native  # noqa: F401 (installs the patches)
from errors import ModelNotFound
from serving import metrics_folder
from serving.bentoml_patches import (
    RaisingResponse,
    cancel_timers,
    enter_source_tree,
    use_own_metrics_folder,
)
from settings import Settings
from tests.support.serving import ROOT


@pytest.mark.parametrize("variable", ["VISIONLOOP_HOME", "VISIONLOOP_DATA_ROOTS", "BENTOML_HOME"])
def test_a_path_that_would_mean_another_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, "state")
    monkeypatch.chdir(ROOT)
    settings = Settings()  # as BentoML imports the service: in its own folder
    enter_source_tree(settings)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"{variable}: a relative path.*give the absolute path"):
        enter_source_tree(settings)
    monkeypatch.setenv(variable, str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    enter_source_tree(Settings())
    assert Path.cwd() == ROOT


def test_the_folder_for_metrics_is_created_by_processes_that_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "home")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/another")  # so that it is restored
    folder = use_own_metrics_folder(settings)
    assert folder == metrics_folder.chosen(settings)
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(folder)
    assert not settings.home.exists()
    assert not folder.exists()
    monkeypatch.setattr(bentoml.server_context, "worker_index", 1)
    try:
        assert use_own_metrics_folder(settings) == folder
        assert folder.is_dir()
    finally:
        metrics_folder.remove(settings)


def test_a_text_in_place_of_a_file_is_never_fetched() -> None:
    with pytest.raises(BadInput, match="'image' must be a file"):
        asyncio.run(MultipartSerde.ensure_file("http://127.0.0.1:9/secret"))
    upload = UploadFile(io.BytesIO(b"x"), filename="../" * 100)
    assert asyncio.run(MultipartSerde.ensure_file(upload)) is upload
    assert upload.filename is None


def test_the_middleware_sees_the_error_of_a_raising_response() -> None:
    with pytest.raises(ModelNotFound, match="none"):
        asyncio.run(RaisingResponse(ModelNotFound("There is none."))({}, None, None))


class Native:
    @bentoml.api
    async def predict(
        self, confidence: float | None = None, max_det: int | None = None
    ) -> None: ...


def parse(**fields: str) -> Any:
    """A form as BentoML's own route reads it."""
    made = httpx.Request("POST", "http://localhost", data=fields)
    body, headers = made.read(), [(name.lower(), value) for name, value in made.headers.raw]

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "POST", "headers": headers, "query_string": b""}
    request = Request(scope, receive)
    method: Any = Native.predict
    return asyncio.run(MultipartSerde().parse_request(request, method.input_spec))


def test_empty_means_not_given_on_bentomls_own_route_too() -> None:
    found = parse(confidence="", max_det="")
    assert (found.confidence, found.max_det) == (None, None)
    assert parse(confidence="0.5").confidence == 0.5


def test_its_errors_name_the_legal_values_too() -> None:
    with pytest.raises(BadInput, match="'confidence' must be a number from 0 to 1; got 'much'"):
        parse(confidence="much")
    with pytest.raises(BadInput, match="'max_det' must be a whole number from 1 to 1000"):
        parse(max_det="1.5")


def _timers() -> list[asyncio.TimerHandle]:
    """The timers of the running loop that would still fire."""
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


async def _reply(app: Any) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)
    return sent


def test_no_timer_is_left_of_a_request_that_has_ended() -> None:
    cancel_timers()

    async def raising(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("an application with a bug")

    async def run() -> None:
        for _ in range(3):
            await _reply(TimeoutMiddleware(PlainTextResponse("ok"), 1e6))
            with pytest.raises(KeyError):  # BentoML's own waited until the timeout
                await _reply(TimeoutMiddleware(raising, 1e6))
        assert not _timers()

    asyncio.run(run())


def test_only_a_response_that_has_not_begun_is_timed_out() -> None:
    cancel_timers()

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.1)  # longer than the timeout
        await send({"type": "http.response.body", "body": b"ok"})

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError("of the application's own")

    async def run() -> None:
        assert (await _reply(TimeoutMiddleware(silent, 0.01)))[0]["status"] == 504
        assert [m.get("status") for m in await _reply(TimeoutMiddleware(streaming, 0.05))] == [
            200,
            None,
        ]
        with pytest.raises(TimeoutError, match="own"):
            await _reply(TimeoutMiddleware(failing, 1e6))

    asyncio.run(run())
