"""The layers in front of everything: whatever lies behind, there is an answer of our form."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from bentoml.exceptions import BentoMLException
from fastapi import FastAPI
from limits.storage import memory
from prometheus_client import REGISTRY
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from access_log import UNMATCHED
from api.app import LateBoundApp, create_app, with_middleware
from api.middleware.limits import BodyLimit
from errors import BackendUnavailable, InsufficientStorage, ModelNotFound, VisionLoopError
from settings import Settings
from tests.support.patience import PATIENCE

Call = Callable[..., httpx.Response]


def raising(error: Exception) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the length of the body."""
    length = 0
    more = True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await PlainTextResponse(str(length))(scope, receive, send)


def behind(app: ASGIApp, **settings: Any) -> ASGIApp:
    return with_middleware(app, Settings.model_validate(settings))


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        (ModelNotFound("No model 'x'."), 404, "MODEL_NOT_FOUND", "No model 'x'."),
        (BackendUnavailable("Wait.", 2.2), 503, "BACKEND_UNAVAILABLE", "Wait."),
        (VisionLoopError("Log id: 1."), 500, "PROCESSING_ERROR", "Log id: 1."),
        (KeyError("secret"), 500, "PROCESSING_ERROR", None),
        (BentoMLException("secret"), 500, "PROCESSING_ERROR", None),
    ],
)
def test_what_is_raised_is_answered(
    call: Call, error: Exception, status: int, code: str, message: str | None
) -> None:
    answer = call(behind(raising(error)), "GET", "/x")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert body["error"] == httpx.codes.get_reason_phrase(status)
    assert body["detail"] == body["message"]
    assert "secret" not in body["message"]
    if message is not None:
        assert body["message"] == message
    if status == 503:
        assert answer.headers["Retry-After"] == "3"


def test_our_own_fault_has_an_id_that_stands_in_the_log(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        message = call(behind(raising(RuntimeError("boom"))), "GET", "/x").json()["message"]
    number = message.rstrip(".").split()[-1]
    assert number in caplog.text
    assert "RuntimeError: boom" in caplog.text


@pytest.mark.parametrize(
    ("foreign", "status", "code", "message"),
    [
        (PlainTextResponse("Not Found", 404), 404, "NOT_FOUND", "There is no '/x'."),
        (
            PlainTextResponse("", 405, {"Allow": "GET"}),
            405,
            "METHOD_NOT_ALLOWED",
            "'/x' does not take POST.",
        ),
        (JSONResponse([{"error": "bad input"}], 400), 400, "VALIDATION_ERROR", "bad input"),
        (
            JSONResponse(
                {
                    "error": "1 validation error for Input",
                    "detail": [{"type": "missing", "loc": ["image"], "msg": "Field required"}],
                },
                400,
            ),
            400,
            "VALIDATION_ERROR",
            "'image' is required.",
        ),
        (
            JSONResponse(
                {
                    "detail": [
                        {"type": "json_invalid", "loc": ["body", 1], "ctx": {"error": "EOF"}},
                    ]
                },
                422,
            ),
            400,
            "VALIDATION_ERROR",
            "The body is not valid JSON: EOF.",
        ),
        (JSONResponse({"error": "no pickles"}, 415), 400, "VALIDATION_ERROR", "no pickles"),
        (JSONResponse({"error": "secret"}, 500), 500, "PROCESSING_ERROR", None),
        (PlainTextResponse("starting", 503), 503, "BACKEND_UNAVAILABLE", "starting"),
    ],
)
def test_errors_of_others_take_our_form(
    call: Call, foreign: ASGIApp, status: int, code: str, message: str | None
) -> None:
    answer = call(behind(foreign), "POST", "/x")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "secret" not in answer.text
    assert answer.json()["message"].startswith(message or "Internal error.")
    assert status != 405 or answer.headers["Allow"] == "GET"
    assert status != 503 or int(answer.headers["Retry-After"]) > 0


def test_a_request_that_takes_too_long_is_answered(call: Call) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(PATIENCE)

    answer = call(behind(app, request_timeout=0.05), "GET", "/x")
    assert (answer.status_code, answer.json()["code"]) == (504, "BACKEND_TIMEOUT")


def test_an_answer_that_has_begun_may_take_its_time(call: Call) -> None:
    async def drops() -> Any:
        for drop in "abc":
            yield drop
            await asyncio.sleep(1.1)

    answer = call(behind(StreamingResponse(drops()), request_timeout=2), "GET", "/x")
    assert answer.text == "abc"


def talk(app: ASGIApp, chunks: int, headers: list[tuple[bytes, bytes]]) -> tuple[int, int, bytes]:
    """Status, number of chunks of 64 KiB that were taken, and body of one upload."""
    sent: list[Message] = []
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"\0" * 65536, "more_body": taken < chunks}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "POST", "path": "/infer", "headers": headers}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent[0]["status"], taken, b"".join(m.get("body", b"") for m in sent)


def test_a_body_within_the_limit_passes() -> None:
    assert talk(behind(reading, max_body_mb=1), 16, []) == (200, 16, b"1048576")


def test_an_announced_length_above_the_limit_is_refused_before_the_application() -> None:
    app = behind(raising(AssertionError("reached")), max_body_mb=1)
    status, _, body = talk(app, 2, [(b"content-length", b"1048577")])
    assert status == 413
    assert b"1 MiB" in body


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")]])
def test_a_body_is_counted_while_it_arrives(headers: list[tuple[bytes, bytes]]) -> None:
    swallowed = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Reads on after errors, and reports them in a way of its own, as BentoML does."""
        nonlocal swallowed
        try:
            await reading(scope, receive, send)
        except Exception:
            swallowed += 1
            await PlainTextResponse("traceback", 500)(scope, receive, send)

    status, _, body = talk(behind(app, max_body_mb=1), 40, headers)
    assert (status, swallowed) == (413, 1)
    assert b"PAYLOAD_TOO_LARGE" in body
    assert b"traceback" not in body


def test_a_length_that_is_no_number_is_refused() -> None:
    assert talk(behind(reading), 1, [(b"content-length", b"-1")])[0] == 400


@pytest.mark.parametrize("path", ["/api/datasets", "/models/import", "/api/datasets/x/annotations"])
def test_an_upload_that_the_disk_has_no_room_for_is_refused_before_it_is_read(
    call: Call, tmp_path: Path, path: str
) -> None:
    app = behind(reading, home=tmp_path, disk_reserve=2**60)
    refused = call(app, "POST", path, content=b"x" * 1000)
    assert refused.status_code == 507
    assert refused.json()["code"] == "INSUFFICIENT_STORAGE"
    assert call(app, "POST", "/infer", content=b"x" * 1000).text == "1000"
    assert call(app, "GET", path).status_code == 200


def test_a_disk_that_fills_up_ends_an_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.middleware.limits.ROOM_STEP", 4 * 65536)
    asked = 0

    def no_room(_: int) -> InsufficientStorage | None:
        nonlocal asked
        asked += 1
        return InsufficientStorage("Full.") if asked == 3 else None

    app = BodyLimit(reading, 1, {"/infer": 2**30}, no_room=no_room)
    status, taken, body = talk(app, 100, [])
    assert (status, asked) == (507, 3)
    assert b"INSUFFICIENT_STORAGE" in body
    assert taken >= 8  # the answer came after the eighth chunk; the rest is read and dropped


def test_a_caller_above_the_rate_waits_and_others_do_not(call: Call) -> None:
    app = behind(PlainTextResponse("ok"), rate_limit=2, token="t", admin_token="a")
    mine = {"Authorization": "Bearer t"}
    assert [call(app, "GET", "/x", headers=mine).status_code for _ in range(3)] == [200, 200, 429]
    refused = call(app, "GET", "/x", headers=mine)
    assert refused.json()["code"] == "RATE_LIMITED"
    assert int(refused.headers["Retry-After"]) >= 1
    assert call(app, "GET", "/x", headers={"Authorization": "Bearer a"}).status_code == 200
    assert call(app, "GET", "/readyz", headers=mine).status_code == 200


IMAGES = (
    f"/api/datasets/shapes-1/images/{'a' * 64}",
    f"/api/datasets/shapes-1/pictures/{'b' * 64}",
    "/api/annotation/kept/5f",
    "/metrics/x:1/worst/3.jpg",
)


@pytest.mark.parametrize("together", [False, True])
def test_images_that_pages_load_do_not_count_as_requests(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    monkeypatch.setattr("serving.gateways.peers.shared_folder", lambda _: tmp_path)
    monkeypatch.setattr("api.middleware.limits.IMAGES_AS_ONE", 4)
    if not together:
        monkeypatch.setattr("serving.gateways.peers.shared_folder", lambda _: None)
    app = behind(PlainTextResponse("ok"), rate_limit=0.05)
    assert [call(app, "GET", path).status_code for path in IMAGES] == [200] * 4
    assert call(app, "GET", "/models").status_code == 200, "scrolling locks nobody out"
    assert [call(app, "POST", IMAGES[0]).status_code, call(app, "GET", "/x").status_code] == [
        429
    ] * 2
    refused = call(app, "GET", IMAGES[0])
    assert refused.status_code == 429, "images have a limit, too"
    assert "images per second" in refused.json()["message"]


def test_a_clock_that_is_set_back_refuses_nobody(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = behind(PlainTextResponse("ok"), rate_limit=1)
    seconds = time.monotonic()
    monkeypatch.setattr(memory.time, "time", lambda: seconds)
    assert [call(app, "GET", "/x").status_code for _ in range(2)] == [200, 429]
    seconds += 1.5
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the wall clock, which does not count
    assert [call(app, "GET", "/x").status_code for _ in range(2)] == [200, 429]
    assert int(call(app, "GET", "/x").headers["Retry-After"]) <= 2


@pytest.mark.parametrize(("rate", "allowed"), [(0.5, 1), (2.5, 5), (0.001, 1)])
def test_rates_need_not_be_whole(call: Call, rate: float, allowed: int) -> None:
    app = behind(PlainTextResponse("ok"), rate_limit=rate)
    statuses = [call(app, "GET", "/x").status_code for _ in range(allowed + 1)]
    assert statuses == [200] * allowed + [429]


def test_browsers_of_allowed_origins_may_call_and_read_errors(call: Call) -> None:
    app = behind(PlainTextResponse("ok"), cors_origins="https://a.example", token="t")
    asking = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization",
    }
    asked = call(app, "OPTIONS", "/models/x", headers=asking)
    assert asked.status_code == 200
    assert "DELETE" in asked.headers["Access-Control-Allow-Methods"]
    refused = call(app, "GET", "/models", headers={"Origin": "https://a.example"})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://a.example"
    other = call(app, "GET", "/models", headers={"Origin": "https://b.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    ("asking", "told"),
    [
        ({"Origin": "https://b.example", "Access-Control-Request-Method": "GET"}, "origin"),
        ({"Origin": "https://a.example", "Access-Control-Request-Method": "TRACE"}, "method"),
    ],
)
def test_a_refused_preflight_has_our_form(call: Call, asking: dict[str, str], told: str) -> None:
    app = behind(PlainTextResponse("ok"), cors_origins="https://a.example")
    answer = call(app, "OPTIONS", "/models", headers=asking)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert told in answer.json()["message"]
    allowed = answer.headers.get("Access-Control-Allow-Origin")
    assert allowed == (asking["Origin"] if told == "method" else None)


def test_who_guesses_tokens_is_counted_too(call: Call) -> None:
    app = behind(PlainTextResponse("ok"), rate_limit=2, token="t")
    wrong = {"Authorization": "Bearer x"}
    statuses = [call(app, "GET", "/x", headers=wrong).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]
    assert call(app, "GET", "/x", headers={"Authorization": "Bearer t"}).status_code == 200


def test_head_is_measured_under_its_route(call: Call) -> None:
    def counted(route: str) -> float:
        labels = {"route": route, "method": "HEAD", "status": "200"}
        return REGISTRY.get_sample_value("visionloop_requests_total", labels) or 0

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = FastAPI()
    app.get("/page/{name}")(page)
    door = LateBoundApp()
    door.app = app
    before = counted("/page/{name}"), counted(UNMATCHED)
    assert call(behind(door), "HEAD", "/page/a").status_code == 200
    assert (counted("/page/{name}"), counted(UNMATCHED)) == (before[0] + 1, before[1])


def test_head_of_a_stream_of_events_ends_at_once_and_leaves_nothing_running() -> None:
    async def stream() -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            while True:
                yield ": begun\n\n"
                await asyncio.sleep(0.01)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def story() -> None:
        app = FastAPI()
        app.get("/events")(stream)
        door = LateBoundApp()
        door.app = app
        transport = httpx.ASGITransport(app=door)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            async with asyncio.timeout(PATIENCE):
                answer = await client.head("/events")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(story())


def test_the_front_page_names_the_address_it_was_reached_at(call: Call, tmp_path: Path) -> None:
    app = create_app(SimpleNamespace(settings=Settings(home=tmp_path)))  # type: ignore[arg-type]
    text = call(app, "GET", "/", headers={"Host": "localhost:8123"}).text
    assert "http://localhost:8123/infer" in text
    answer = call(app, "GET", "/", headers={"Host": "<b>"})
    assert answer.headers["Content-Type"] == "application/json"
