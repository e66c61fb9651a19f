"""The processes of jobs: which there are, whether they live, and ending them.

A worker and everything it starts carry the job's id in their environment, so a job's processes
are found even when their parent, their group or the server that started them is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

JOB_ENV = "VISIONLOOP_JOB"  # environment variable

SIGNAL_SAVE_AND_EXIT = (
    signal.SIGUSR1
)  # to a worker: save what there is and end; by default it just ends
SIGNAL_EXIT = signal.SIGHUP  # to a worker: end at once, whatever it does

END_GRACE = 0.5  # seconds in which a worker follows that

TERM_GRACE = 2.0  # seconds from SIGTERM to SIGKILL
KILL_GRACE = 2.0  # seconds that a killed process may take to go (a device driver can hold it)
STEP = 0.05
COUNTERS = Path("/proc/vmstat")  # the kernel's, of the whole machine
GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
CLOCK = 2.0  # seconds that two readings of one start time may differ (the clock was set)


def started_at(pid: int) -> float:
    """When a process began; with its pid it names a process for good. 0.0 if it is gone."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def is_alive(pid: int | None, started: float | None) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    if pid is None or started is None:
        return False
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < CLOCK
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def marked() -> dict[str, list[psutil.Process]]:
    """Every living process that belongs to a job, by the job's id."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            job = process.environ().get(JOB_ENV)
            if job and process.status() != psutil.STATUS_ZOMBIE:
                found.setdefault(job, []).append(process)
    return found


async def end_group(pid: int, ask: signal.Signals | None = None, patience: float = 0.0) -> None:
    """SIGTERM to a process group, SIGKILL to what is left of it after the grace.

    Args:
        pid: The group's first process.
        ask: A signal that only that process gets, before.
        patience: Seconds in which it may follow that signal.
    """
    if ask is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, ask)
        for _ in range(round(patience / STEP)):
            if not _lives(pid):
                break
            await asyncio.sleep(STEP)
    for number, grace in ((signal.SIGTERM, TERM_GRACE), (signal.SIGKILL, KILL_GRACE)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
        for _ in range(round(grace / STEP)):
            if not _members(pid):
                return
            await asyncio.sleep(STEP)


def _members(group: int) -> list[int]:
    """The pids of a process group, zombies left out."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == group and _lives(pid):
                found.append(pid)
    return found


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def kill(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """SIGKILL, and wait until they are gone. Returns those that are not."""
    listed = list(processes)
    for process in listed:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return list(psutil.wait_procs(listed, timeout=KILL_GRACE)[1])


def out_of_memory_kills() -> int:
    """How often the kernel has ended a process for want of memory: one of this control group
    (a container, a systemd unit), else of the whole machine."""
    if sys.platform != "linux":
        return 0
    try:
        lines = _counters().read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _counters() -> Path:
    try:
        found = [line[3:] for line in GROUP.read_text().splitlines() if line.startswith("0::")]
    except OSError:
        return COUNTERS
    events = [GROUPS / path.lstrip("/") / "memory.events" for path in found]
    return next((path for path in events if path.is_file()), COUNTERS)


def death(code: int, memory: bool) -> str:
    """A sentence on how a process ended that did not say so itself."""
    if code >= 0:
        return f"The worker ended with exit code {code} and no result."
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if memory:
        return (
            f"The worker was ended by the system for want of memory ({name}). Use a smaller "
            "batch or imgsz."
        )
    return f"The worker was ended by {name}."
