"""The HTTP protocol of every service process: uvicorn's protocol, with limits that it lacks (0.54).

- A request's head (request line and headers) may have `HEAD_LIMIT` bytes, and so may the lines
  between two chunks of a body, and its trailers.
- A head must be complete within `HEAD_SECONDS`. A body may pause for `BODY_SECONDS`.
- One address may hold `VISIONLOOP_MAX_CONNECTIONS` connections.
- A request with two `Host` headers is refused (RFC 9112, section 3.2).
- A connection without a peer, which was reset at once, is closed and never reaches the application.
- During a shutdown, idle connections stay open for `DRAIN_SECONDS`. A request in this time gets a
  503; uvicorn would reset the connection.

Each refusal is a response in the form of all our errors, sent before authentication.

Every response from the network has the id of its request (`request_id`), whichever code makes it.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import math
import socket
from collections import Counter
from typing import Any, ClassVar

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from access_log import RECEIVED, Received, log_refusal
from errors import (
    BackendUnavailable,
    HeadersTooLarge,
    RateLimited,
    RequestTimeout,
    ValidationFailed,
    VisionLoopError,
)
from request_id import HEADER, REQUEST_ID, chosen, of_request
from settings import get_settings

HEAD_LIMIT = 64 * 1024
HEAD_SECONDS = 10.0
BODY_SECONDS = 60.0
DRAIN_SECONDS = 1.0
LINGER = 2.0  # seconds for which the rest of a refused request is read and discarded
LINGERING = 100  # refused connections of one address that may linger; others are closed at once
PEER = "visionloop.peer"  # in the ASGI scope: address and port of the connection's other end
UNIX_SOCKET = "visionloop.unix_socket"  # in the ASGI scope: the request came through a Unix socket


def install() -> None:
    """Make uvicorn use `BoundedHttpProtocol` in this process; call it before the server starts."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedHttpProtocol.__name__}"
    logging.getLogger("uvicorn.error").addFilter(_not_told_twice)


def _not_told_twice(record: logging.LogRecord) -> bool:
    """Drops uvicorn's line on a request that it cannot parse: a refusal has a line of ours."""
    return record.msg != "Invalid HTTP request received."


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection of a client."""

    open_connections: ClassVar[Counter[str]] = Counter()
    """The number of open connections by the address of the client."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unix = False
        self._address: str | None = None
        self._in_head = False  # a head has begun and is not complete
        self._in_body = False  # the head of a request is complete, its body is not
        self._progress = False  # a head, a part of a body, or a message is complete
        self._framing = 0  # bytes received since the last progress
        self._timer: asyncio.TimerHandle | None = None
        self._last_byte = 0.0
        self._reason: VisionLoopError | None = None  # why a callback of the parser raised
        self._refused: VisionLoopError | None = None
        self._draining = False
        self._began = 0.0  # when the head of the newest request began, in the loop's seconds
        self._received: Received | None = None  # the newest request whose head is complete
        self._context = contextvars.copy_context()  # of no request

    # -- connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connected = transport.get_extra_info("socket")
        self._unix = connected is not None and connected.family == socket.AF_UNIX
        if not self._unix:
            if self.client is None:
                self._refused = ValidationFailed("The connection has no peer.")
                transport.abort()
                return
            self._address = self.client[0]
            self.open_connections[self._address] += 1
            settings = get_settings()
            count, most = (
                self.open_connections[self._address],
                settings.per_gateway(settings.max_connections),
            )
            if most and count > most:
                self._refuse(
                    RateLimited(
                        f"You have more than {most} open connections. Close some, or reuse them "
                        "(keep-alive).",
                        5,
                    )
                )
                if count > most + LINGERING:
                    transport.abort()
                return
        self._restart_timer(HEAD_SECONDS, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._address is not None:
            self.open_connections[self._address] -= 1
            if not self.open_connections[self._address]:
                del self.open_connections[self._address]
            self._address = None
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and self._refused is None:
            piece = rest[: HEAD_LIMIT - self._framing]
            self._progress = False
            super().data_received(piece)  # type: ignore[arg-type]
            self._framing = 0 if self._progress else self._framing + len(piece)
            if self._framing >= HEAD_LIMIT and self._refused is None:
                self._refuse(
                    HeadersTooLarge(
                        f"The request line and the headers have more than {HEAD_LIMIT:,} bytes. "
                        "Send less in cookies, headers or the query."
                    )
                )
            rest = rest[len(piece) :]
        if self._refused is None:
            self._last_byte = self.loop.time()
            if self._timer is None and self._in_body:
                self._restart_timer(BODY_SECONDS, self._body_is_late)
            elif self._timer is None and not self._responding:
                self._restart_timer(HEAD_SECONDS, self._head_is_late)

    @property
    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # -- callbacks of the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._received = None
        self._began = self.loop.time()
        self.scope[UNIX_SOCKET] = self._unix  # type: ignore[literal-required]
        self.scope[PEER] = self.client  # type: ignore[literal-required]

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # trailers are not headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._progress = True
        self._in_head = False
        self._stop_timer()
        if sum(name == b"host" for name, _ in self.headers) > 1:
            self._reason = ValidationFailed(
                "The request has more than one 'Host' header. Send one."
            )
            raise ValueError("two hosts")
        self._in_body = True
        if self._unix:  # the gateway sends the ids of a call's images along with them
            super().on_headers_complete()
            return
        self._received = Received(chosen(self.headers))
        self.scope[RECEIVED] = self._received  # type: ignore[literal-required]
        super().on_headers_complete()
        # the cycle is new, and its task has not run yet
        given = (HEADER.lower().encode(), self._received.request_id.encode())
        self.cycle.default_headers = [*self.cycle.default_headers, given]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Start a request in a context of its own: the current one may be that of the last one."""
        self._context.copy().run(super()._start_asgi_task, cycle, app)

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = True
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def _should_upgrade_to_ws(self) -> bool:
        return False  # no route uses WebSockets; their protocol has none of these bounds

    def _unsupported_upgrade_warning(self) -> None:
        """No warning: `curl --http2` asks for an upgrade with every request."""

    # -- timers

    def _restart_timer(self, seconds: float, call: Any) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        if not (self._in_head or self._framing):
            self.transport.close()  # no byte of a head has arrived: nobody waits for a response
            return
        self._refuse(
            RequestTimeout(
                f"The headers were not complete within {HEAD_SECONDS:g} seconds. Send the request "
                "again."
            )
        )

    def _body_is_late(self) -> None:
        now = self.loop.time()
        if self.flow.read_paused:  # the application has not read what arrived
            self._last_byte = now
        left = self._last_byte + BODY_SECONDS - now
        if left > 0:
            self._restart_timer(left, self._body_is_late)
        else:
            self._refuse(
                RequestTimeout(
                    f"The body paused for {BODY_SECONDS:g} seconds. Send the request again."
                )
            )

    # -- responses

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._reason or ValidationFailed("The request is not valid HTTP."))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self.pipeline or self._responding:
            return
        if self._refused is not None:
            self._answer(self._refused)
        elif self._draining:
            self._close_soon()
        elif self._in_head:  # the next request began during the response
            self._unset_keepalive_if_required()
            self._restart_timer(HEAD_SECONDS, self._head_is_late)
        elif self._in_body:  # the application did not read all of it: the rest is discarded
            self._restart_timer(BODY_SECONDS, self.transport.abort)

    def shutdown(self) -> None:
        if self._unix:  # `serving.shutdown.Drain` has waited for the gateway
            super().shutdown()
            return
        self._draining = True
        self.app = _unavailable
        if not self._responding:
            self._close_soon()
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _close_soon(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            DRAIN_SECONDS, self.timeout_keep_alive_handler
        )

    def _refuse(self, error: VisionLoopError) -> None:
        """Read nothing more; respond with `error`, after the responses to earlier requests."""
        self._refused = error
        self._stop_timer()
        if self.pipeline:
            self.transport.close()
        elif not self._responding:
            self._answer(error)
        elif self._in_body:
            started = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if started:
                self.transport.close()
            else:
                self._answer(error)

    def _answer(self, error: VisionLoopError) -> None:
        """Send the response, then discard what arrives until the client closes the connection.

        If it was closed with unread data, the client would see a reset instead of the response.
        """
        self._unset_keepalive_if_required()
        received = self._received or Received(chosen(self.headers or ()))  # None before any head
        request_id = received.request_id
        body = self._context.copy().run(self._told, error, received)
        headers = [
            *self.server_state.default_headers,
            (HEADER.lower().encode(), request_id.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._restart_timer(LINGER, self.transport.abort)

    def _told(self, error: VisionLoopError, received: Received) -> bytes:
        """The body for an error. It is logged, or is left to the application's line."""
        with of_request(received.request_id):
            body = json.dumps(error.to_json()).encode()
            if self._responding:
                received.refusal = error, len(body)
            else:
                seconds = self.loop.time() - self._began if self._began else 0.0
                log_refusal(self.client, error, len(body), seconds)
        return body


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    """The application during a shutdown. It reads the body, so that the connection is not reset."""
    try:
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body"):
                pass
    except TimeoutError:
        pass
    REQUEST_ID.set(scope[RECEIVED].request_id)
    error = BackendUnavailable("The service is shutting down. Try again.", 5)
    headers = {"Retry-After": "5", "Connection": "close"}
    await JSONResponse(error.to_json(), error.status, headers)(scope, receive, send)
