"""The id of a request, in its context and its answer, and its line in the access log."""

from __future__ import annotations

from contextlib import nullcontext
from timeit import default_timer
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

import tracing
from access.entry import without_secrets
from access_log import QUIET, RECEIVED, Answered, Received, log_request
from api.middleware.request_state import NOBODY, exchange, route_of
from request_id import HEADER, chosen, of_request

_HEADER = HEADER.lower().encode()


class RequestLog:
    """ASGI middleware inside `Proxies` only: sets the request's id, writes its line at its end.

    The server's HTTP protocol has chosen the id and answers with it (`serving.http_protocol`);
    without that protocol, both are done here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received: Received | None = scope.get(RECEIVED)
        request_id = received.request_id if received else chosen(scope["headers"])
        state = exchange(scope)
        status, sent = 500, 0
        began = default_timer()

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                if received is None:
                    headers = [*message.get("headers", ()), (_HEADER, request_id.encode())]
                    message = {**message, "headers": headers}
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        path = without_secrets(scope["path"])
        traced = tracing.enabled() and path not in QUIET
        parent = tracing.caller(scope["headers"]) if traced else None
        with of_request(request_id), _span(scope, parent, request_id, traced) as span:
            try:
                await self.app(scope, receive, watched)
            finally:
                if received is not None and received.refusal is not None:
                    refusal, sent = received.refusal
                    status, state.code = refusal.status, refusal.code
                if span is not None:
                    span.update_name(f"{scope['method']} {route_of(scope)}")
                    span.set_attribute("http.route", route_of(scope))
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        tracing.failed(span, state.code or str(status))
                log_request(
                    Answered(
                        status=status,
                        seconds=default_timer() - began,
                        client=(scope.get("client") or ("",))[0],
                        sent=sent,
                        method=scope["method"],
                        path=path,
                        route=route_of(scope),
                        token=None if state.who == NOBODY else state.who,
                        code=state.code,
                    )
                )


def _span(scope: Scope, parent: str | None, request_id: str, traced: bool) -> Any:
    if not traced:
        return nullcontext()
    attributes = {
        "http.request.method": scope["method"],
        "url.path": without_secrets(scope["path"]),
        "client.address": (scope.get("client") or (None,))[0],
        "visionloop.request_id": request_id,
    }
    return tracing.span(scope["method"], parent, "SERVER", attributes)
