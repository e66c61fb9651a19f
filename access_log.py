"""The access log: one short line a request, from the middleware or from the HTTP protocol."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from errors import VisionLoopError
from process_log import ACCESS

RECEIVED = "visionloop.received"  # the key of a `Received` in the ASGI scope
QUIET = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})  # written with DEBUG only
LONGEST_PATH = 200  # characters
UNMATCHED = "unmatched"  # the route of requests whose path matches no route


@dataclass(slots=True)
class Received:
    """A request as the HTTP protocol knows it, for the middleware.

    Attributes:
        request_id: The id that the protocol answers with.
        refusal: What it has answered instead of the application, and bytes of that body.
    """

    request_id: str
    refusal: tuple[VisionLoopError, int] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A request whose response has ended; the defaults are of one that no route has seen.

    Attributes:
        status: Of the response.
        seconds: From the request to the end of the response.
        client: The address.
        sent: Bytes of the response's body.
        method: As sent.
        path: Without the query, which may hold what is secret.
        route: The template of the path.
        token: The short name of the token.
        code: The error code.
    """

    status: int
    seconds: float
    client: str
    sent: int
    method: str = "-"
    path: str = "-"
    route: str = UNMATCHED
    token: str | None = None
    code: str | None = None


def log_request(request: Answered) -> None:
    """Write the line of a request."""
    path, code = request.path, request.code
    level = logging.WARNING if request.status >= 500 else logging.INFO
    if path in QUIET:
        level = logging.DEBUG
    if not ACCESS.isEnabledFor(level):
        return
    shown = path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"
    fields: dict[str, object] = {
        "method": request.method,
        "path": shown,
        "route": request.route,
        "status": request.status,
        "ms": round(request.seconds * 1000, 1),
        "client": request.client,
        "bytes": request.sent,
    }
    who = request.client or "-"
    if request.token is not None:
        fields["token"] = request.token
        who = f"{who} token {request.token}"
    if code is not None:
        fields["code"] = code
    ACCESS.log(
        level,
        "%s %s %d%s %.1f ms %d B %s",
        request.method,
        shown,
        request.status,
        f" {code}" if code else "",
        request.seconds * 1000,
        request.sent,
        who,
        extra=fields,
    )


def log_refusal(
    client: tuple[str, int] | None, error: VisionLoopError, sent: int, seconds: float
) -> None:
    """Write the line of a request that is refused before it reaches the application."""
    address = client[0] if client else ""
    log_request(Answered(error.status, seconds, address, sent, code=error.code))
