"""A server under test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from tests.support import postgres_homes
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
# As the command `bentoml`, whose first line names a place that a moved checkout has left; without
# -P the current folder would come first.
BENTOML = (sys.executable, "-P", "-m", "bentoml")


class Server:
    """`bentoml serve` in a process of its own, on a home of its own."""

    target = "service:VisionLoop"
    folder = ROOT  # that it is started in

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "log"
        self.environment = environment(home) | settings
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> Server:
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*BENTOML, "serve", self.target, "--port", str(self.port)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/readyz", timeout=PATIENCE).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"not ready within {PATIENCE:g} s:\n{self.log.read_text()}")

    def workers(self) -> dict[str, psutil.Process]:
        """The processes by service."""
        assert self.process is not None
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # has just ended
                line = child.cmdline()
                if "--service-name" in line:
                    found[line[line.index("--service-name") + 1]] = child
        return found

    def listening(self) -> set[int]:
        """The TCP ports on which its processes listen."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        return {
            found.laddr.port
            for process in [parent, *parent.children(recursive=True)]
            for found in process.net_connections("inet")
            if found.status == psutil.CONN_LISTEN
        }

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and see that none of its processes stays."""
        if self.process is None:
            return
        family = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        family += [child for parent in family for child in parent.children(recursive=True)]
        self.process.send_signal(how)
        _, alive = psutil.wait_procs(family, timeout=PATIENCE)
        for process in alive:
            process.kill()
        self.process.wait()
        self.process = None
        assert not alive, f"{alive} outlived the server:\n{self.log.read_text()}"


def environment(home: Path) -> dict[str, str]:
    """Of a process that uses `home`, free of settings of the machine."""
    ours: tuple[str, ...] = ("VISIONLOOP_", "BENTOML_", "PROMETHEUS_")
    if not postgres_homes.chosen():
        ours = (*ours, "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "VISIONLOOP_HOME": str(home / "home"),
        "BENTOML_HOME": str(home / "bento"),
        "VISIONLOOP_DEVICE": "cpu",
        "VISIONLOOP_ENGINE": "onnxruntime",  # engines are tried where a test is about it
        "VISIONLOOP_ALLOW_DOWNLOAD": "never",
        "VISIONLOOP_REQUEST_TIMEOUT": f"{PATIENCE:g}",  # a busy machine is no fault of the server
        "BENTOML_DO_NOT_TRACK": "true",
    }
