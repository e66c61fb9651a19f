"""Starts a server for a benchmark in its own process group, and ends the whole group."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable


@dataclass
class Server:
    url: str
    started: float
    process: subprocess.Popen[bytes]

    def memory(self) -> list[tuple[str, float]]:
        """For each process: the command it runs, and its proportional set size in MiB."""
        rows = []
        top = psutil.Process(self.process.pid)
        for process in [top, *top.children(recursive=True)]:
            words = process.cmdline()
            name = " ".join(Path(word).name for word in words[1:] if not word.startswith("-"))
            rows.append((name[:70] or process.name(), process.memory_full_info().pss / 2**20))
        return rows


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    command: list[str],
    port: int,
    log: Path,
    ready: str,
    env: Mapping[str, str],
    timeout: float = 300,
) -> Iterator[Server]:
    """Run `command` until the block ends; yields once `ready` (a path) answers 200.

    Raises:
        RuntimeError: The command ended, or was not ready within `timeout` seconds. The message
            contains the end of its log.
    """
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while True:
            if process.poll() is not None or time.perf_counter() - started > timeout:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{' '.join(command)} did not become ready:\n{tail}")
            try:
                if httpx.get(url + ready, timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        yield Server(url, started, process)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            break
        for _ in range(100):
            if process.poll() is not None and not _group_lives(process.pid):
                return
            time.sleep(0.1)
    process.wait(timeout=10)


def _group_lives(pgid: int) -> bool:
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    return True
