"""A server that tests can kill and start again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.server import PYTHON, ROOT, free_port

READY = 180.0  # time limit of a start in seconds, on a busy machine
SERVICES = ("Detector", "Annotator", "Trainer", "VisionLoop")
COMMAND = (PYTHON, "-m", "bentoml", "serve", "service:VisionLoop")


class Failed(Exception):
    """A check failed: the service did not do what it must."""


@dataclass
class Service:
    """A server; `folder` contains its homes, its log and the data for training."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def environment(self) -> dict[str, str]:
        ours = {"VISIONLOOP_HOME": str(self.home), "VISIONLOOP_DEVICE": "cpu"}
        ours |= {"BENTOML_HOME": str(self.folder / "bento"), "BENTOML_DO_NOT_TRACK": "true"}
        ours |= {"VISIONLOOP_DATA_ROOTS": str(self.folder / "data")}
        ours |= {"VISIONLOOP_ALLOW_DOWNLOAD": "never"}
        return {**os.environ, **ours, **self.settings}

    def start(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "--port", str(self.port)],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self.is_ready, READY, "the server is ready")

    def is_ready(self) -> bool:
        try:
            return self.client.get(self.url + "/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of an answer; repeats the request while the server is being restarted."""
        for _ in range(20):
            try:
                answer = self.client.request(method, self.url + path, **options)
            except httpx.HTTPError:
                time.sleep(0.5)
                continue
            if answer.status_code in (200, 201, 409):
                return answer.json()
            if answer.status_code != 503:
                raise Failed(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            time.sleep(0.5)
        raise Failed(f"{method} {path}: no answer")

    def family(self) -> list[psutil.Process]:
        """The server's processes, workers included."""
        if self.process is None or self.process.poll() is not None:
            return []
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def services(self) -> dict[str, psutil.Process]:
        """Service → its process."""
        found = {}
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "--service-name" in line:
                    found[line[line.index("--service-name") + 1]] = process
        return found

    def job_process(self, job_id: str = "") -> psutil.Process | None:
        """The process that runs a job; without an id, the process of any job. None if none runs."""
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "worker" in line and (job_id in line or not job_id):
                    return process
        return None

    def kill_all(self) -> None:
        """Send SIGKILL to every process, to the supervisor first."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait(30)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End all processes of the server."""
        family = self.family()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
        _, alive = psutil.wait_procs(family, timeout=40)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait(10)


def until(found: Callable[[], Any], seconds: float, what: str) -> Any:
    """Call `found` until its result is true; returns this result.

    Raises:
        Failed: The result was not true within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.1)
    raise Failed(f"This did not happen within {seconds:g} s: {what}.")
