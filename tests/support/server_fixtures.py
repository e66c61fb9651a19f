from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.types import ASGIApp

from api.app import create_app, with_middleware
from database import Database
from models_store.registry import Registry
from serving.gateway import Gateway
from settings import Settings
from tests.support import postgres_homes
from tests.support.correction_app import FRAMES, street, upload
from tests.support.seeds import rng
from tests.support.serving import ROOT, Server, environment
from tests.support.shapes import write_shapes
from tests.support.training_app import Service

Call = Callable[..., httpx.Response]


@pytest.fixture
def call() -> Call:
    """One request to an ASGI application in this process; what it raises, comes through."""

    def request(app: ASGIApp, method: str, path: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    return request


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after its first start. Copy it."""
    home = tmp_path_factory.mktemp("seeded")
    code = "from serving.lifecycle import fill; from settings import Settings; fill(Settings())"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(home), check=True)
    return home


@pytest.fixture(scope="session")
def new_home(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    def copy() -> Path:
        home = tmp_path_factory.mktemp("server")
        shutil.copytree(seeded, home, dirs_exist_ok=True)
        postgres_homes.copy(seeded / "home", home / "home")
        return home

    return copy


@pytest.fixture(scope="session")
def server(new_home: Callable[[], Path]) -> Iterator[Server]:
    """A server with the starter models, for tests that leave it as they found it."""
    running = Server(
        new_home(), VISIONLOOP_MAX_BODY_MB="4", VISIONLOOP_CORS_ORIGINS="https://a.example"
    )
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """A picture that is the same for the same arguments."""

    def draw(width: int = 320, height: int = 240, seed: int = 0, kind: str = "JPEG") -> bytes:
        random = rng(seed)
        coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        buffer = BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()

    return draw


@pytest.fixture(scope="module")
def drawn_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", "detect", 6, 2, 64)


@pytest.fixture
def service(tmp_path: Path, drawn_yaml: Path, call: Call) -> Iterator[Service]:
    settings = Settings(
        home=tmp_path / "home",
        data_roots=(drawn_yaml.parent.parent,),
        device="cpu",
        hosts=("testserver",),  # what schemathesis calls it
    )
    nobody: Any = {"detector": None, "annotator": None}
    gateway = Gateway(settings, Registry(Database(settings)), nobody)
    app = create_app(gateway)
    yield Service(
        app, with_middleware(app, settings, lambda: gateway.access), gateway, drawn_yaml, call
    )
    gateway.access.stop()
    gateway.registry.database.close()


@pytest.fixture
def frames(service: Service) -> str:
    """The id of an uploaded dataset of three images with an object each: FRAMES."""
    return upload(service, street(FRAMES))
