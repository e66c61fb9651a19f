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


def log_request(
    method: str,
    path: str,
    route: str,
    status: int,
    seconds: float,
    client: str,
    sent: int,
    token: str | None = None,
    code: str | None = None,
) -> None:
    """Write the line of a request whose response has ended.

    Args:
        method: As sent.
        path: Without the query, which may hold what is secret.
        route: The template of the path.
        status: Of the response.
        seconds: From the request to the end of the response.
        client: The address.
        sent: Bytes of the response's body.
        token: The short name of the token.
        code: The error code.
    """
    level = logging.WARNING if status >= 500 else logging.INFO
    if path in QUIET:
        level = logging.DEBUG
    if not ACCESS.isEnabledFor(level):
        return
    shown = path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"
    fields: dict[str, object] = {
        "method": method,
        "path": shown,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "client": client,
        "bytes": sent,
    }
    who = client or "-"
    if token is not None:
        fields["token"] = token
        who = f"{who} token {token}"
    if code is not None:
        fields["code"] = code
    ACCESS.log(
        level,
        "%s %s %d%s %.1f ms %d B %s",
        method,
        shown,
        status,
        f" {code}" if code else "",
        seconds * 1000,
        sent,
        who,
        extra=fields,
    )


def log_refusal(
    client: tuple[str, int] | None, error: VisionLoopError, sent: int, seconds: float
) -> None:
    """Write the line of a request that is refused before it reaches the application."""
    address = client[0] if client else ""
    log_request("-", "-", UNMATCHED, error.status, seconds, address, sent, code=error.code)
