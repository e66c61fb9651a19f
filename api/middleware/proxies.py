"""Requests through proxies: their prefix, and whose headers are believed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api.middleware.request_state import exchange
from serving.http_protocol import PEER
from setting_values import ROOT_PATH
from settings import Settings

HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
NAMING = frozenset(
    ("forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip",
     "cf-connecting-ip", "fastly-client-ip", "x-original-forwarded-for",
     "x-envoy-external-address")
)  # fmt: skip
"""Headers that only proxies add, besides those that begin with `X-Forwarded-`."""

OLD_HTTP = "1.0"


class Proxies:
    """Outermost ASGI middleware for requests that came through a proxy.

    `VISIONLOOP_ROOT_PATH` is removed from the path where the proxy has left it there, so all other
    middleware sees the paths of the routes; `PrefixAlone` answers what has none of them.

    Headers are believed from the addresses in `VISIONLOOP_TRUSTED_PROXIES` only:
    `X-Forwarded-Host` replaces `Host`, and `X-Forwarded-Prefix` is the prefix if the setting gives
    none. uvicorn reads `X-Forwarded-For` and `X-Forwarded-Proto`, from the same addresses; a
    caller's address that is no address is dropped here.

    Of everybody one thing is believed: that there was a proxy. So the request does not count as one
    of this machine; see `Exchange.proxied`. HTTP/1.0 tells of one, because nginx speaks it to a
    server unless told, with the server's own address as `Host` and no header of its own. Where the
    setting gives a prefix there is a proxy, and every request may have come through it.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.root = settings.root_path
        self.trusted = [ip_network(proxy, strict=False) for proxy in settings.trusted_proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = exchange(scope)
        headers = Headers(scope=scope)
        peer = scope.get(PEER) or scope.get("client")
        trusted = self._trusts(peer)
        state.proxied = (
            bool(self.root)
            or trusted
            or names_proxy(headers.keys())
            or scope.get("http_version") == OLD_HTTP
        )
        state.prefix = self.root or (_prefix(headers) if trusted else "")
        inner: dict[str, Any] = dict(scope)
        if trusted:
            inner["headers"] = _with_forwarded_host(scope["headers"], headers)
            if scope.get("client") and not _is_address(scope["client"][0]):
                inner["client"] = peer
        path: str = scope["path"]
        while self.root and path.startswith(f"{self.root}/"):  # a client may put it before a URL
            path = path[len(self.root) :]
        if path != scope["path"]:
            inner |= {"path": path, "raw_path": quote(path).encode()}
        await self.app(inner, receive, send)

    def _trusts(self, peer: Any) -> bool:
        if not self.trusted or not peer or not _is_address(peer[0]):
            return False
        address = ip_address(peer[0])
        return any(address in network for network in self.trusted)


class PrefixAlone:
    """ASGI middleware inside `Proxies`: redirects from the prefix alone to the page below it."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self.app = app
        self.root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        alone = scope["type"] == "http" and scope["path"] == self.root
        if alone and scope["method"] in ("GET", "HEAD"):
            query = scope.get("query_string", b"").decode("latin-1")
            app = RedirectResponse(f"{self.root}/{'?' if query else ''}{query}", 308)
        await app(scope, receive, send)


def names_proxy(names: Iterable[str]) -> bool:
    """Whether the names of headers tell of a proxy."""
    return any(name.startswith("x-forwarded-") or name in NAMING for name in map(str.lower, names))


def _prefix(headers: Headers) -> str:
    """The prefix that a trusted proxy tells; empty if it is none."""
    told = headers.get("x-forwarded-prefix", "").strip().rstrip("/")
    return told if re.fullmatch(ROOT_PATH, told) else ""


def _with_forwarded_host(raw: list[tuple[bytes, bytes]], headers: Headers) -> Any:
    """The headers with `X-Forwarded-Host` as `Host`.

    Of several names it is the last: the trusted proxy wrote it, the others it may have been sent.
    """
    told = ",".join(headers.getlist("x-forwarded-host")).rpartition(",")[2].strip()
    if not HOST.fullmatch(told):
        return raw
    return [*(pair for pair in raw if pair[0] != b"host"), (b"host", told.encode())]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
