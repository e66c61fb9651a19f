"""Patches and workarounds for BentoML 1.4.39, each headed by the problem that it avoids.

The parts are independent: when BentoML fixes a problem, delete the part and its caller.

Workarounds that shape a whole module are documented in that module: `serving.envelope`
(dataclasses become dicts), `serving.shutdown` (all processes are stopped at once),
`serving.supervisor` (its control port, its restarts), `serving.http_protocol` (uvicorn's bounds),
`serving.runner_client` (a dead runner's socket accepts calls), `serving.trainer_client`
(`depends(...).submit` fails), `api.app.LateBoundApp` (a mount hides paths), `service` (the code's
folder is removed from `sys.path`), `jobs.worker` (SIGTERM reaches the Trainer's children).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _bentoml_impl.serde import JSONSerde, MultipartSerde
from bentoml import server_context
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from bentoml.exceptions import BadInput
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import ParseError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

import process_log
from errors import ValidationFailed, VisionLoopError
from models_store.store import bento_home
from nesting import check_json_depth
from serving import metrics_folder
from serving.large_bodies import LARGE
from settings import Settings
from source_tree import ROOT

# --- two services on one GPU: with `{"gpu": 1}` each, BentoML assigns the second one a device that
# does not exist
HALF_A_GPU = {"gpu": 0.5}

# --- the client of an inner service closes its session after 100 requests, even if calls are in
# flight (`_bentoml_impl/client/proxy2.py`; bentoml/BentoML#5540, #5544)
SESSION_STAYS_OPEN = {"max_requests": 10**9, "max_age": 1e9}


# --- workers are started in the supervisor's working directory


def enter_source_tree(settings: Settings) -> None:
    """Make the folder of the code the supervisor's working directory.

    BentoML starts and restarts the workers in the supervisor's working directory. That of the user
    may contain files named like our modules, or may have been deleted before a restart.

    Exits if a setting, BENTOML_HOME or --working-dir is a relative path, because it would mean
    different folders in different processes of the service.
    """
    meant, home = Settings(), bento_home()
    os.chdir(ROOT)
    moved = [f"VISIONLOOP_{n.upper()}" for n, value in meant if value != getattr(settings, n)]
    if home != bento_home():
        moved.append("BENTOML_HOME")
    # --working-dir is added to sys.path unchanged, and the workers are started in it later
    if any(not Path(place).is_absolute() for place in sys.path if place not in ("", ".")):
        moved.append("--working-dir")
    if moved:
        reason = (
            f"{' and '.join(moved)}: a relative path. The processes of the service run in the "
            "folder of its code; give the absolute path."
        )
        sys.exit(process_log.last_words(reason))


# --- `bentoml serve` empties its folder of metrics before any hook can refuse the start


def use_own_metrics_folder(settings: Settings) -> Path:
    """Set PROMETHEUS_MULTIPROC_DIR to a folder of this server, see `serving.metrics_folder`.

    Call this before prometheus_client is imported. In BentoML's folder a second server would delete
    the metrics of the first before its start is refused.

    Service processes create the folder; an error is ignored here and reported later during the
    start. The supervisor leaves this to `lifecycle.prepare`, which first checks VISIONLOOP_HOME.
    `bentoml build` needs no folder.
    """
    folder = metrics_folder.chosen(settings)
    if server_context.worker_index is not None:
        with contextlib.suppress(OSError):
            folder = metrics_folder.join(settings)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    # Imported late: prometheus_client reads the variable above when it is imported.
    from serving.prometheus_patches import reserve_space

    reserve_space()
    return folder


# --- the timer of a request's timeout is never cancelled: about 5 KB are kept until it fires


def cancel_timers() -> None:
    """Install `_with_timeout` for every service."""
    TimeoutMiddleware.__call__ = _with_timeout  # type: ignore[method-assign, assignment]


async def _with_timeout(
    middleware: TimeoutMiddleware, scope: Scope, receive: Receive, send: Send
) -> None:
    """Respond with 504 to a request whose response has not begun after `middleware.timeout`.

    The timer is cancelled when the response begins. An exception of the application is raised at
    once; BentoML's version waits for the timeout first.
    """
    if scope["type"] not in ("http", "websocket"):
        await middleware.app(scope, receive, send)
        return

    async def watched(message: Message) -> None:
        if timer.when() is not None:
            timer.reschedule(None)
        await send(message)

    try:
        async with asyncio.timeout(middleware.timeout) as timer:
            await middleware.app(scope, receive, watched)
    except TimeoutError:
        if not timer.expired():
            raise
        text = f"Not able to process the request in {middleware.timeout} seconds"
        await JSONResponse({"error": text}, 504)(scope, receive, send)


# --- every request passes OpenTelemetry's middleware, also if no spans are recorded; its spans of
# each `receive` and `send` have no route. `api.middleware.request_log` records one span a request


def record_no_spans() -> None:
    """Have BentoML build its applications without OpenTelemetry's middleware."""
    from opentelemetry.instrumentation import asgi  # 0.2 s; only where BentoML imports it as well

    asgi.OpenTelemetryMiddleware = lambda app, **_: app  # type: ignore[misc, assignment]


# --- native routes: a text field in place of a file is fetched as a URL


async def _require_upload(part: str | UploadFile) -> UploadFile:
    """Return an uploaded file without its name; refuse anything that is not a file.

    BentoML (`MultipartSerde.ensure_file`) fetches a URL that is sent in place of a file, even if
    the settings forbid URLs, and uses the client's file name, of any length, as part of a path.
    """
    if not isinstance(part, UploadFile):
        raise BadInput("'image' must be a file.")
    part.filename = None
    return part


def refuse_urls_as_files() -> None:
    """Install `_require_upload` for every native route."""
    MultipartSerde.ensure_file = staticmethod(_require_upload)


# --- native routes: unknown fields are ignored, empty fields are errors, damaged forms cause a 500

FieldCheck = Callable[[Request, list[str], type[BaseModel]], None]
"""Raises BadInput for the field names of a request that its route does not accept."""

_parse_form, _parse_json = MultipartSerde.parse_request, JSONSerde.parse_request


def check_fields(check: FieldCheck, explain: Callable[[ValidationError], str]) -> None:
    """Have native routes check the names of their fields, as the mounted routes do.

    An empty field of a form counts as not given. For a form that cannot be read or a value that is
    not allowed, the response is a 400 with the text of `explain`, instead of a 500 or pydantic's
    text.
    """

    async def parse_form(serde: MultipartSerde, request: Request, cls: Any) -> Any:
        try:
            given = (await request.form()).multi_items()
            check(request, [name for name, _ in given], cls)
            request._form = FormData([(name, part) for name, part in given if part != ""])
            return await _parse_form(serde, request, cls)
        except (MultiPartException, HTTPException, ParseError, UnicodeError, KeyError):
            raise BadInput("The form cannot be read: its parts are damaged.") from None
        except ValidationError as error:
            raise BadInput(explain(error)) from None

    async def parse_json(serde: JSONSerde, request: Request, cls: Any) -> Any:
        data = await request.body() or b"{}"
        if len(data) > LARGE:
            raise BadInput(
                f"A JSON body of this route may have {LARGE // 1024} KiB. Send images in a form."
            )
        try:
            check_json_depth(data, "The body")
        except ValidationFailed as error:
            raise BadInput(error.message) from None
        with contextlib.suppress(ValueError):  # BentoML refuses invalid JSON itself
            body = json.loads(data)
            check(request, list(body) if isinstance(body, dict) else [], cls)
        return await _parse_json(serde, request, cls)

    MultipartSerde.parse_request = parse_form
    JSONSerde.parse_request = parse_json


# --- native routes: our exceptions cause a 500 without their message


class RaisingResponse(Response):
    """A response that raises its error when it is sent.

    The error then reaches the middleware around BentoML's application, which writes the body.
    """

    def __init__(self, error: VisionLoopError) -> None:
        super().__init__(status_code=error.status)
        self.error = error

    async def __call__(self, *_: Any) -> None:
        if self.background is not None:  # closes the uploaded file
            await self.background()
        raise self.error
