"""The bounds of a connection, seen by a client with a plain socket."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from access_log import RECEIVED
from api.middleware.request_log import RequestLog
from process_log import ACCESS
from request_id import REQUEST_ID
from serving import http_protocol
from serving.http_protocol import HEAD_LIMIT, UNIX_SOCKET, BoundedHttpProtocol
from settings import Settings
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


class Echo:
    """Responds with the length of the body, and keeps what it was asked."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.inner: ASGIApp | None = None  # responds instead
        self.hold: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if self.inner is not None:
            await self.inner(scope, receive, send)
            return
        if scope["path"] == "/early":  # a response before the body has been read
            await self._send(send, b"early")
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/held":
            self.hold = asyncio.Event()
            await self.hold.wait()
        await self._send(send, b"%d" % len(body))

    async def _send(self, send: Send, body: bytes) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Running:
    """uvicorn in a thread, with the protocol as BentoML's workers get it."""

    def __init__(self, app: Echo, sockets: list[socket.socket]) -> None:
        self.app = app
        self.address = sockets[0].getsockname()
        http_protocol.install()
        config = uvicorn.Config(app, lifespan="off", log_config=None, loop="uvloop")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=(sockets,))
        self.thread.start()
        wait_until(lambda: self.server.started)
        assert config.http_protocol_class is BoundedHttpProtocol

    def connect(self) -> socket.socket:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        connection = socket.socket(family)
        connection.settimeout(PATIENCE)
        connection.connect(self.address)
        return connection

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def running() -> Iterator[Running]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    server = Running(Echo(), [listening])
    try:
        yield server
    finally:
        server.stop()
    assert not BoundedHttpProtocol.open_connections


def received(connection: socket.socket) -> list[tuple[int, dict[str, str], bytes]]:
    """The responses until the server closes: status, headers, body."""
    data = b""
    while part := connection.recv(65536):
        data += part
    return parsed(data)


def parsed(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0))
        found.append((int(first.split()[1]), headers, data[:length]))
        data = data[length:]
    return found


def exchange(running: Running, *parts: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    with running.connect() as connection:
        for part in parts:
            connection.sendall(part)
        return received(connection)


def code(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    status, headers, body = answer
    assert headers["connection"] == "close"
    return status, json.loads(body)["code"]


CLOSE = b"Connection: close\r\n\r\n"


def head_of(length: int) -> bytes:
    """A request whose head has so many bytes."""
    fixed = len(GET) + len(b"X: \r\n") + len(CLOSE)
    return GET + b"X: " + b"x" * (length - fixed) + b"\r\n" + CLOSE


def test_a_head_may_have_64_kib_and_no_byte_more(running: Running) -> None:
    assert exchange(running, head_of(HEAD_LIMIT))[0][0] == 200
    assert code(exchange(running, head_of(HEAD_LIMIT + 1))[0]) == (431, "HEADERS_TOO_LARGE")
    url = b"GET /" + b"a" * HEAD_LIMIT + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    assert code(exchange(running, url)[0]) == (431, "HEADERS_TOO_LARGE")


def test_a_client_that_sends_60_mb_of_headers_still_reads_the_answer(running: Running) -> None:
    header = b"X: " + b"x" * 2**20
    assert code(exchange(running, GET, *[header] * 60)[0])[0] == 431
    assert len(running.app.scopes) == 0


def test_a_large_body_counts_as_no_head(running: Running) -> None:
    body = b"b" * (3 * 2**20)
    chunks = b"".join(b"%x\r\n" % 1 + b"b\r\n" for _ in range(40_000))
    with_length = POST + b"Content-Length: %d\r\n" % len(body) + CLOSE + body
    chunked = POST + b"Transfer-Encoding: chunked\r\n" + CLOSE + chunks + b"0\r\n\r\n"
    assert exchange(running, with_length)[0][2] == b"%d" % len(body)
    assert exchange(running, chunked)[0][2] == b"40000"


def test_a_second_request_of_a_connection_has_a_limit_of_its_own(running: Running) -> None:
    body = POST + b"Content-Length: 100000\r\n\r\n" + b"b" * 100_000
    large = GET + b"X: " + b"x" * 40_000 + b"\r\n"
    first, second, third = exchange(running, body, large + b"\r\n", large + CLOSE)
    assert [first[0], second[0], third[0]] == [200, 200, 200]


def test_trailers_are_bounded_and_are_no_headers(running: Running) -> None:
    start = POST + b"Transfer-Encoding: chunked\r\n" + CLOSE + b"1\r\nb\r\n0\r\n"
    assert exchange(running, start + b"Authorization: Bearer x\r\n\r\n")[0][0] == 200
    assert b"authorization" not in dict(running.app.scopes[0]["headers"])
    answer = exchange(running, start, b"T: " + b"t" * (2 * HEAD_LIMIT))[0]
    assert code(answer) == (431, "HEADERS_TOO_LARGE")


@pytest.mark.parametrize(
    "head",
    [
        GET + b"Host: b\r\n\r\n",
        GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
    ids=["two hosts", "two framings", "two lengths", "TLS"],
)
def test_an_ambiguous_head_is_refused(running: Running, head: bytes) -> None:
    assert code(exchange(running, head)[0]) == (400, "VALIDATION_ERROR")
    assert not running.app.scopes


@pytest.mark.parametrize("given", ["r-1", "not sane"])
def test_every_answer_has_the_id_of_its_request(running: Running, given: str) -> None:
    header = f"X-Request-ID: {given}\r\n".encode()
    two_hosts = b"Host: b\r\n" + header + b"\r\n"
    for request, status in ((GET + header + b"\r\n", 200), (GET + two_hosts, 400)):
        with running.connect() as connection:
            connection.sendall(request)
            response = http.client.HTTPResponse(connection)
            response.begin()
            found, body = response.getheader("X-Request-ID"), response.read()
        assert response.status == status
        assert (found == given) == (given == "r-1")
        assert found is not None
        assert status == 200 or json.loads(body)["request_id"] == found
    (scope,) = running.app.scopes
    assert (scope[RECEIVED].request_id == given) == (given == "r-1")


def test_a_request_that_cannot_be_parsed_has_one_line(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert code(exchange(running, b"GARBAGE\r\n\r\n")[0]) == (400, "VALIDATION_ERROR")
    assert [line.name for line in caplog.records] == [ACCESS.name]


def test_a_request_that_is_refused_in_its_body_has_the_line_of_its_route(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.app.inner = RequestLog(Echo())
    caplog.set_level(logging.INFO)
    head = b"X-Request-ID: r-1\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = exchange(running, POST + head + b"ZZ\r\n")[0]
    assert code(answer) == (400, "VALIDATION_ERROR")
    wait_until(lambda: caplog.records)
    (line,) = caplog.records
    found: Any = line
    assert (found.method, found.path, found.status) == ("POST", "/", 400)
    assert (found.code, found.bytes) == ("VALIDATION_ERROR", len(answer[2]))


def test_nothing_of_a_request_is_in_the_context_of_the_next_one(running: Running) -> None:
    seen: list[str | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(REQUEST_ID.get())
        REQUEST_ID.set(scope[RECEIVED].request_id)  # as middleware that does not end its context
        await Echo()(scope, receive, send)

    running.app.inner = app
    assert len(exchange(running, 2 * (GET + b"\r\n") + GET + b"Connection: close\r\n\r\n")) == 3
    assert seen == [None, None, None]


def test_half_a_head_is_closed_in_time(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.3)
    assert code(exchange(running, GET)[0]) == (408, "REQUEST_TIMEOUT")
    assert exchange(running) == []  # nothing was asked, so nothing is answered
    assert code(exchange(running, GET + b"\r\n", GET)[-1]) == (408, "REQUEST_TIMEOUT")


def test_drops_of_a_head_do_not_prolong_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.3)
    for drop in (b"X: y\r\n", b"\r\n"):
        with running.connect() as connection, contextlib.suppress(OSError):
            if drop != b"\r\n":  # empty lines before a request are allowed (RFC 9112, 2.2)
                connection.sendall(GET)
            connection.settimeout(0.05)
            while True:
                connection.sendall(drop)
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(65536):
                        break
    assert not running.app.scopes


def test_a_body_may_be_slow_but_may_not_pause(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 1.0)
    start = POST + b"Content-Length: 30\r\n" + CLOSE
    with running.connect() as connection:
        connection.sendall(start)
        pause = threading.Event()
        for _ in range(30):  # longer than BODY_SECONDS as a whole
            pause.wait(0.05)
            connection.sendall(b"b")
        assert received(connection)[0][2] == b"30"
    assert code(exchange(running, start, b"b")[0]) == (408, "REQUEST_TIMEOUT")


def test_a_body_that_nobody_reads_does_not_keep_its_connection(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.3)
    head = POST.replace(b"/ ", b"/early ") + b"Content-Length: 1000000\r\n\r\n"
    with running.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head)
        connection.settimeout(0.05)
        while True:
            connection.sendall(b"b")
            with contextlib.suppress(TimeoutError):
                if not connection.recv(65536):
                    break
    wait_until(lambda: not BoundedHttpProtocol.open_connections)


def test_the_connections_of_an_address_are_bounded(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "get_settings", lambda: Settings(max_connections=3))
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(running.connect())
        wait_until(lambda: BoundedHttpProtocol.open_connections["127.0.0.1"] == 3)
        answer = exchange(running)[0]
        assert code(answer) == (429, "RATE_LIMITED")
        assert answer[1]["retry-after"] == "5"
    wait_until(lambda: not BoundedHttpProtocol.open_connections)
    assert exchange(running, GET + CLOSE)[0][0] == 200


def test_a_refusal_waits_for_the_response_before_it(running: Running) -> None:
    held = GET.replace(b"/ ", b"/held ") + b"\r\n"
    with running.connect() as connection:
        connection.sendall(held)
        wait_until(lambda: running.app.hold)
        connection.sendall(GET + b"Host: b\r\n\r\n")
        assert running.app.hold is not None
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE)
        loop = running.app.hold._loop  # type: ignore[attr-defined]
        loop.call_soon_threadsafe(running.app.hold.set)
        first, second = received(connection)
    assert first[0] == 200
    assert code(second)[0] == 400


def test_an_upgrade_is_answered_as_a_plain_request(running: Running) -> None:
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n"
    with running.connect() as connection:
        connection.sendall(GET + upgrade + b"\r\n")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    wait_until(lambda: not BoundedHttpProtocol.open_connections)


def test_a_connection_that_was_reset_never_reaches_the_application(running: Running) -> None:
    reset = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset
    for _ in range(200):
        with running.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.sendall(GET + b"\r\n")
    assert exchange(running, GET + CLOSE)[0][0] == 200
    assert all(scope["client"] is not None for scope in running.app.scopes)


def test_a_request_says_whether_it_came_through_a_unix_socket(
    running: Running, tmp_path: Path
) -> None:
    exchange(running, GET + CLOSE)
    assert running.app.scopes[0][UNIX_SOCKET] is False
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    inside = Running(Echo(), [listening])
    try:
        exchange(inside, GET + CLOSE)
        assert inside.app.scopes[0][UNIX_SOCKET] is True
    finally:
        inside.stop()


def test_a_shutdown_answers_idle_connections_and_those_that_wait(running: Running) -> None:
    with running.connect() as idle, running.connect() as busy:
        for connection in (idle, busy):
            connection.sendall(GET + b"\r\n")
            assert connection.recv(65536).endswith(b"\r\n\r\n0")
        busy.sendall(GET.replace(b"/ ", b"/held ") + b"\r\n")
        hold = wait_until(lambda: running.app.hold)
        running.server.should_exit = True
        protocols: Any = running.server.server_state.connections
        wait_until(lambda: all(protocol._draining for protocol in list(protocols)))
        idle.sendall(POST + b"Content-Length: 1\r\n\r\nb")
        answer = received(idle)[0]
        assert code(answer) == (503, "BACKEND_UNAVAILABLE")
        assert answer[1]["retry-after"] == "5"
        hold._loop.call_soon_threadsafe(hold.set)
        status, headers, _ = received(busy)[0]
        assert (status, headers["connection"]) == (200, "close")


def test_the_gateway_has_these_bounds(server: Server) -> None:
    def ask(*parts: bytes) -> tuple[int, str]:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            for part in parts:
                connection.sendall(part)
            return code(received(connection)[0])

    half = threading.Thread(target=lambda: answers.append(ask(GET)))
    answers: list[tuple[int, str]] = []
    half.start()
    assert ask(GET, *[b"X: " + b"x" * 2**20] * 8) == (431, "HEADERS_TOO_LARGE")
    assert ask(GET + b"Host: b\r\n\r\n") == (400, "VALIDATION_ERROR")
    half.join()
    assert answers == [(408, "REQUEST_TIMEOUT")]


class Alone(Server):
    target = "service:Detector"


def test_a_runner_served_alone_runs_nothing_for_a_connection_that_was_reset(
    new_home: Callable[[], Path],
) -> None:
    runner = Alone(new_home(), VISIONLOOP_TOKEN="t")
    try:
        runner.start()
        body = b'{"tag": "traffic_signs_yolov8n"}'
        request = POST.replace(b"/ ", b"/warm ") + b"Content-Type: application/json\r\n"
        request += b"Content-Length: %d\r\n\r\n" % len(body) + body
        for _ in range(200):
            connection = socket.create_connection(("127.0.0.1", runner.port), PATIENCE)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request)
            connection.close()
        with httpx.Client(base_url=runner.url, timeout=PATIENCE) as client:
            assert client.post("/status", json={}).status_code == 401
            client.headers["Authorization"] = "Bearer t"
            assert client.post("/status", json={}).json()["engines"] == {}
    finally:
        runner.stop()
