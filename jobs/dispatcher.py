"""Takes jobs from the table and has worker processes do them; runs in the Trainer service.

The table is all it remembers: a new dispatcher takes over what an earlier one left, whether that
was stopped or killed. One dispatcher works per home, held by a file lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from filelock import Timeout
from sqlalchemy.exc import SQLAlchemyError

from cores import cpu_count
from database import Database
from errors import JobNotFound
from inference.device import cuda_devices, device
from jobs.artifacts import clear
from jobs.finalizer import KILLED, JobFinalizer, dispatcher_lock, published_in
from jobs.logs import LogWriter
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
from jobs.store import FINAL, Job, JobStore
from models_store.registry import Registry
from models_store.ultralytics_env import environment
from settings import Settings
from source_tree import ROOT, module_command, module_environment

log = logging.getLogger("visionloop")

POLL = 0.5  # seconds between two looks at the table
REAP = 0.1  # seconds between two looks at a process
AGAIN = 3.0  # seconds between two looks at a job that is awaited, and may be cancelled elsewhere
RETRY = 2.0  # seconds until the database is asked again
DRAIN = 2.0  # seconds for the last words in the pipe
SAVING = 6.0  # seconds in which a worker may save at a stop; `docker stop` kills after ten


def slots(settings: Settings) -> int:
    """How many jobs run at once."""
    gpus = cuda_devices() if device(settings) == "cuda" else 0
    return settings.train_slots or max(1, gpus)


def threads(settings: Settings) -> int:
    """CPU threads of one job: on a CPU the service keeps room to answer."""
    cores = cpu_count()
    total = settings.train_threads or max(1, cores - max(1, cores // 4))
    return max(1, total // slots(settings))


def dispatcher_of(settings: Settings, on_epoch: Callable[[str, float], None]) -> Dispatcher:
    """A dispatcher on the tables of these settings."""
    database = Database(settings)
    published = published_in(Registry(database))
    return Dispatcher(JobStore(database), settings, published=published, on_epoch=on_epoch)


def worker_command(job: Job) -> list[str]:
    return module_command("worker", job.id, "--parent", str(os.getpid()))


@dataclass(eq=False)
class Running:
    """A worker that this dispatcher started."""

    job: Job
    process: subprocess.Popen[bytes]
    log: LogWriter
    drain: threading.Thread
    gpu: str | None
    kills: int  # of the kernel, before it started
    epoch: int = 0
    sign: object = None  # of life, the last one
    seen: float = field(default_factory=time.monotonic)  # when that was
    stalled: str = ""  # why it is ended
    ending: asyncio.Task[None] | None = None
    watch: asyncio.Task[None] | None = field(default=None, repr=False)


class Dispatcher:
    """Claims queued jobs in the order of submission, watches their workers, settles their rows.

    Args:
        store: The job table.
        settings: Slots, threads, attempts.
        command: What to run for a job.
        published: The model a job has published, if any: asked when a worker died, because it
            may have died between the publication and its last word.
        on_epoch: Told the mode and the seconds of a finished epoch.
    """

    def __init__(
        self,
        store: JobStore,
        settings: Settings,
        *,
        command: Callable[[Job], Sequence[str]] = worker_command,
        published: Callable[[str], str | None] = lambda _: None,
        on_epoch: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.slots = slots(settings)
        self._command = command
        self._finalizer = JobFinalizer(store, settings.train_attempts, published)
        self._on_epoch = on_epoch
        self._running: dict[str, Running] = {}
        self._refused: set[str] = set()  # jobs for which the system gave no process
        self._awaited: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._leaving = asyncio.Event()
        self._lock = dispatcher_lock(settings)
        self._task: asyncio.Task[None] | None = None
        self._stop: asyncio.Future[None] | None = None  # kept from being collected
        self._gone = asyncio.Event()

    def start(self) -> None:
        """Begin to work, in the running event loop.

        Its thread starts the workers, so it must live as long as they may: the kernel ends a
        worker with the *thread* that started it.
        """
        self._task = asyncio.create_task(self._work())

    def wake(self) -> None:
        """Look at the table now."""
        self._wake.set()

    async def finished(self, job_id: str) -> Job:
        """The job's row once it is final; or as it is when this dispatcher stops."""
        self.wake()
        ended = self._awaited.setdefault(job_id, asyncio.Event())
        while True:
            ended.clear()
            job = await asyncio.to_thread(self.store.get, job_id)
            if job.is_final or self._leaving.is_set():
                self._awaited.pop(job_id, None)
                return job
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    await ended.wait()

    def leave(self) -> None:
        """Begin to stop, without waiting."""
        self._stop = asyncio.ensure_future(self.stop())

    async def stop(self) -> None:
        """End the workers, which save first; their jobs go on from there at the next start."""
        if not self._leaving.is_set():
            self._leaving.set()
            self.wake()
            for ended in self._awaited.values():
                ended.set()
            watches = [running.watch for running in self._running.values() if running.watch]
            for running in list(self._running.values()):
                self._end(running, SIGNAL_SAVE_AND_EXIT, SAVING)
            await asyncio.gather(*watches, return_exceptions=True)
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            self._lock.release()
            self._gone.set()
        await self._gone.wait()

    # --- the loop

    async def _work(self) -> None:
        await self._own()
        await self._insist(self._take_over)
        while not self._leaving.is_set():
            try:
                await self._look()
            except Exception:
                log.exception("The job table could not be read; trying again")
                await asyncio.sleep(RETRY)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._wake.wait()
            self._wake.clear()

    async def _own(self) -> None:
        """Wait until no other dispatcher works on this home."""
        while True:
            try:
                self._lock.acquire(blocking=False)
                return
            except Timeout:
                await asyncio.sleep(POLL)

    async def _insist(self, step: Callable[[], None]) -> None:
        """Do something with the database until it works."""
        while True:
            try:
                await asyncio.to_thread(step)
                return
            except Exception:
                log.exception("The job table could not be changed; trying again")
                await asyncio.sleep(RETRY)

    def _take_over(self) -> None:
        """Settle what an earlier life left; none of its workers may still be at work."""
        left = marked()
        for job in self.store.list(None, "queued", "running", "stopping"):
            kill(left.get(job.id, []))
        for job in self.store.list(None, "running", "stopping"):
            self._finalizer.finalize(job.id, KILLED)
        for job in self.store.list(None, *FINAL):  # it may have died before it tidied
            clear(self.store.folder(job.id), completed=job.status == "completed")

    async def _look(self) -> None:
        for running in list(self._running.values()):
            job = await asyncio.to_thread(self.store.get, running.job.id)
            if job.status == "stopping":
                self._end(running)
            self._mind(running, job)
            self._observe(running, job)
        free = self.slots - len(self._running)
        if free <= 0 or self._leaving.is_set():
            return
        for job in await asyncio.to_thread(self.store.queued, self.slots):
            if job.id not in self._running and free > 0 and not self._leaving.is_set():
                free -= self._launch(job)

    # --- one worker

    def _launch(self, job: Job) -> bool:
        """Start a worker, from the event loop's own thread."""
        writer = LogWriter(self.store.log(job.id))
        gpu, kills = self._free_gpu(), out_of_memory_kills()
        reading, writing = os.pipe()
        try:
            drain = writer.drain(reading)
            process = subprocess.Popen(
                self._command(job),
                cwd=ROOT,
                env=self._environment(job, gpu),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        except (OSError, RuntimeError) as error:  # no memory, no process left: later perhaps
            if job.id not in self._refused:  # said once, tried at every look
                self._refused.add(job.id)
                writer.say(f"The worker cannot be started yet: {error}.")
            return False
        finally:
            os.close(writing)  # which ends the drain where there is no worker
        self._refused.discard(job.id)
        again = f", attempt {job.attempts + 1}" if job.attempts else ""
        writer.say(f"Process {process.pid} started{again}.")
        running = Running(job, process, writer, drain, gpu, kills)
        running.epoch = job.checkpoint
        self._running[job.id] = running
        running.watch = asyncio.create_task(self._watch(running))
        return True

    def _environment(self, job: Job, gpu: str | None) -> dict[str, str]:
        ours = {JOB_ENV: job.id, "PYTHONUNBUFFERED": "1"}
        if gpu is not None:
            ours["CUDA_VISIBLE_DEVICES"] = gpu
        inherited = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
        hardened = environment(self.settings.home, threads(self.settings))
        return module_environment(inherited | hardened | ours)

    def _free_gpu(self) -> str | None:
        """The least used GPU's name in CUDA_VISIBLE_DEVICES; None where there is no choice."""
        count = cuda_devices() if device(self.settings) == "cuda" else 0
        if count < 2:
            return None
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        used = [running.gpu for running in self._running.values()]
        return min(visible.split(","), key=used.count)

    def _observe(self, running: Running, job: Job) -> None:
        """Report the epochs finished since the last look."""
        for _ in range(job.checkpoint - running.epoch):
            if job.epoch_seconds is not None:
                self._on_epoch(job.mode or job.kind, job.epoch_seconds)
        running.epoch = job.checkpoint

    def _mind(self, running: Running, job: Job) -> None:
        """End a worker that hangs: neither progress nor output for too long."""
        sign, now = (job.updated_at, running.log.heard), time.monotonic()
        if sign != running.sign:
            running.sign, running.seen = sign, now
        limit = self.settings.train_stall_minutes
        if limit and now - running.seen > 60 * limit and running.ending is None:
            running.stalled = (
                f"The worker gave no sign of life for {limit:g} minutes "
                "(VISIONLOOP_TRAIN_STALL_MINUTES) and was ended."
            )
            self._end(running, signal.SIGABRT, TERM_GRACE)  # it logs where it hangs

    def _end(
        self, running: Running, ask: signal.Signals = SIGNAL_EXIT, patience: float = END_GRACE
    ) -> None:
        if running.ending is None:
            running.ending = asyncio.create_task(end_group(running.process.pid, ask, patience))

    async def _watch(self, running: Running) -> None:
        """Call a job running, now that it has a process; see that to its end; settle the row."""
        job_id, process = running.job.id, running.process
        try:
            if not await self._started(running):  # cancelled a moment ago
                self._end(running)
            while (code := process.poll()) is None:  # noqa: ASYNC110 (nobody else reaps it)
                await asyncio.sleep(REAP)
            await asyncio.to_thread(self._clear, running)
            reason = running.stalled or death(code, out_of_memory_kills() > running.kills)
            leaving = self._leaving.is_set()
            await self._insist(
                lambda: self._finalizer.finalize(job_id, reason, code=code, leaving=leaving)
            )
            with contextlib.suppress(SQLAlchemyError, JobNotFound):
                self._observe(running, await asyncio.to_thread(self.store.get, job_id))
        finally:
            del self._running[job_id]
            self.wake()
            if job_id in self._awaited:
                self._awaited[job_id].set()

    async def _started(self, running: Running) -> bool:
        pid = running.process.pid
        try:
            return await asyncio.to_thread(self.store.start, running.job.id, pid, started_at(pid))
        except Exception:
            log.exception("Job %s could not be marked as running", running.job.id)
            return False

    def _clear(self, running: Running) -> None:
        """End what a worker left behind: loaders, exports."""
        kill(marked().get(running.job.id, []))
        running.drain.join(DRAIN)
