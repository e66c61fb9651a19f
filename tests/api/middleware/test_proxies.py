"""Requests through proxies: prefixes, and whose headers are believed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api.app import create_app, with_middleware
from api.middleware.proxies import names_proxy
from api.middleware.request_state import address_of, exchange
from api.openapi import document
from api.routes.local_files import is_local
from process_log import ACCESS
from serving.http_protocol import PEER
from setting_values import OWN_PATHS
from settings import Settings

PROXY = "10.0.0.1"
MANY = "trusted_proxies"


async def told(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers what it knows of the request."""
    request = Request(scope)
    answer = {
        "path": scope["path"],
        "client": scope["client"][0],
        "scheme": scope["scheme"],
        "host": request.headers.get("host"),
        "address": address_of(request, "/x"),
        "proxied": exchange(scope).proxied,
        "local": is_local(request),
    }
    await JSONResponse(answer)(scope, receive, send)


def ask(
    path: str = "/models",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    peer: str = PROXY,
    method: str = "GET",
    http_version: str = "1.1",
    **settings: Any,
) -> httpx.Response:
    """A request as uvicorn hands it on, with the address of the connection's other end."""
    chosen = Settings.model_validate({"token": None} | settings)
    inner: Any = with_middleware(told, chosen)
    app: Any = ProxyHeadersMiddleware(inner, list(chosen.trusted_proxies) or "")

    async def connected(scope: Scope, receive: Receive, send: Send) -> None:
        made = {**scope, PEER: (peer, 4000), "http_version": http_version}
        await app(made, receive, send)

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(connected, client=(peer, 4000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as session:
            return await session.request(method, path, headers=headers)

    return asyncio.run(run())


OPEN: dict[str, Any] = {"hosts": ("*",)}
TRUSTED: dict[str, Any] = OPEN | {MANY: (PROXY,)}
FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "vision.example:8443",
    "X-Forwarded-Prefix": "/vision",
}


def test_a_trusted_proxy_is_believed() -> None:
    assert ask(headers=FORWARDED, **TRUSTED).json() == {
        "path": "/models",
        "client": "203.0.113.9",
        "scheme": "https",
        "host": "vision.example:8443",
        "address": "/vision/x",
        "proxied": True,
        "local": False,
    }


@pytest.mark.parametrize("trusted", [(), ("10.0.0.2", "192.168.0.0/16")])
@pytest.mark.parametrize("peer", [PROXY, "127.0.0.1"])
def test_any_other_is_believed_only_to_be_one(trusted: tuple[str, ...], peer: str) -> None:
    assert ask(headers=FORWARDED, peer=peer, hosts=("*",), trusted_proxies=trusted).json() == {
        "path": "/models",
        "client": peer,
        "scheme": "http",
        "host": "localhost",
        "address": "/x",
        "proxied": True,
        "local": False,
    }


@pytest.mark.parametrize(
    ("proxy", "peer"),
    [("10.0.0.0/8", PROXY), ("10.0.0.7/8", PROXY), ("fd00::/8", "fd00::1")],
)
def test_networks_are_trusted(proxy: str, peer: str) -> None:
    settings: dict[str, Any] = OPEN | {MANY: (proxy,)}
    answer = ask(headers=FORWARDED, peer=peer, **settings).json()
    assert (answer["host"], answer["address"]) == ("vision.example:8443", "/vision/x")
    assert (answer["client"], answer["scheme"]) == ("203.0.113.9", "https")


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the first was invented by the caller
        (["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1", f"203.0.113.9, {PROXY}"], "203.0.113.9"),
        (["banana"], PROXY),
        (["banana, 203.0.113.9"], "203.0.113.9"),
        ([""], PROXY),
        (["203.0.113.9", "unknown"], PROXY),
        (["x" * 500], PROXY),
    ],
)
def test_the_callers_address_is_what_the_trusted_proxy_saw(chain: list[str], client: str) -> None:
    headers = [("X-Forwarded-For", one) for one in chain]
    answer = ask(headers=headers, **TRUSTED).json()
    assert (answer["client"], answer["local"]) == (client, False)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("vision.example", "vision.example"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("evil.example, vision.example", "vision.example"),
        ("a b", "localhost"),
        ("http://vision.example/", "localhost"),
        ("user@vision.example", "localhost"),
        ("", "localhost"),
        ("vision.example,", "localhost"),
    ],
)
def test_a_forwarded_name_is_a_name(name: str, host: str) -> None:
    assert ask(headers={"X-Forwarded-Host": name}, **TRUSTED).json()["host"] == host


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("/vision", "/vision/x"),
        ("/vision/", "/vision/x"),
        ("/a/b", "/a/b/x"),
        ("vision", "/x"),
        ("//evil.example", "/x"),
        ("/../x", "/x"),
        ('/a"><script>', "/x"),
        ("https://evil.example", "/x"),
    ],
)
def test_a_forwarded_prefix_is_a_path(prefix: str, address: str) -> None:
    assert ask(headers={"X-Forwarded-Prefix": prefix}, **TRUSTED).json()["address"] == address


# --- the prefix of the setting


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/models", "/models"),  # the proxy has removed it
        ("/vision/models", "/models"),  # it has not
        ("/vision/vision/models", "/models"),  # a client has put it before a URL of an answer
        ("/vision/", "/"),
        ("/visionary/models", "/visionary/models"),
        ("/vision/a%2Fb", "/a/b"),
        ("/models/vision/x", "/models/vision/x"),
    ],
)
def test_the_prefix_is_removed_where_it_is_left(path: str, seen: str) -> None:
    answer = ask(path, root_path="/vision", **OPEN).json()
    assert (answer["path"], answer["address"]) == (seen, "/vision/x")


def test_the_prefix_alone_leads_to_the_page_below_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, ACCESS.name)
    answer = ask("/vision?a=1", root_path="/vision/")
    assert (answer.status_code, answer.headers["location"]) == (308, "/vision/?a=1")
    assert caplog.messages[0].startswith("GET /vision 308 ")
    assert ask("/vision", method="POST", root_path="/vision", **OPEN).json()["path"] == "/vision"


@pytest.mark.parametrize("path", ["/models", "/vision/models", "/vision/vision/models"])
def test_no_prefix_leads_past_the_token(path: str) -> None:
    answer = ask(path, token="t", root_path="/vision")
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
    assert ask("/vision/docs", token="t", root_path="/vision").status_code == 200


def test_the_setting_goes_before_the_header() -> None:
    answer = ask(headers=FORWARDED, root_path="/own", **TRUSTED).json()
    assert answer["address"] == "/own/x"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("vision", "write /vision"),
        ("/vi sion", "write /vision"),
        ("/../x", "write /vision"),
        ("/vision//x", "write /vision"),
        ("https://a.example/vision", "write /vision"),
        ("/api", "/api is the service's own"),
        ("/models/x", "/models is the service's own"),
    ],
)
def test_a_prefix_that_cannot_be_is_refused(value: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(root_path=value)


def test_no_prefix_can_be_a_route_of_ours() -> None:
    gateway: Any = None
    used = {path.split("/")[1] for path in document(create_app(gateway))["paths"]}
    pages = {"", "docs", "redoc", "openapi.json", "static"}
    native = {"tasks", "healthz", "schema.json"}
    assert (used | pages | native) - OWN_PATHS == {""}, "add them to OWN_PATHS in setting_values.py"


# --- who counts as a caller of this machine


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Host": "localhost"},
        {"x-forwarded-anything": ""},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "127.0.0.1"},
        {"CF-Connecting-IP": "127.0.0.1"},
    ],
)
def test_nobody_behind_a_proxy_is_local(headers: dict[str, str]) -> None:
    assert names_proxy(headers)
    answer = ask(headers=headers, peer="127.0.0.1", **OPEN).json()
    assert (answer["proxied"], answer["local"]) == (True, False)


def test_who_is_local() -> None:
    assert ask(peer="127.0.0.1").json()["local"]
    assert not ask(peer="127.0.0.1", root_path="/vision", **OPEN).json()["local"]
    trusted: dict[str, Any] = OPEN | {MANY: ("127.0.0.1",)}
    assert not ask(peer="127.0.0.1", **trusted).json()["local"]
    assert not ask(peer="127.0.0.1", http_version="1.0", **OPEN).json()["local"]


@pytest.mark.parametrize("how", [{"root_path": "/vision"}, {"http_version": "1.0"}])
def test_open_access_ends_where_nothing_tells_who_is_local(how: dict[str, Any]) -> None:
    answer = ask(peer="127.0.0.1", **how)
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert ask("/livez", peer="127.0.0.1", **how).status_code == 200
    assert ask(peer="127.0.0.1", token="t", **how).status_code == 401
    assert ask(peer="127.0.0.1", hosts=("localhost",), **how).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:3000", "192.168.1.5", ""])
def test_open_access_does_not_reach_through_a_proxy(host: str) -> None:
    headers = {"Host": host, "X-Forwarded-For": "203.0.113.9"}
    answer = ask(headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    for remedy in ("VISIONLOOP_TOKEN", "visionloop tokens create", "VISIONLOOP_HOSTS"):
        assert remedy in answer.json()["message"]
    assert ask("/livez", headers=headers).status_code == 200
    assert ask(headers=headers, token="t").status_code == 401
    assert ask(headers={"Host": host}).status_code == 200  # nothing tells of a proxy
    given = ask(headers=headers | {"Host": "vision.example"}, hosts=("vision.example",))
    assert given.status_code == 200
    assert ask(headers=headers, hosts=("*",)).status_code == 200
    assert ask(headers=headers, hosts=("192.168.1.5",)).status_code == (
        200 if host == "192.168.1.5" else 403
    )


def test_a_spoofed_name_does_not_open_it() -> None:
    spoofed = {"Host": "evil.example", "X-Forwarded-Host": "vision.example"}
    assert ask(headers=spoofed, hosts=("vision.example",)).status_code == 403
    trusted: dict[str, Any] = {"hosts": ("vision.example",), MANY: (PROXY,)}
    assert ask(headers=spoofed, **trusted).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"), [("https://vision.example", 200), ("https://b.example", 403)]
)
def test_pages_below_the_forwarded_name_are_our_own(origin: str, status: int) -> None:
    headers = {"X-Forwarded-Host": "vision.example", "Origin": origin}
    assert ask(headers=headers, method="POST", **TRUSTED).status_code == status
