"""The state of one request, shared by the middleware and the handlers."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Scope

from access_log import UNMATCHED

if TYPE_CHECKING:
    from access.sessions import BrowserSession
    from access.tokens import Token

KEY = "visionloop"
NOBODY = "open"  # `Exchange.who` of a caller without a valid token


@dataclass(slots=True)
class Exchange:
    """State of one request; stored in the ASGI scope, which inner layers may copy.

    Attributes:
        scopes: The scopes that the caller's token grants.
        who: The caller in the audit trail: a named token's name, `environment token`,
            `environment admin token`, or `open` without a valid token.
        client: The name by which the rate limit counts the caller: `token NAME`, the name of an
            environment token, or `address IP`.
        token: The caller's named token, if it has one.
        session: The session by whose cookie the caller is known; None: it sent a token, or nothing.
        code: The error code of the response; None: no error so far.
        notes: Sentences on query parameters that had no effect.
        proxied: Whether the request came through a proxy, so the caller is not on this machine.
        prefix: The path below which the caller reaches the service, such as `/vision`.
        refused: Why the caller's scopes are not enough, if they are not.
        changes: Whether the route changes something that the audit trail records.
        route: The template of the route's path, once it is known.
        target: What is changed: id of a model, job or dataset, or name of a token.
        what: What was changed, in a few words.
        record_late: Adds an entry to the audit trail, with a status, for what a handler changes or
            is refused after its response; None until the end of the response.
    """

    scopes: frozenset[str] = field(default_factory=frozenset)
    who: str = NOBODY
    client: str = ""
    token: Token | None = None
    session: BrowserSession | None = None
    code: str | None = None
    notes: list[str] = field(default_factory=list)
    proxied: bool = False
    prefix: str = ""
    refused: str | None = None
    changes: bool = False
    route: str | None = None
    target: str | None = None
    what: str = ""
    record_late: Callable[[int], None] | None = None


CURRENT: ContextVar[Exchange | None] = ContextVar("CURRENT", default=None)
"""The state of the request being handled, for functions without its scope; None outside of one."""


def exchange(scope: Scope) -> Exchange:
    """The state of a request; created at the first call."""
    found: Exchange | None = scope.get(KEY)
    if found is None:
        found = scope[KEY] = Exchange()
    return found


def address_of(request: Request, path: str) -> str:
    """The path of a route as the caller has to request it, which may have a proxy's prefix."""
    return exchange(request.scope).prefix + path


def caller(request: Request) -> str:
    """The caller's name in stored records: its token, or its address if it has none."""
    return f"API, {exchange(request.scope).client}".strip()


def changed(what: str, target: str | None = None) -> None:
    """Have the audit trail say what the request being handled has changed."""
    state = CURRENT.get()
    if state is not None:
        state.what = what
        state.target = target or state.target
        if state.record_late is not None:
            state.record_late(200)


def unchanged() -> None:
    """Keep the request being handled out of the audit trail: it has changed nothing."""
    state = CURRENT.get()
    if state is not None:
        state.changes = False


def route_of(scope: Scope) -> str:
    """The path template of the route that has handled a request."""
    return getattr(scope.get("route"), "path", "") or UNMATCHED
