"""What the layers around a request tell one another about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import Scope

KEY = "visionloop"

USE, ADMIN = "use", "admin"


@dataclass(slots=True)
class Exchange:
    """One request and its answer; lives in the ASGI scope, which inner layers may copy.

    Attributes:
        scopes: What the caller's token allows.
        client: Whom the rate limit counts, the token's holder or an address.
        code: The error code that was answered, set by whoever wrote the answer.
        notes: What the answer says about parameters of the query that had no effect.
    """

    scopes: frozenset[str] = field(default_factory=frozenset)
    client: str = ""
    code: str | None = None
    notes: list[str] = field(default_factory=list)


def exchange(scope: Scope) -> Exchange:
    found: Exchange | None = scope.get(KEY)
    if found is None:
        found = scope[KEY] = Exchange()
    return found


def caller(request: Request) -> str:
    """Who asks, as records have it: the beginning of the token's digest, or an address."""
    kind, _, name = exchange(request.scope).client.partition(" ")
    return f"API, {kind} {name[:8] if kind == 'token' else name}".strip()
