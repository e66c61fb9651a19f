"""The state of one request, shared by the middleware and the handlers."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import Scope

KEY = "visionloop"

USE, ADMIN = "use", "admin"


@dataclass(slots=True)
class Exchange:
    """State of one request; stored in the ASGI scope, which inner layers may copy.

    Attributes:
        scopes: The scopes that the caller's token grants.
        client: The name by which the rate limit counts the caller: `token DIGEST` or `address IP`.
        code: The error code of the response; None: no error so far.
        notes: Sentences on query parameters that had no effect.
        proxied: Whether the request came through a proxy, so the caller is not on this machine.
        prefix: The path below which the caller reaches the service, such as `/vision`.
    """

    scopes: frozenset[str] = field(default_factory=frozenset)
    client: str = ""
    code: str | None = None
    notes: list[str] = field(default_factory=list)
    proxied: bool = False
    prefix: str = ""


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
    """The caller's name in stored records: the start of the token's digest, or the address."""
    kind, _, name = exchange(request.scope).client.partition(" ")
    return f"API, {kind} {name[:8] if kind == 'token' else name}".strip()
