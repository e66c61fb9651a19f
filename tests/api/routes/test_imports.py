"""One import at a time, in this process; what is imported is another test's matter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from api.app import create_app, with_middleware
from api.routes import imports
from settings import Settings
from tests.support.patience import PATIENCE

FILE = {"file": ("a.zip", b"x")}
MODEL = {
    "id": "a:1",
    "name": "a",
    "description": "",
    "type": "detection",
    "family": "yolo",
    "version": "1",
    "classes": ["a"],
    "active": False,
    "promoted": False,
    "created_at": "2026-11-21T10:00:00Z",
    "size_bytes": 1,
    "metrics": None,
    "source": {"kind": "import"},
}


class Slow:
    """An import that goes on until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()
        self.timeouts: list[float] = []

    def __call__(self, *_: Any, timeout: float, **__: Any) -> Any:
        self.timeouts.append(timeout)
        self.begun.set()
        assert self.release.wait(PATIENCE)
        return SimpleNamespace(to_json=lambda: MODEL, id="m:1", promoted=False)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    found = Slow()
    monkeypatch.setattr(imports, "import_archive", found)
    return found


@pytest.fixture
def app(tmp_path: Path) -> ASGIApp:
    settings = Settings(home=tmp_path, import_timeout=PATIENCE)
    gateway: Any = SimpleNamespace(settings=settings, registry=None)
    return with_middleware(create_app(gateway), settings)


def client(app: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def test_an_import_whose_request_ended_still_keeps_others_out(app: ASGIApp, slow: Slow) -> None:
    async def run() -> None:
        async with client(app) as session:
            asked = asyncio.create_task(session.post("/models/import", files=FILE))
            await asyncio.to_thread(slow.begun.wait, PATIENCE)
            asked.cancel()
            await asyncio.wait({asked})
            refused = await session.post("/models/import", files=FILE)
            assert (refused.status_code, refused.json()["code"]) == (503, "BACKEND_UNAVAILABLE")
            slow.release.set()

            async def admitted() -> None:
                while not (await session.post("/models/import", files=FILE)).is_success:
                    pass

            assert len(slow.timeouts) == 1
            await asyncio.wait_for(admitted(), PATIENCE)
        assert len(slow.timeouts) == 2

    asyncio.run(run())


def test_a_slow_upload_keeps_nobody_out_and_has_less_time(app: ASGIApp, slow: Slow) -> None:
    slow.release.set()

    async def run() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()
        whole = httpx.Request("POST", "http://localhost", files=FILE)
        body = whole.read()

        async def halting() -> AsyncIterator[bytes]:
            yield body[:20]
            begun.set()
            await go_on.wait()
            yield body[20:]

        headers = {"Content-Type": whole.headers["Content-Type"]}
        async with client(app) as session:
            asked = asyncio.create_task(
                session.post("/models/import", content=halting(), headers=headers)
            )
            await begun.wait()
            await asyncio.sleep(0.2)
            assert (await session.post("/models/import", files=FILE)).is_success
            go_on.set()
            assert (await asked).is_success
        quick, late = slow.timeouts
        assert late + 0.15 < quick < PATIENCE

    asyncio.run(run())
