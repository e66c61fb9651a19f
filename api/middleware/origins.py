"""Protection against requests from other sites' pages in a browser (CSRF, DNS rebinding)."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from functools import cache
from ipaddress import ip_address

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.middleware.auth import PROBES
from api.middleware.errors import answer
from api.middleware.request_state import exchange
from errors import Forbidden, VisionLoopError
from settings import Settings

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # a foreign page cannot read the responses
PORT = re.compile(r":\d*$")
TOKENS = "Create a token (visionloop tokens create NAME --scope admin), or set VISIONLOOP_TOKEN"


class Origins:
    """ASGI middleware that refuses requests from pages of other origins, unless allowed.

    Browsers send forms, even with files, to any origin without a preflight request. So a request
    that may change something must not come from a foreign origin. With DNS rebinding, a foreign
    page has our origin, because its host name resolves to this machine. So if no token is set,
    requests must name a host that such a page cannot have: `localhost`, an IP address, a name of
    this machine, or one of VISIONLOOP_HOSTS. With a token the page has no token, and names are
    checked only if VISIONLOOP_HOSTS gives some.

    A request through a proxy comes from elsewhere, whatever name the proxy calls this server by. So
    without a token it is served only if VISIONLOOP_HOSTS gives that name.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, closed: Callable[[], bool] = lambda: False
    ) -> None:
        """`closed` says whether named tokens have every request need one."""
        self.app = app
        self.allowed = frozenset(settings.cors_origins)
        self.hosts = frozenset(settings.hosts)
        self.open = not settings.token
        self.every_host = "*" in self.hosts or bool(settings.token and not self.hosts)
        self.closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = await self._refusal(scope) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await answer(scope, error)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> VisionLoopError | None:
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
        if scope["path"] in PROBES or self.every_host:
            return None
        closed = self.closed()
        if closed and not self.hosts:
            return None
        if self.open and not closed and exchange(scope).proxied:
            if not self._is_given(PORT.sub("", host)):
                return Forbidden(
                    "This request may have come through a proxy, so everybody could send it, and "
                    f"no token is needed. {TOKENS}; or, to serve everybody, add "
                    f"{PORT.sub('', host)[:100]!r} to VISIONLOOP_HOSTS."
                )
        elif host and not await self._may_be_called(host):
            by_token = "" if self.hosts else f" {TOKENS}: then every name may be used."
            return Forbidden(
                f"This server may not be called by the name {PORT.sub('', host)[:100]!r}. Add the "
                f"name to VISIONLOOP_HOSTS, or call it by its IP address.{by_token}"
            )
        return None

    async def _may_be_called(self, host: str) -> bool:
        """Whether a `Host` header is an allowed name, with or without a port."""
        name = PORT.sub("", host)
        if _is_address(name.strip("[]")) or self._is_given(name):
            return True
        name = name.removesuffix(".")
        if name == "localhost" or name.endswith(".localhost"):
            return True
        return name in await run_in_threadpool(machine_names)

    def _is_given(self, name: str) -> bool:
        """Whether VISIONLOOP_HOSTS gives a name."""
        name = name.removesuffix(".")
        parents = name.split(".")[1:]
        wider = (f"*.{'.'.join(parents[at:])}" for at in range(len(parents)))
        return name in self.hosts or any(one in self.hosts for one in wider)


@cache
def machine_names() -> frozenset[str]:
    """This machine's host names in lower case: short, full, and as multicast DNS has it.

    The first call may wait for a name server.
    """
    name = socket.gethostname().lower().removesuffix(".")
    short = name.partition(".")[0]
    full = socket.getfqdn().lower().removesuffix(".")
    return frozenset({name, short, f"{short}.local", full})


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
