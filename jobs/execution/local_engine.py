"""Runs workers as child processes of the Trainer service."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cores import cpu_count
from disk_space import no_room
from inference.device import cuda_devices, device
from jobs.claims import CLAIM_ENV, local_claim
from jobs.execution.engine import End, Ending, Launched, NotLaunched
from jobs.execution.gpus import gpus_of
from jobs.job import Job
from jobs.logs.log_file import LogWriter
from jobs.processes import (
    END_GRACE,
    JOB_ENV,
    SIGNAL_EXIT,
    SIGNAL_SAVE_AND_EXIT,
    TERM_GRACE,
    death,
    end_group,
    kill,
    marked,
    out_of_memory_kills,
    started_at,
)
from models_store.ultralytics_env import environment
from settings import Settings
from source_tree import ROOT, module_command, module_environment

REAP = 0.1  # seconds between two checks whether a process has ended
DRAIN = 2.0  # maximum seconds to read the remaining output of a worker that has ended


@dataclass(frozen=True)
class Timing:
    """Times in seconds.

    Attributes:
        saving: How long a worker may take to save when the service stops; `docker stop` kills the
            service after ten seconds.
        term_grace: From SIGTERM to SIGKILL of a worker.
    """

    saving: float = 6.0
    term_grace: float = TERM_GRACE


@dataclass(frozen=True)
class Machine:
    """The functions by which the engine starts processes and checks memory and disk.

    Tests replace them.

    Attributes:
        start: Starts a process; arguments as those of `subprocess.Popen`.
        memory_kills: Counts the processes that the kernel has killed because memory ran out.
        lacking_room: Returns an error if too little disk space is free to start a job; None if
            there is enough.
    """

    start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    memory_kills: Callable[[], int] = out_of_memory_kills
    lacking_room: Callable[[Settings], Exception | None] = no_room


def slots(settings: Settings) -> int:
    """The number of jobs that run at the same time."""
    gpus = cuda_devices() if device(settings) == "cuda" else 0
    return settings.train_slots or max(1, gpus // settings.train_gpus)


def threads(settings: Settings) -> int:
    """The number of CPU threads of one job; by default a quarter of the cores is left free."""
    cores = cpu_count()
    total = settings.train_threads or max(1, cores - max(1, cores // 4))
    return max(1, total // slots(settings))


def worker_command(job: Job) -> list[str]:
    """The command line of the worker of a job, which ends with this process."""
    return module_command("worker", job.id, "--parent", str(os.getpid()))


@dataclass(eq=False)
class _Worker:
    """A process that this engine started.

    Attributes:
        job: The row when it was started.
        process: The process.
        drain: The thread that copies its output to the log.
        gpus: Its value of CUDA_VISIBLE_DEVICES, if there are several GPUs.
        kills: The kernel's count of out-of-memory kills before the start.
        end: How it ended, once that is known.
        watch: The task that waits for its end.
    """

    job: Job
    process: subprocess.Popen[bytes]
    drain: threading.Thread
    gpus: str | None
    kills: int
    end: End | None = None
    watch: asyncio.Task[None] | None = field(default=None, repr=False)


class LocalEngine:
    """The engine of one machine. Its workers end with the service.

    The event loop's thread starts the workers, because that thread must outlive them: the kernel
    kills a worker when the *thread* that started it ends (PR_SET_PDEATHSIG).

    Args:
        settings: Provide the home, the device and the numbers of slots and threads.
        command: Returns the command line of a job's worker.
        timing: Waiting times.
        machine: Functions that start processes and check memory and disk.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        command: Callable[[Job], Sequence[str]] = worker_command,
        timing: Timing = Timing(),
        machine: Machine = Machine(),
    ) -> None:
        self._settings = settings
        self._command = command
        self._timing = timing
        self._machine = machine
        self._workers: dict[str, _Worker] = {}

    def claim(self, job: Job) -> str:
        return local_claim()

    async def launch(self, job: Job, claim: str, log: LogWriter) -> Launched:
        if (lacking := self._machine.lacking_room(self._settings)) is not None:
            raise NotLaunched(str(lacking))
        gpus, kills = self._free_gpus(job), self._machine.memory_kills()
        reading, writing = os.pipe()
        try:
            drain = log.drain(reading)
            process = self._machine.start(
                self._command(job),
                cwd=ROOT,
                env=self._environment(job, claim, gpus),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        except (OSError, RuntimeError) as error:  # temporary lack of memory or processes
            raise NotLaunched(str(error)) from error
        finally:
            os.close(writing)  # if no worker was started, the drain thread ends
        worker = _Worker(job, process, drain, gpus, kills)
        self._workers[claim] = worker
        worker.watch = asyncio.create_task(self._watch(worker))
        return Launched(f"Process {process.pid}", process.pid, started_at(process.pid))

    def poll(self) -> Mapping[str, End | None]:
        return {claim: worker.end for claim, worker in self._workers.items()}

    async def end(self, claim: str, how: Ending) -> None:
        worker = self._workers.get(claim)
        if worker is None:
            return
        ask, patience = {
            Ending.CANCEL: (SIGNAL_EXIT, END_GRACE),
            Ending.SAVE: (SIGNAL_SAVE_AND_EXIT, self._timing.saving),
            Ending.ABORT: (signal.SIGABRT, self._timing.term_grace),  # faulthandler logs where
        }[how]
        await end_group(worker.process.pid, ask, patience, self._timing.term_grace)

    def forget(self, claim: str) -> None:
        self._workers.pop(claim, None)

    async def adopt(self, jobs: Collection[Job], log: Callable[[Job], LogWriter]) -> set[str]:
        """Kill the workers of an earlier dispatcher that are still running."""
        left = await asyncio.to_thread(marked)
        found = [process for job in jobs for process in left.get(job.id, [])]
        await asyncio.to_thread(kill, found)
        return set()

    def outlives(self, claim: str) -> bool:
        return False

    async def close(self) -> None:
        pass

    async def _watch(self, worker: _Worker) -> None:
        # Only this loop polls the process, so nothing else could set an event at its end.
        while (code := worker.process.poll()) is None:  # noqa: ASYNC110
            await asyncio.sleep(REAP)
        await asyncio.to_thread(_clear, worker)
        memory = self._machine.memory_kills() > worker.kills
        worker.end = End(death(code, memory), code)

    def _environment(self, job: Job, claim: str, gpus: str | None) -> dict[str, str]:
        ours = {JOB_ENV: job.id, CLAIM_ENV: claim, "PYTHONUNBUFFERED": "1"}
        if gpus is not None:
            ours["CUDA_VISIBLE_DEVICES"] = gpus
        inherited = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
        hardened = environment(self._settings.home, threads(self._settings))
        return module_environment(inherited | hardened | ours)

    def _free_gpus(self, job: Job) -> str | None:
        """The GPUs with the fewest jobs, as many as this job uses, for CUDA_VISIBLE_DEVICES.

        None if there are fewer than two GPUs.
        """
        count = cuda_devices() if device(self._settings) == "cuda" else 0
        if count < 2:
            return None
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        used = [gpu for worker in self._workers.values() for gpu in (worker.gpus or "").split(",")]
        free = sorted(visible.split(","), key=used.count)
        return ",".join(free[: gpus_of(job.recipe, self._settings)])


def _clear(worker: _Worker) -> None:
    """Kill a worker's child processes (data loaders, exports); read its remaining output."""
    kill(marked().get(worker.job.id, []))
    worker.drain.join(DRAIN)
