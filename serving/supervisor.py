"""Patches of the supervisor of the service processes (BentoML 1.4.39, which uses circus).

- The control endpoints are sockets in a folder that only this user can open. BentoML's endpoints
  listen on TCP ports of 127.0.0.1; through them, every user of the machine could run commands with
  the rights of this user.
- A process that has ended is started again within a second. BentoML checks every 10 seconds, and
  in a container (`BENTOML_CONTAINERIZED`) it ends the server instead.
- The check runs within one step of the event loop. The check of circus blocks other commands
  meanwhile, including the command that SIGTERM triggers.
- Runners listen on Unix sockets, under WSL too. Under WSL, BentoML uses TCP ports, through which
  every user of the machine could send pickles to the runners.

`bentoml serve` has imported the supervisor's functions before `service.py`, so the class is
patched.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import time
import weakref
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from _bentoml_impl.server import serving
from bentoml._internal.utils.circus import Arbiter

import process_log
from serving.metrics_folder import is_same, sweep
from settings import Settings

log = logging.getLogger("visionloop")

CHECK = 0.5  # seconds between two checks for ended processes
QUICK = 10.0  # a process that ends within this many seconds of its start has ended quickly
LONGEST = 10.0  # longest delay in seconds before a process that keeps ending quickly is restarted
PREFIX = "visionloop-control-"

_original = Arbiter.__init__


@dataclass
class Restarts:
    """When a service process may be started again; one object per service.

    The first restart is immediate. If the process then ends quickly again and again, the next
    restarts wait for 1, 2, 4, 8 and 10 seconds.
    """

    started: float = field(default_factory=time.monotonic)
    quick: int = 0
    due: float | None = None

    def ended(self, now: float) -> None:
        """Record that the process has ended; call it once per process."""
        if self.due is None:
            self.quick = self.quick + 1 if now - self.started < QUICK else 1
            wait = min(LONGEST, 2.0 ** (self.quick - 3)) if self.quick > 2 else 0.0
            self.due = now + wait

    def is_due(self, now: float) -> bool:
        return self.due is not None and now >= self.due

    def restarted(self, now: float) -> None:
        self.started, self.due = now, None


def install(settings: Settings) -> None:
    """Patch the supervisor; call this in its process only."""
    serving.IS_WSL = False

    def with_own_endpoints(arbiter: Any, *args: Any, **options: Any) -> None:
        start_log(settings)  # `lifecycle.prepare` has done so, unless one inner service is served
        _with_own_endpoints(arbiter, *args, **options)

    Arbiter.__init__ = with_own_endpoints  # type: ignore[method-assign, assignment]
    Arbiter.manage_watchers = _restart_ended


@cache
def start_log(settings: Settings) -> None:
    """Log in the form of the settings from now on, and as JSON what others write to stderr."""
    process_log.configure(settings, lambda: "supervisor")
    if settings.log_format == "json":
        process_log.capture_stderr()


def _with_own_endpoints(arbiter: Any, *args: Any, **options: Any) -> None:
    folder, descriptor = control_folder()
    remove = weakref.finalize(arbiter, _remove, folder, descriptor)  # at the latest at exit
    options |= {
        "endpoint": f"ipc://{folder}/control",
        "pubsub_endpoint": f"ipc://{folder}/events",
        "check_delay": CHECK,
    }
    _original(arbiter, *args, **options)
    arbiter.restarts = {}
    arbiter.exit_stack.callback(remove)


def control_folder() -> tuple[Path, int]:
    """A new folder that only this user can open, and the descriptor that locks it.

    The folders of supervisors that were killed are removed.
    """
    prefix = f"{PREFIX}{os.getuid()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        sweep(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if is_same(descriptor, folder):
            return folder, descriptor
        os.close(descriptor)  # swept by another server before the lock


def _remove(folder: Path, descriptor: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)


def _restart_ended(arbiter: Any) -> None:
    """Start service processes that have ended again, as soon as their delay is over."""
    if arbiter._stopping or arbiter._exclusive_running_command is not None:
        return
    arbiter.reap_processes()
    now = time.monotonic()
    for watcher in arbiter.iter_watchers():
        restarts = arbiter.restarts.setdefault(watcher.name, Restarts())
        if not watcher.is_active() or len(watcher.processes) >= watcher.numprocesses:
            continue
        restarts.ended(now)
        if restarts.is_due(now):
            restarts.restarted(now)
            log.warning("The process of %s has ended; it is started again.", watcher.name)
            # all of those that ended together: one after another they would count as one process
            # that ends again and again
            for _ in range(watcher.numprocesses - len(watcher.processes)):
                watcher.spawn_process()
