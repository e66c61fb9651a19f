"""Protection against requests from other sites' pages in a browser (CSRF, DNS rebinding)."""

from __future__ import annotations

import re
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.middleware.errors import answer
from errors import Forbidden, VisionLoopError
from settings import Settings

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # a foreign page cannot read the responses
PORT = re.compile(r":\d*$")


class Origins:
    """ASGI middleware that refuses requests from pages of other origins, unless allowed.

    Browsers send forms, even with files, to any origin without a preflight request. So a request
    that may change something must not come from a foreign origin. With DNS rebinding, a foreign
    page has our origin, because its host name resolves to this machine. So if no token is set,
    local requests must name a host that nobody else can own: `localhost` or an IP address.
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
            ours = origin.partition("://")[2].lower() == host  # a proxy may change the scheme
            if not ours and self.allowed.isdisjoint((origin, "*")):
                return Forbidden(
                    f"Pages of {origin[:100]} may not use this server. To allow them, add the "
                    "origin to VISIONLOOP_CORS_ORIGINS."
                )
        if self.open and host and _is_local(scope) and not _is_own(host):
            return Forbidden(
                "Without a token, requests from this machine must use 'localhost' or an IP address "
                "as host. Set VISIONLOOP_TOKEN to use other names."
            )
        return None


def _is_local(scope: Scope) -> bool:
    """Whether the caller is on this machine, or could be.

    If the port is 0, uvicorn took the address from a forwarding header, which a page can forge.
    """
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
