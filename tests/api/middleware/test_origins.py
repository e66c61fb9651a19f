from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from api.app import with_middleware
from settings import Settings

Call = Callable[..., httpx.Response]
OK = PlainTextResponse("ok")


def behind(**settings: Any) -> ASGIApp:
    return with_middleware(OK, Settings.model_validate(settings))


@pytest.mark.parametrize(
    ("method", "origin", "allowed", "status"),
    [
        ("POST", "https://evil.example", (), 403),
        ("DELETE", "https://evil.example", (), 403),
        ("POST", "null", (), 403),
        ("POST", "http://localhost:4000", (), 403),
        ("POST", "https://evil.example", ("https://a.example",), 403),
        ("POST", "https://a.example", ("https://a.example",), 200),
        ("POST", "https://evil.example", ("*",), 200),
        ("POST", "http://localhost", (), 200),
        ("POST", "https://localhost", (), 200),
        ("POST", None, (), 200),
        ("GET", "https://evil.example", (), 200),
    ],
)
def test_a_foreign_page_changes_nothing(
    call: Call, method: str, origin: str | None, allowed: tuple[str, ...], status: int
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    answer = call(behind(cors_origins=allowed), method, "/models/import", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "FORBIDDEN"
        assert "VISIONLOOP_CORS_ORIGINS" in answer.json()["message"]


def ask(host: str, path: str = "/models", **settings: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(behind(**settings), client=("192.168.1.7", 4000))
        async with httpx.AsyncClient(transport=transport) as session:
            return await session.get(f"http://localhost{path}", headers={"Host": host})

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example:3000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("[::1].evil.example", 403),
        ("local", 403),
        ("localhost:3000", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1:3000", 200),
        ("192.168.1.5:3000", 200),
        ("[::1]:3000", 200),
        (socket.gethostname(), 200),
        (f"{socket.gethostname().upper()}:3000", 200),
        (f"{socket.gethostname().partition('.')[0]}.local", 200),
    ],
)
def test_without_a_token_only_names_that_no_foreign_page_can_have_are_served(
    host: str, status: int
) -> None:
    answer = ask(host)
    assert answer.status_code == status
    if status == 403:
        for remedy in ("VISIONLOOP_HOSTS", "visionloop tokens create", "VISIONLOOP_TOKEN"):
            assert remedy in answer.json()["message"]


@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        ("vision.example", "vision.example:80", 200),
        ("Vision.Example.", "VISION.example", 200),
        ("vision.example", "a.vision.example", 403),
        ("*.lab.example", "a.lab.example", 200),
        ("*.lab.example", "a.b.lab.example", 200),
        ("*.lab.example", "lab.example", 403),
        ("*.lab.example", "evillab.example", 403),
        ("one.example, *", "any.example", 200),
    ],
)
@pytest.mark.parametrize("token", [None, "t"])
def test_hosts_that_are_given_are_served_and_no_others(
    monkeypatch: pytest.MonkeyPatch, hosts: str, host: str, status: int, token: str | None
) -> None:
    monkeypatch.setenv("VISIONLOOP_HOSTS", hosts)
    passed = 401 if token else 200
    answer = ask(host, token=token)
    assert answer.status_code == (403 if status == 403 else passed)
    if status == 403:  # a token does not help where names are given
        assert "VISIONLOOP_TOKEN" not in answer.json()["message"]


def test_probes_and_servers_with_a_token_are_called_by_any_name() -> None:
    assert ask("balancer.example", "/livez").status_code == 200
    assert ask("vision.example", token="t").status_code == 401
