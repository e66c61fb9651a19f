"""Child processes for work that imports torch or reads foreign files, with limits."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from errors import VisionLoopError
from models_store.ultralytics_env import environment
from source_tree import ROOT, module_command, module_environment

GIB = 1024**3
MEMORY = 16 * GIB  # address space; torch alone maps about 5 GiB without using it
FILE_SIZE = 4 * GIB
REFUSED_EXIT = 3  # the error is in the printed JSON


class ChildTimeout(Exception):
    """The child did not finish in time and was killed."""


def run_module(
    module: str,
    arguments: Sequence[str | Path],
    timeout: float,
    told: Callable[[str], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS…` to its end, in a process group of its own.

    `told` receives each line of its output at once; what it raises ends the process.

    Raises:
        ChildTimeout: It took longer than `timeout` seconds; the whole group was killed.
    """
    # One thread: on a busy machine, an export with two threads took 4 times as long.
    ours = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        module_command(__name__, str(os.getpid()), module, *arguments),
        cwd=ROOT,
        env=module_environment(environment() | os.environ | ours),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        if told is None:
            output, errors = process.communicate(timeout=timeout)
        else:
            output, errors = _followed(process, told, timeout)
    except subprocess.TimeoutExpired:
        raise ChildTimeout(f"{module} was still running after {timeout:.0f} s") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _followed(
    process: subprocess.Popen[str], told: Callable[[str], None], timeout: float
) -> tuple[str, str]:
    """`communicate`, which passes every line of the output on."""
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    late = threading.Event()

    def kill() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    errors: list[str] = []
    reader = threading.Thread(target=_read_all, args=(process.stderr, errors), daemon=True)
    timer = threading.Timer(timeout, kill)
    reader.start()
    timer.start()
    try:
        for line in process.stdout:
            lines.append(line)
            told(line)
        process.wait()
    finally:
        timer.cancel()
    reader.join()
    if late.is_set():
        raise subprocess.TimeoutExpired(process.args, timeout)
    return "".join(lines), "".join(errors)


def _read_all(stream: Iterable[str], into: list[str]) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed, because the process was ended
        into.extend(stream)


def limit_self(memory: int = MEMORY, cpu_seconds: int | None = None) -> None:
    """Limit this process's memory, CPU time and file size; called by the child."""
    for kind, amount in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, FILE_SIZE),
        (resource.RLIMIT_CORE, 0),
        *([(resource.RLIMIT_CPU, cpu_seconds)] if cpu_seconds else []),
    ):
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            amount = min(amount, hard)
        resource.setrlimit(kind, (amount, hard))


def refused(error: VisionLoopError) -> int:
    """Print an error as JSON for the process that started this one; the exit code to end with."""
    print(json.dumps({"error": error.message, "code": error.code}), flush=True)
    return REFUSED_EXIT


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # the parent ended before
            os._exit(1)


def main() -> None:
    """Run a module that ends with its parent: `… models_store.subprocesses PARENT MODULE ARGS…`.

    `end_with_parent` is called before the module's slow imports.
    """
    _, parent, module, *arguments = sys.argv
    end_with_parent(int(parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
