"""The processes of jobs: how they end, and what is said of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from jobs.processes import death, is_alive, out_of_memory_kills, started_at
from tests.support.patience import PATIENCE


@pytest.mark.parametrize(
    ("text", "count"), [("pgfault 7\noom_kill 3\nx 1\n", 3), ("pgfault 7\n", 0), (None, 0)]
)
def test_the_kernels_count_of_ended_processes_is_read(
    tmp_path: Path, text: str | None, count: int
) -> None:
    if text is not None:
        (tmp_path / "vmstat").write_text(text)
    found = out_of_memory_kills(tmp_path / "vmstat", tmp_path / "cgroup")
    assert found == (count if sys.platform == "linux" else 0)


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_what_other_containers_lose_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("oom_kill 9\n")
    (tmp_path / "cgroup").write_text("1:cpu:/x\n0::/unit\n")
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "memory.events").write_text("oom 5\noom_kill 2\noom_group_kill 7\n")
    assert out_of_memory_kills(tmp_path / "vmstat", tmp_path / "cgroup", tmp_path) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_worker_dies_with_its_killed_dispatcher(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, os, time\n"
        "command = [sys.executable, '-c', 'import os, sys; sys.path.insert(0, os.getcwd());"
        "from jobs.worker import set_up_process; set_up_process(%d); print(1, flush=True);"
        "import time; time.sleep(9999)' % os.getpid()]\n"
        "child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(9999)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    assert worker.nice() == min(19, os.nice(0) + 10)
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs([worker], timeout=PATIENCE)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("code", "memory", "words"),
    [
        (-9, False, "SIGKILL"),
        (-9, True, "kernel: out of memory"),
        (-11, False, "SIGSEGV"),
        (-99, False, "signal 99"),
        (1, False, "exited with code 1"),
    ],
)
def test_how_a_worker_ended_is_said_in_words(code: int, memory: bool, words: str) -> None:
    assert words in death(code, memory)


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
def test_a_clock_that_is_set_does_not_end_a_job(
    monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    started = started_at(os.getpid())
    boot = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot + jump)
    assert is_alive(os.getpid(), started)
    assert not is_alive(os.getpid(), started + 10)
    assert started_at(2**22 + 1) == 0.0
