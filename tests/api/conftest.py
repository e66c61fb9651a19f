from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from starlette.types import ASGIApp

ROOT = Path(__file__).parents[2]
START = 120.0  # seconds; a busy machine needs half of it

Call = Callable[..., httpx.Response]


@pytest.fixture
def call() -> Call:
    """One request to an ASGI application in this process; what it raises, comes through."""

    def request(app: ASGIApp, method: str, path: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    return request


class Server:
    """`bentoml serve` in a process of its own, on a home of its own."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "log"
        self.environment = environment(home) | settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        command = [sys.executable, "-m", "bentoml", "serve", "service:VisionLoop"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"not ready within {START:g} s:\n{self.log.read_text()}")

    def workers(self) -> dict[str, psutil.Process]:
        """The processes by service."""
        assert self.process is not None
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            line = child.cmdline()
            if "--service-name" in line:
                found[line[line.index("--service-name") + 1]] = child
        return found

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and see that none of its processes stays."""
        if self.process is None:
            return
        family = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        family += [child for parent in family for child in parent.children(recursive=True)]
        self.process.send_signal(how)
        _, alive = psutil.wait_procs(family, timeout=30)
        for process in alive:
            process.kill()
        self.process.wait()
        self.process = None
        assert not alive, f"{alive} outlived the server:\n{self.log.read_text()}"


def environment(home: Path) -> dict[str, str]:
    """Of a process that uses `home`, free of settings of the machine."""
    ours = ("VISIONLOOP_", "BENTOML_", "PROMETHEUS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "VISIONLOOP_HOME": str(home / "home"),
        "BENTOML_HOME": str(home / "bento"),
        "VISIONLOOP_DEVICE": "cpu",
        "BENTOML_DO_NOT_TRACK": "true",
    }


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after its first start. Copy it."""
    home = tmp_path_factory.mktemp("seeded")
    code = "from api.deployment import fill; from settings import Settings; fill(Settings())"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(home), check=True)
    return home


@pytest.fixture(scope="session")
def new_home(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    def copy() -> Path:
        home = tmp_path_factory.mktemp("server")
        return Path(shutil.copytree(seeded, home, dirs_exist_ok=True))

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
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        buffer = BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()

    return draw
