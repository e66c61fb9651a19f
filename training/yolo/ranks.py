"""The processes of a training on several GPUs, one for each (ranks, in PyTorch's words).

The job's worker is rank 0: it reports, saves, validates and obeys signals, as it does alone. It
starts the others (`training.rank`) for the time of the training. They build the same run from the
job's row, report nothing, and end with the worker. Ultralytics' own way, `torch.distributed.run`,
would put the job's handle into a pickle, and two processes between a signal and the training.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from errors import VisionLoopError
from jobs.handle import JobInterrupted
from jobs.processes import death
from jobs.worker import exit_process
from source_tree import ROOT, module_command, module_environment

if TYPE_CHECKING:
    from jobs.handle import JobHandle

MODULE = "training.rank"  # what ranks above 0 run
LOOPBACK = "127.0.0.1"
GRACE = 10.0  # seconds in which rank 0 may say itself what is wrong, once another rank has ended
END = 30.0  # maximum seconds from the end of rank 0's training to that of the others


def lead(gpus: int) -> None:
    """Make this process rank 0 of as many; call it before anything imports Ultralytics.

    Ultralytics 8.4.190 reads its rank once, when it is imported. Processes that this one starts
    later have no rank.

    Raises:
        RuntimeError: Ultralytics is already imported.
    """
    if gpus < 2:
        return
    if "ultralytics.utils" in sys.modules:
        raise RuntimeError("ultralytics was imported before its rank was set.")
    rank = rank_environment(0, gpus)
    os.environ.update(rank)
    try:
        import ultralytics.utils  # noqa: F401
    finally:
        for name in rank:
            del os.environ[name]


def rank_environment(rank: int, gpus: int) -> dict[str, str]:
    """The variables that give a process its rank."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(gpus)}


@contextmanager
def others(job: JobHandle, gpus: int, task: Mapping[str, Any]) -> Iterator[None]:
    """A context in which the other ranks run; with one GPU there are none.

    If one of them dies, this process ends as if it had crashed, so that the job resumes.

    Args:
        job: The job of this process, which is rank 0.
        gpus: The number of ranks.
        task: What `training.rank` reads; JSON.

    Raises:
        JobInterrupted: Another rank died, which rank 0 has noticed by an error of its own.
    """
    if gpus < 2:
        yield
        return
    from torch import distributed

    # As torch.distributed.run does: a store for all ranks, on a port that the system has chosen.
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    store = distributed.TCPStore(
        LOOPBACK, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
    )
    meeting = {
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    os.environ.update(meeting)
    ranks = _Ranks(job)
    try:
        ranks.start(gpus, json.dumps(task))
        yield
        if distributed.is_initialized():  # not after an error: NCCL would wait for the others
            distributed.destroy_process_group()
        ranks.wait()
    except VisionLoopError:
        raise
    except Exception as error:
        if ranks.one_died():
            raise JobInterrupted from error
        raise
    finally:
        ranks.end()
        for name in meeting:
            os.environ.pop(name, None)
        del store


class _Ranks:
    """The processes of the ranks above 0. One thread for each waits for its end."""

    def __init__(self, job: JobHandle) -> None:
        self._job = job
        self._processes: list[subprocess.Popen[str]] = []
        self._ended = threading.Event()

    def start(self, gpus: int, task: str) -> None:
        for rank in range(1, gpus):
            process = subprocess.Popen(
                module_command(MODULE, self._job.id, "--parent", str(os.getpid())),
                cwd=ROOT,
                env=module_environment({**os.environ, **rank_environment(rank, gpus)}),
                stdin=subprocess.PIPE,
                text=True,
            )
            self._processes.append(process)
            assert process.stdin is not None
            process.stdin.write(task)
            process.stdin.close()
            threading.Thread(target=self._watch, args=(rank, process), daemon=True).start()

    def wait(self) -> None:
        """Wait until all have ended, as they do when rank 0 has trained."""
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):  # what was trained is saved
                process.wait(END)

    def one_died(self) -> bool:
        """Whether one has ended by itself with an error; it may still be about to."""
        for process in self._processes:
            try:
                if process.wait(GRACE / 2 / len(self._processes)):
                    return True
            except subprocess.TimeoutExpired:
                continue
        return False

    def end(self) -> None:
        self._ended.set()
        for process in self._processes:
            process.kill()
            process.wait()

    def _watch(self, rank: int, process: subprocess.Popen[str]) -> None:
        code = process.wait()
        if self._ended.is_set() or code == 0:
            return
        self._job.log(f"GPU {rank} is out: {death(code, memory=False)}")
        # Rank 0 waits for the dead one in a collective operation, for hours with NCCL.
        if not self._ended.wait(GRACE):
            exit_process(1)
