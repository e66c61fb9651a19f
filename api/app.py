"""The FastAPI application, and the middleware in front of every route of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware.errors import Errors, answer, server_folders, shown_path
from disk_space import no_room
from errors import MethodNotAllowed, ValidationFailed, VisionLoopError, hide_paths
from request_id import HEADER
from serving.http_protocol import UNIX_SOCKET
from settings import Settings
from source_tree import VERSION

if TYPE_CHECKING:
    from fastapi import FastAPI

    from access.control import AccessControl
    from serving.gateway import Gateway


IMPORT, UPLOAD, CHECK = "/models/import", "/api/datasets", "/api/datasets/check"
COMPARE = "/metrics/compare"
BATCH, CORRECT = "/api/auto_annotate/batch", "/api/datasets/*/annotations"
IMAGES = "/api/datasets/*/images"
COMMIT = "/api/datasets/*/drafts/commit"
DOWNLOAD = "/models/*/download"  # makes some files itself
READ = ("/api/datasets/*/export", "/api/datasets/*/diff", "/api/annotation/queue")
TASKS = "/label-studio/predict"  # path of a request with many tasks; Label Studio waits 100 s
TASKS_TIMEOUT = 95.0  # seconds for a request to TASKS
PICKLE = "application/vnd.bentoml+pickle"
MODES = ("regular", "incremental", "distillation", "freeze-strategy")
TRAIN = ("/train", *(f"/api/training/{mode}" for mode in MODES))  # these read the dataset


def longest(settings: Settings) -> float:
    """BentoML's own timeout in seconds: above all of ours, because its 504 lacks our error body."""
    return max(settings.request_timeout, settings.import_timeout, TASKS_TIMEOUT) + 30


def guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    """`app`, a runner's application, with our middleware for requests from the network.

    The gateway's requests come through a Unix socket, whose folder only this user can open; they
    need no token. A missing client address would be no proof: a TCP connection that was reset at
    once has none either.
    """

    @cache
    def access() -> AccessControl:
        from access.control import AccessControl  # late: a runner behind a gateway needs none

        return AccessControl.open(settings)

    outside = with_middleware(_without_pickle(app), settings, access)

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        inside = scope["type"] == "lifespan" or scope.get(UNIX_SOCKET) is True
        await (app if inside else outside)(scope, receive, send)

    return choose


def _without_pickle(app: ASGIApp) -> ASGIApp:
    """`app`, which refuses bodies in BentoML's pickle format, because they could run any code.

    BentoML (1.4.39) refuses it for the service that was loaded, but not for one of its inner
    services that is served at a TCP port.
    """

    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        kind = Headers(scope=scope).get("content-type", "") if scope["type"] == "http" else ""
        if kind.partition(";")[0].strip().lower() == PICKLE:
            error = ValidationFailed(f"'{PICKLE}' is not allowed. Send JSON or a form.")
            await answer(scope, error)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return check


class LateBoundApp:
    """The ASGI application that BentoML mounts at `/`; built by `open`.

    Because it is not a Starlette application, BentoML's mount (`PassiveMount`, 1.4.39) forwards
    every path except those of BentoML's own routes, so that its index page and its tracker are
    never reached. The FastAPI application is built late, because the runner processes import the
    same module and must not import FastAPI.
    """

    def __init__(self, native: Mapping[str, str] = MappingProxyType({})) -> None:
        """`native` are the paths of BentoML's own routes, each with the method it accepts."""
        self.app: ASGIApp | None = None
        self.gateway: Gateway | None = None
        self.native = native

    def open(self, gateway: Gateway) -> None:
        """Build the application."""
        # Imported late, as in `create_app`.
        from api import thread_pool

        thread_pool.divide(gateway.settings.gateway_workers)
        self.gateway = gateway
        self.app = create_app(gateway)

    def access(self) -> AccessControl:
        """The gateway's named tokens and audit trail."""
        assert self.gateway is not None, "BentoML runs the startup hooks first"
        return self.gateway.access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None, "BentoML runs the startup hooks first"
        inner = scope
        if scope["method"] == "HEAD":  # handled as GET, but uvicorn must see HEAD
            inner = {**scope, "method": "GET"}
        if scope["path"] in self.native:
            await _not_allowed(inner, [self.native[scope["path"]]])(inner, receive, send)
            return
        try:
            if scope["method"] == "HEAD":
                await _without_stream(self.app, inner, receive, send)
            else:
                await self.app(inner, receive, send)
        finally:  # the request metrics read this
            scope["route"] = inner.get("route")


async def _without_stream(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer HEAD as GET; of a stream of events only the head, as the stream would go on."""
    over = asyncio.get_running_loop().create_future()

    async def head_alone(message: Message) -> None:
        await send(message)
        kind = dict(message.get("headers", ())).get(b"content-type", b"")
        if message["type"] == "http.response.start" and kind.startswith(b"text/event-stream"):
            await send({"type": "http.response.body"})
            over.set_result(None)
            await asyncio.Event().wait()  # until it is cancelled

    running = asyncio.ensure_future(app(scope, receive, head_alone))
    try:
        await asyncio.wait((running, over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not running.done():
            running.cancel()
            await asyncio.wait((running,))
    if not over.done():
        await running


def create_app(gateway: Gateway) -> FastAPI:
    """The REST API, without the middleware of `with_middleware`."""
    # Imported late: the runners import this file as well, but not FastAPI.
    from fastapi import Depends, FastAPI

    from api import docs
    from api.console.event_hub import EventHub
    from api.console.stats import StatsReader
    from api.middleware.queries import known_query
    from api.openapi import document, operation_id
    from api.routers import ROUTERS

    app = FastAPI(
        title="VisionLoop",
        version=VERSION,
        description="Image recognition: annotate, train, evaluate, promote, serve.",
        openapi_url=docs.DOCUMENT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(known_query)],
        generate_unique_id_function=operation_id,
    )
    app.state.gateway = gateway
    app.state.events = EventHub(gateway)
    app.state.stats = StatsReader(gateway)
    for router in ROUTERS:
        app.include_router(router)
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, Route)]
    app.state.routes = routes  # those of `app` are the routers, since FastAPI 0.165
    app.add_exception_handler(VisionLoopError, _answer)
    app.add_exception_handler(MethodNotAllowed.status, partial(_method_not_allowed, routes))
    docs.mount_assets(app)
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    return app


async def _method_not_allowed(
    routes: Sequence[Route], request: Request, error: Exception
) -> Response:
    """A 405 that lists all methods of the path; Starlette lists those of one route only.

    `/models/active` is a path of its own, though `/models/{model_id}` matches it as well.
    """
    path = request.scope["path"]
    matching = [route for route in routes if route.path_regex.match(path)]
    named = [route for route in matching if route.path == path] or matching
    found = [route.methods or set() for route in named]
    return _not_allowed(request.scope, sorted(set().union(*found)))


def _not_allowed(scope: Scope, methods: list[str]) -> Response:
    allowed = ", ".join(methods)
    error = MethodNotAllowed(
        f"'{shown_path(scope)}' allows {allowed}, not {scope['method']}. /docs shows each call."
    )
    return answer(scope, error, {"Allow": allowed})


async def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, VisionLoopError)
    return answer(request.scope, error)


class _CORS(CORSMiddleware):
    """Starlette's CORS middleware, but refused preflight requests get an error of our form."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        error = ValidationFailed(
            f"{bytes(response.body).decode()}. Allow the page's origin with "
            "VISIONLOOP_CORS_ORIGINS."
        )
        kept = {n: v for n, v in response.headers.items() if not n.startswith("content-")}
        return JSONResponse(error.to_json(), error.status, kept)


def with_middleware(
    app: ASGIApp, settings: Settings, access: Callable[[], AccessControl] | None = None
) -> ASGIApp:
    """`app` in our middleware, which BentoML's own routes pass too; listed innermost first.

    `access` returns the named tokens and the audit trail; without it there are none.
    """
    # Imported late: the runners import this file as well, but have no middleware.
    from api.middleware.audit import Audited
    from api.middleware.auth import Auth
    from api.middleware.limits import TOGETHER, BodyLimit, PathTable, RateLimit
    from api.middleware.metrics import Measured
    from api.middleware.origins import Origins
    from api.middleware.proxies import PrefixAlone, Proxies
    from api.middleware.request_log import RequestLog
    from api.schemas import PICTURE_HEADERS
    from serving.gateways.peers import shared_folder

    hide_paths(server_folders(settings))
    uploads = dict.fromkeys((UPLOAD, BATCH, CORRECT, IMAGES), settings.max_upload_bytes)
    larger = PathTable({IMPORT: settings.max_model_bytes} | uploads)
    app = BodyLimit(
        app,
        settings.max_body_bytes,
        larger,
        together=settings.per_gateway(TOGETHER),
        no_room=partial(no_room, settings),
    )
    limit = RateLimit(app, settings.rate_limit, shared_folder(settings))
    app = Auth(limit, settings, limit, access)
    app = Origins(app, settings, lambda: access is not None and access().live.closed)
    slow = (
        IMPORT, UPLOAD, CHECK, COMPARE, BATCH, CORRECT, IMAGES, COMMIT, DOWNLOAD, *READ, *TRAIN
    )  # fmt: skip
    longer = PathTable(dict.fromkeys(slow, settings.import_timeout))
    longer[TASKS] = max(settings.request_timeout, TASKS_TIMEOUT)
    app = Errors(app, settings.request_timeout, longer)
    if access is not None:
        app = Audited(app, settings, access)
    if settings.cors_origins:
        app = _CORS(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Retry-After", HEADER, *(name for name, _, _ in PICTURE_HEADERS)],
        )
    app = Measured(app)
    if settings.root_path:
        app = PrefixAlone(app, settings.root_path)
    return Proxies(RequestLog(app), settings)
