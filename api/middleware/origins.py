"""Pages of other sites, open in a browser that can reach this server, may not use it."""

from __future__ import annotations

import re
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.middleware.errors import answer
from errors import Forbidden, VisionLoopError
from settings import Settings

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # a page cannot read what they answer
PORT = re.compile(r":\d*$")


class Origins:
    """ASGI layer that refuses what a browser sends for a page that is neither ours nor allowed.

    Browsers send a form, a file too, to any address without asking: so what changes something
    must not come from a foreign origin. And a page whose own name suddenly leads to this machine
    (DNS rebinding) is of our origin: so without a token, this machine must be called by a name
    that nobody else can own.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.allowed = frozenset(settings.cors_origins)
        self.open = settings.token is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refusal(scope) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await answer(scope, error)(scope, receive, send)

    def _refusal(self, scope: Scope) -> VisionLoopError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in SAFE:
            ours = origin.partition("://")[2].lower() == host  # a proxy may have changed the scheme
            if not ours and self.allowed.isdisjoint((origin, "*")):
                return Forbidden(
                    f"Pages of {origin[:100]} may not use this server; "
                    "VISIONLOOP_CORS_ORIGINS names those that may."
                )
        if self.open and host and _is_local(scope) and not _is_own(host):
            return Forbidden(
                "Without a token, this machine answers itself under 'localhost' or an IP address "
                "only. Set VISIONLOOP_TOKEN to use other names."
            )
        return None


def _is_local(scope: Scope) -> bool:
    """Whether the caller is on this machine. Port 0: a proxy that is says who is behind it, and
    so might a page (uvicorn)."""
    address, port = scope.get("client") or ("", None)
    try:
        return port == 0 or ip_address(address).is_loopback
    except ValueError:
        return False


def _is_own(host: str) -> bool:
    """Whether a `Host` is `localhost` or an IP address."""
    name = PORT.sub("", host).strip("[]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
