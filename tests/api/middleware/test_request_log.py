from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from access_log import RECEIVED, Received
from api.app import with_middleware
from errors import VisionLoopError
from process_log import ACCESS
from request_id import REQUEST_ID
from settings import Settings

Call = Callable[..., httpx.Response]


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """The records of the access log, from DEBUG on."""
    caplog.set_level(logging.DEBUG, ACCESS.name)
    return lambda: [found for found in caplog.records if found.name == ACCESS.name]


def behind(app: ASGIApp, **settings: Any) -> ASGIApp:
    return with_middleware(app, Settings(hosts=("localhost",), **settings))


def test_the_callers_id_is_in_the_answer_and_in_the_line(
    call: Call, access: Callable[[], list[Any]]
) -> None:
    found = call(behind(PlainTextResponse("ok")), "GET", "/a", headers={"X-Request-ID": "r-1"})
    assert found.headers.get_list("X-Request-ID") == ["r-1"]
    (line,) = access()
    assert (line.method, line.path, line.status, line.bytes) == ("GET", "/a", 200, 2)
    assert (line.client, line.levelname) == ("127.0.0.1", "INFO")
    assert re.fullmatch(r"GET /a 200 \d+\.\d ms 2 B 127\.0\.0\.1", line.getMessage())


def test_a_token_that_is_sent_in_the_path_is_not_in_the_line(
    call: Call, access: Callable[[], list[Any]]
) -> None:
    secret = f"vl_0123456789ab_{'s' * 43}"
    call(behind(PlainTextResponse("ok")), "DELETE", f"/tokens/{secret}")
    (line,) = access()
    assert line.path == "/tokens/vl_…"
    assert "sss" not in line.getMessage()


@pytest.mark.parametrize(
    ("error", "status"), [(VisionLoopError("x"), 500), (ValueError("secret"), 500)]
)
def test_an_error_names_the_request(
    call: Call, access: Callable[[], list[Any]], error: Exception, status: int
) -> None:
    async def raising(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    answer = call(behind(raising), "GET", "/a", headers={"X-Request-ID": "r-2"})
    assert answer.status_code == status
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"] == "r-2"
    if isinstance(error, ValueError):  # the id that finds the traceback in the log is the same
        assert answer.json()["message"].endswith("under the id r-2.")
    (line,) = access()
    assert (line.levelname, line.code) == ("WARNING", "PROCESSING_ERROR")


def test_refusals_of_the_middleware_have_an_id(call: Call) -> None:
    app = behind(PlainTextResponse("ok"), token="t", rate_limit=2)
    answers = [call(app, "GET", "/a") for _ in range(3)]
    assert [found.status_code for found in answers] == [401, 401, 429]
    ids = [found.headers["X-Request-ID"] for found in answers]
    assert len(set(ids)) == 3
    assert [found.json()["request_id"] for found in answers] == ids


def test_the_line_names_the_token_but_not_its_text(
    call: Call, access: Callable[[], list[Any]]
) -> None:
    app = behind(PlainTextResponse("ok"), token="s3cret")
    call(app, "GET", "/a", headers={"Authorization": "Bearer s3cret"})
    (line,) = access()
    assert line.token == "environment token"
    assert "s3cret" not in line.getMessage()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics"])
def test_probes_are_written_with_debug_only(
    call: Call, access: Callable[[], list[Any]], path: str
) -> None:
    call(behind(PlainTextResponse("ok")), "GET", path)
    assert [line.levelname for line in access()] == ["DEBUG"]


def test_the_line_of_a_stream_comes_at_its_end_with_all_its_bytes(
    call: Call, access: Callable[[], list[Any]]
) -> None:
    async def parts() -> Any:
        for _ in range(3):
            yield "four"
            await asyncio.sleep(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(parts())(scope, receive, send)

    assert call(behind(app), "GET", "/a").headers["X-Request-ID"]
    (line,) = access()
    assert line.bytes == 12


def test_the_query_is_not_written_and_a_long_path_is_cut(
    call: Call, access: Callable[[], list[Any]]
) -> None:
    call(behind(PlainTextResponse("ok")), "GET", "/a?token=s3cret")
    call(behind(PlainTextResponse("ok")), "GET", f"/{'b' * 5000}")
    first, second = access()
    assert "s3cret" not in first.getMessage()
    assert len(second.path) < 250


def test_an_id_that_the_protocol_has_chosen_is_used_and_not_sent_twice() -> None:
    seen: list[str | None] = []
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(REQUEST_ID.get())
        await PlainTextResponse("ok")(scope, receive, send)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/a",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        RECEIVED: Received("chosen"),
    }

    async def run() -> None:
        await behind(app)(scope, receive, send)

    asyncio.run(run())
    assert seen == ["chosen"]
    assert b"x-request-id" not in dict(sent[0]["headers"])
