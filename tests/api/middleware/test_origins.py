from __future__ import annotations

import asyncio
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


def ask(host: str, client: tuple[str, int], **settings: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(behind(**settings), client=client)
        async with httpx.AsyncClient(transport=transport) as session:
            return await session.get("http://localhost/models", headers={"Host": host})

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example:3000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("[::1].evil.example", 403),
        ("localhost:3000", 200),
        ("127.0.0.1:3000", 200),
        ("192.168.1.5:3000", 200),
        ("[::1]:3000", 200),
    ],
)
@pytest.mark.parametrize("client", [("127.0.0.1", 4000), ("::1", 4000), ("8.8.8.8", 0)])
def test_a_name_that_leads_here_by_dns_is_refused_on_this_machine(
    host: str, status: int, client: tuple[str, int]
) -> None:
    answer = ask(host, client)
    assert answer.status_code == status
    assert status == 200 or "VISIONLOOP_TOKEN" in answer.json()["message"]


def test_names_are_free_for_other_machines_and_with_a_token() -> None:
    assert ask("vision.example", ("192.168.1.7", 4000)).status_code == 200
    assert ask("vision.example", ("127.0.0.1", 4000), token="t").status_code == 401
