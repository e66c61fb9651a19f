"""The processes of jobs: finding them, checking whether they are running, ending them.

A worker and its children have the job's id in their environment. So a job's processes can be found
even after their parent, their process group or the server that started them has ended.
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

from jobs.failures import TRY_AGAIN, UNREACHABLE

JOB_ENV = "VISIONLOOP_JOB"  # environment variable that holds the job's id

# Signals from the dispatcher to a worker. The default action of both is to end the process.
SIGNAL_SAVE_AND_EXIT = signal.SIGUSR1  # write a checkpoint and exit
SIGNAL_EXIT = signal.SIGHUP  # exit at once

END_GRACE = 0.5  # seconds from SIGNAL_EXIT to SIGTERM
TERM_GRACE = 2.0  # seconds from SIGTERM to SIGKILL
KILL_GRACE = 2.0  # maximum seconds from SIGKILL to the end (a device driver can delay it)
STEP = 0.05  # seconds between two checks whether a process has ended

COUNTERS = Path("/proc/vmstat")  # kernel counters of the whole machine
GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
CLOCK = 2.0  # maximum difference in seconds of two readings of a start time (adjusted clock)


def started_at(pid: int) -> float:
    """Start time of a process in seconds, 0.0 if it has ended. Detects reused pids.

    On Linux the seconds count from the boot, so that a change of the clock does not move them.
    """
    try:
        return _start_time(psutil.Process(pid))
    except psutil.Error:
        return 0.0


def is_alive(pid: int | None, started: float | None) -> bool:
    """Whether the process with this pid and start time is running; a zombie is not."""
    if pid is None or started is None:
        return False
    try:
        process = psutil.Process(pid)
        same = abs(_start_time(process) - started) < CLOCK
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _start_time(process: psutil.Process) -> float:
    if sys.platform != "linux":
        return float(process.create_time())
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()
    except OSError:
        raise psutil.NoSuchProcess(process.pid) from None
    # the 22nd field; the second, the name in brackets, may contain spaces (man 5 proc_pid_stat)
    return int(stat.rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def marked() -> dict[str, list[psutil.Process]]:
    """The running processes of jobs, by job id."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            job = process.environ().get(JOB_ENV)
            if job and process.status() != psutil.STATUS_ZOMBIE:
                found.setdefault(job, []).append(process)
    return found


async def end_group(
    pid: int,
    ask: signal.Signals | None = None,
    patience: float = 0.0,
    term_grace: float = TERM_GRACE,
) -> None:
    """End a process group: SIGTERM, then SIGKILL to the processes that are left.

    Args:
        pid: The pid of the group's leader.
        ask: A signal to send first, to the leader only.
        patience: Seconds for the leader to react to `ask`.
        term_grace: Seconds from SIGTERM to SIGKILL.
    """
    if ask is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, ask)
        for _ in range(round(patience / STEP)):
            if not _lives(pid):
                break
            await asyncio.sleep(STEP)
    for number, grace in ((signal.SIGTERM, term_grace), (signal.SIGKILL, KILL_GRACE)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
        for _ in range(round(grace / STEP)):
            if not _members(pid):
                return
            await asyncio.sleep(STEP)


def _members(group: int) -> list[int]:
    """The pids of the processes in a group, except zombies."""
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
    """Send SIGKILL and wait for the end. Returns the processes that are still running."""
    listed = list(processes)
    for process in listed:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return list(psutil.wait_procs(listed, timeout=KILL_GRACE)[1])


def out_of_memory_kills(
    counters: Path = COUNTERS, group: Path = GROUP, groups: Path = GROUPS
) -> int:
    """The number of times the kernel has killed a process because memory ran out.

    Counted for this control group (a container, a systemd unit), else for the whole machine; 0
    if the system does not provide the counter.

    Args:
        counters: The kernel's counters of the whole machine.
        group: The file that names this process's control groups.
        groups: The folder of all control groups.
    """
    if sys.platform != "linux":
        return 0
    try:
        lines = _counters(counters, group, groups).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _counters(counters: Path, group: Path, groups: Path) -> Path:
    try:
        found = [line[3:] for line in group.read_text().splitlines() if line.startswith("0::")]
    except OSError:
        return counters
    events = [groups / path.lstrip("/") / "memory.events" for path in found]
    return next((path for path in events if path.is_file()), counters)


def death(code: int, memory: bool) -> str:
    """The message for a worker that ended without reporting an outcome.

    Args:
        code: The exit code, negative for a signal.
        memory: Whether the kernel killed a process out of memory while the worker was running.
    """
    if code == TRY_AGAIN:
        return UNREACHABLE
    if code >= 0:
        return f"The worker exited with code {code} and without a result."
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if memory:
        return (
            f"The worker was killed by the kernel: out of memory ({name}). Use a smaller batch or "
            "imgsz."
        )
    return f"The worker was killed by {name}."
