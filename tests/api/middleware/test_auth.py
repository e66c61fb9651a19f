from __future__ import annotations

import base64
from collections.abc import Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from api.app import with_middleware
from api.middleware.auth import require_admin
from settings import Settings

Call = Callable[..., httpx.Response]


async def use(request: Request) -> PlainTextResponse:
    return PlainTextResponse("used")


async def administer(request: Request) -> PlainTextResponse:
    await require_admin(request)
    return PlainTextResponse("done")


def protected(**tokens: str) -> ASGIApp:
    routes = [
        Route("/", use),
        Route("/readyz", use),
        Route("/static/x.js", use),
        Route("/predict", use, methods=["POST"]),
        Route("/models", use),
        Route("/models/active", administer, methods=["POST"]),
    ]
    return with_middleware(Starlette(routes=routes), Settings.model_validate(tokens))


def basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{token}".encode()).decode()


@pytest.mark.parametrize(
    ("tokens", "headers", "using", "administering"),
    [
        ({}, {}, 200, 200),
        ({}, {"Authorization": "Bearer whatever"}, 200, 200),
        ({"token": "t"}, {}, 401, 401),
        ({"token": "t"}, {"Authorization": "Bearer t"}, 200, 200),
        ({"token": "t"}, {"Authorization": "bearer  t"}, 200, 200),
        ({"token": "t"}, {"Authorization": "Token t"}, 200, 200),
        ({"token": "t"}, {"Token": "t"}, 200, 200),
        ({"token": "t"}, {"Authorization": basic("t")}, 200, 200),
        ({"token": "t"}, {"Authorization": basic("x")}, 401, 401),
        ({"token": "t"}, {"Authorization": "Basic %%%"}, 401, 401),
        ({"token": "t"}, {"Authorization": "Bearer tt"}, 401, 401),
        ({"token": "t"}, {"Authorization": "Bearer"}, 401, 401),
        ({"token": "ü"}, {"Authorization": basic("ü")}, 200, 200),
        ({"token": "ü"}, {"Authorization": "Bearer ü".encode()}, 200, 200),
        ({"token": "ü"}, {"Token": "ü".encode("latin-1")}, 200, 200),
        ({"token": "ü"}, {"Token": "Ã".encode()}, 401, 401),
        ({"token": " t\n"}, {"Authorization": "Bearer t"}, 200, 200),
        ({"token": "t", "admin_token": "a"}, {"Authorization": "Bearer t"}, 200, 403),
        ({"token": "t", "admin_token": "a"}, {"Authorization": "Bearer a"}, 200, 200),
        ({"token": "t", "admin_token": "a"}, {}, 401, 401),
        ({"admin_token": "a"}, {}, 200, 401),
        ({"admin_token": "a"}, {"Authorization": "Bearer a"}, 200, 200),
    ],
)
def test_tokens(
    call: Call,
    tokens: dict[str, str],
    headers: dict[str, str | bytes],
    using: int,
    administering: int,
) -> None:
    app = protected(**tokens)
    assert call(app, "GET", "/models", headers=headers).status_code == using
    assert call(app, "POST", "/predict", headers=headers).status_code == using
    assert call(app, "POST", "/models/active", headers=headers).status_code == administering


@pytest.mark.parametrize("path", ["/", "/readyz", "/static/x.js"])
def test_what_tells_nothing_about_models_needs_no_token(call: Call, path: str) -> None:
    assert call(protected(token="t"), "GET", path).status_code == 200


@pytest.mark.parametrize("path", ["/models", "/metrics", "/schema.json", "/nowhere", "/staticx"])
def test_everything_else_does_even_what_does_not_exist(call: Call, path: str) -> None:
    answer = call(protected(token="t"), "GET", path)
    assert answer.status_code == 401
    assert answer.json()["code"] == "UNAUTHORIZED"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
