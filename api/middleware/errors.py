"""Error responses in one JSON form, for errors of our code, of FastAPI and of BentoML."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware.request_state import exchange
from api.request_text import PLAIN_TEXT, UNKNOWN
from disk_space import NO_ROOM, is_disk_full
from errors import (
    BackendTimeout,
    BackendUnavailable,
    Conflict,
    Forbidden,
    InsufficientStorage,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    Unauthorized,
    ValidationFailed,
    VisionLoopError,
    our_fault,
)
from field_names import unknown_sentence
from models_store.store import bento_home
from nesting import check_json_depth
from settings import Settings
from source_tree import ROOT

RETRY_AFTER = 5.0  # default seconds of `Retry-After`
CLIENT_GONE = 499  # the status in the metrics of a request whose client has disconnected
LONGEST_PATH = 200  # characters of a path in a message
SHOWN = 3  # errors of a body that a message tells

_BY_STATUS: dict[int, type[VisionLoopError]] = {
    kind.status: kind
    for kind in (
        ValidationFailed,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Conflict,
        PayloadTooLarge,
        RateLimited,
        BackendUnavailable,
        BackendTimeout,
        InsufficientStorage,
    )
}

Model = TypeVar("Model", bound=BaseModel)


def server_folders(settings: Settings) -> dict[Path, str]:
    """The folders that answers must not show → the text shown instead; see `errors.hide_paths`."""
    return {
        settings.home: "VISIONLOOP_HOME",
        bento_home(): "BENTOML_HOME",
        ROOT: "the server's code",
        Path(sys.prefix): "the server's Python",
        Path(sys.base_prefix): "the server's Python",
    }


def answer(scope: Scope, error: VisionLoopError, headers: Mapping[str, str] = {}) -> Response:
    """The response for an error; stores the error's code in the request's state."""
    exchange(scope).code = error.code
    response = JSONResponse(error.to_json(), error.status, dict(headers))
    if isinstance(error, (BackendUnavailable, RateLimited)):
        seconds = RETRY_AFTER if error.retry_after is None else error.retry_after
        response.headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="VisionLoop"'
    return response


def from_status(status: int, message: str) -> VisionLoopError | None:
    """Our error for an error response of FastAPI or BentoML; None: an internal error."""
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    return ValidationFailed(message) if status < 500 else None


def ours(body: bytes) -> VisionLoopError | None:
    """The error in a body of our form, such as a BentoML task's stored response; else None."""
    try:
        content = json.loads(body)
    except ValueError:
        return None
    if not isinstance(content, dict) or not content.keys() >= {"error", "code", "message"}:
        return None
    kind = next((kind for kind in _all(VisionLoopError) if kind.code == content["code"]), None)
    return kind(str(content["message"])) if kind else None


def _all(kind: type[VisionLoopError]) -> Iterator[type[VisionLoopError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _all(narrower)


def of_a_name(error: BaseException | None) -> VisionLoopError | None:
    """The 400 for a text that cannot be used as a path; None for other errors.

    This covers every function that opens a path. The server's own file names are short and ASCII,
    so such a text always comes from the client.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            name = str(error.filename or "")
            return ValidationFailed(
                f"{name[:80]!r}{'…' if name[80:] else ''} is not a usable path: {error.strerror}. "
                "A path may have 4,095 bytes, and 255 between two slashes."
            )
        broken = isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason
        if broken or (isinstance(error, ValueError) and "embedded null" in str(error)):
            return ValidationFailed("A text of the request is not plain Unicode: " + PLAIN_TEXT)
        error = error.__cause__ or getattr(error, "orig", None)
    return None


def of_a_full_disk(error: BaseException | None) -> VisionLoopError | None:
    """The 507 for a write that the disk has no room for; None for other errors."""
    return InsufficientStorage(NO_ROOM) if is_disk_full(error) else None


def explain(errors: Sequence[Mapping[str, Any]], legal: Mapping[str, str] = {}) -> str:
    """Pydantic's errors as sentences that name the field and, where known, its valid values."""
    sentences = " ".join(_sentence(error, legal) for error in errors[:SHOWN])
    return sentences or "The request is not valid."


def _sentence(error: Mapping[str, Any], legal: Mapping[str, str]) -> str:
    if error["type"] == UNKNOWN:
        return str(error["msg"])
    path = [str(part) for part in error["loc"]]
    name = ".".join(path[1:] if path[:1] in (["body"], ["query"], ["path"], ["header"]) else path)
    if error["type"] == "json_invalid":
        reason = error.get("ctx", {}).get("error") or error["msg"]
        return f"The body is not valid JSON: {reason}."
    if not name:
        return "The body must be a JSON object."
    if error["type"] == "missing":
        return f"'{name}' is required."
    got = f"; got {reprlib.repr(error['input'])}" if "input" in error else ""
    if name in legal:
        return f"'{name}' must be {legal[name]}{got}."
    return f"'{name}': {error['msg']}{got}."


def check(model: type[Model], values: Any, context: Any = None) -> Model:
    """Validate `values` (a mapping, or bytes of JSON). Returns an instance of `model`.

    Error messages contain the field's description as its valid values: "a number from 0 to 1".

    Raises:
        ValidationFailed: A field is unknown, missing or has an invalid value.
    """
    legal = {name: field.description or "" for name, field in model.model_fields.items()}
    if isinstance(values, (bytes, bytearray)):
        check_json_depth(values, "The body")
    try:
        if isinstance(values, (bytes, bytearray)):
            return model.model_validate_json(values, context=context)
        return model.model_validate(values, context=context)
    except ValidationError as error:
        shown = error.errors(include_url=False)[:SHOWN]
        found = [_knowing(model, one) for one in shown]
        raise ValidationFailed(explain(found, {k: v for k, v in legal.items() if v})) from None


def _knowing(model: type[BaseModel], error: Any) -> Mapping[str, Any]:
    """The error; for an unknown field of an inner model, with a message that lists known names."""
    if error["type"] != "extra_forbidden":
        return error
    *path, name = error["loc"]
    inner: Any = model
    for part in path:
        field = inner.model_fields.get(part)
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        inner = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
        if inner is None:
            return error
    sentence = unknown_sentence(str(name), list(inner.model_fields))
    return {"type": UNKNOWN, "msg": f"{'.'.join(map(str, path))}: {sentence}" if path else sentence}


class Errors:
    """ASGI middleware that converts every error response to our form.

    It converts exceptions of inner layers to responses, replaces error responses of FastAPI and
    BentoML, and cancels a request without a response after `timeout` seconds. `longer` maps paths
    to other timeouts.
    """

    def __init__(
        self, app: ASGIApp, timeout: float, longer: Mapping[str, float] | None = None
    ) -> None:
        self.app = app
        self.timeout = timeout
        self.longer = longer or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        reply = _Reply(scope, send)
        seconds = self.longer.get(scope["path"], self.timeout)
        error: VisionLoopError | None = None
        cause: Exception | None = None
        try:
            async with asyncio.timeout(seconds) as reply.timer:
                await self.app(scope, receive, reply)
        except VisionLoopError as raised:
            error, cause = raised, raised
        except TimeoutError as raised:
            cause = raised
            if reply.timer is not None and reply.timer.expired():
                error = BackendTimeout(
                    f"The request took longer than {seconds:g} s. Try again later, or send less at "
                    "once."
                )
        except ClientDisconnect as raised:
            cause = raised
            exchange(scope).code = "CLIENT_GONE"
            if not reply.started:
                await Response(status_code=CLIENT_GONE)(scope, receive, send)
            return
        except Exception as raised:
            cause = raised
        if reply.started:
            if cause is not None:  # the response has begun: signal the error by a broken connection
                raise cause
            return
        if error is None:
            error = reply.foreign_error() if cause is None else None
        if error is None:
            error = of_a_name(cause) or of_a_full_disk(cause)
        if error is None:
            error = our_fault(cause, f"{scope['method']} {scope['path']}")
        await answer(scope, error, reply.kept_headers())(scope, receive, send)


class _Reply:
    """A `send` that forwards our responses and holds back error responses of other code."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.send = send
        self.started = False
        self.timer: asyncio.Timeout | None = None
        self.held: Message | None = None
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self.started:
            if message["status"] >= 400 and exchange(self.scope).code is None:
                self.held = message
                return
            self.started = True
            if self.timer is not None:
                self.timer.reschedule(None)  # a streamed response may take any time
        if self.held is not None:
            self.body += message.get("body", b"")
            return
        await self.send(message)

    def foreign_error(self) -> VisionLoopError | None:
        if self.held is None:
            return None
        status = self.held["status"]
        return ours(self.body) or from_status(status, _message(status, self.body, self.scope))

    def kept_headers(self) -> dict[str, str]:
        """Headers of the held-back response that also apply to ours."""
        if self.held is None:
            return {}
        headers = MutableHeaders(raw=list(self.held.get("headers", [])))
        return {name: headers[name] for name in ("Allow", "Retry-After") if name in headers}


def shown_path(scope: Scope) -> str:
    """The path of a request as its caller wrote it, shortened for messages."""
    path: str = exchange(scope).prefix + scope["path"]
    return path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"


def _message(status: int, body: bytes, scope: Scope) -> str:
    """The message in an error response of FastAPI or BentoML (a list, text, pydantic errors)."""
    if status == NotFound.status:
        docs = f"{exchange(scope).prefix}/docs"
        return f"There is no '{shown_path(scope)}'. {docs} lists the routes."
    if status == MethodNotAllowed.status:
        return f"'{shown_path(scope)}' does not take {scope['method']}."
    try:
        content = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip() or "The request is not valid."
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, dict):
        return str(content)
    if isinstance(content.get("detail"), list):
        return explain(content["detail"])
    return str(content.get("detail") or content.get("error") or "The request is not valid.")
