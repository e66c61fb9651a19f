"""Request counts and latencies for Prometheus."""

from __future__ import annotations

from timeit import default_timer

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware.request_state import exchange, route_of
from serving.deferred import collect_afterwards
from serving.telemetry import ERRORS, LATENCY, REQUESTS, timed_route

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Measured:
    """ASGI middleware: measures every request, labelled by its route's path template."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = exchange(scope)
        status = 500
        after = collect_afterwards()
        began = default_timer()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = route_of(scope)
            method = scope["method"] if scope["method"] in METHODS else "other"
            REQUESTS.labels(route, method, status).inc()
            LATENCY.labels(timed_route(route)).observe(default_timer() - began)
            if state.code is not None:
                ERRORS.labels(state.code).inc()
            for call in after:
                call()
