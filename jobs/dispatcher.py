"""Runs the jobs of the table in worker processes; part of the Trainer service.

All its state is in the table, so a new dispatcher takes over the jobs of an earlier one, even if
that was killed. A file lock ensures that there is only one dispatcher per home.
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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from filelock import Timeout

from cores import cpu_count
from database import FAILURES, Database
from disk_space import no_room
from errors import DatabaseBusy, JobNotFound
from inference.device import cuda_devices, device
from jobs.artifacts import clear
from jobs.claims import CLAIM_ENV, local_claim
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
from jobs.store import FINAL, IDLE, LIGHT, Job, JobStore
from jobs.webhooks.deliveries import DeliveryStore
from jobs.webhooks.sender import WebhookSender
from models_store.registry import Registry
from models_store.ultralytics_env import environment
from request_id import of_request
from settings import Settings
from source_tree import ROOT, module_command, module_environment

log = logging.getLogger("visionloop")

POLL = 0.5  # seconds between two queries of the table
REAP = 0.1  # seconds between two checks whether a process has ended
# Seconds between two queries of an awaited job. Another process may cancel it, which sets no event
# here.
AGAIN = 3.0
DRAIN = 2.0  # maximum seconds to read the remaining output of a worker that has ended


@dataclass(frozen=True)
class Timing:
    """Times in seconds.

    Attributes:
        retry: From a failed database access to the next attempt.
        saving: How long a worker may take to save when the service stops; `docker stop` kills the
            service after ten seconds.
        term_grace: From SIGTERM to SIGKILL of a worker.
    """

    retry: float = 2.0
    saving: float = 6.0
    term_grace: float = TERM_GRACE


@dataclass(frozen=True)
class Machine:
    """The functions by which the dispatcher starts processes and checks memory and disk.

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
    return settings.train_slots or max(1, gpus)


def threads(settings: Settings) -> int:
    """The number of CPU threads of one job; by default a quarter of the cores is left free."""
    cores = cpu_count()
    total = settings.train_threads or max(1, cores - max(1, cores // 4))
    return max(1, total // slots(settings))


def dispatcher_of(
    settings: Settings,
    on_epoch: Callable[[str, float], None],
    on_delivery: Callable[[str], None] = lambda _: None,
) -> Dispatcher:
    """Create a dispatcher for the job table in the home of these settings.

    Args:
        settings: Of this process.
        on_epoch: See `Dispatcher`.
        on_delivery: Called with the outcome of every attempt to deliver a webhook.
    """
    database = Database(settings)
    published = published_in(Registry(database))
    webhooks = WebhookSender(DeliveryStore(database), settings, on_delivery)
    return Dispatcher(
        JobStore(database), settings, published=published, on_epoch=on_epoch, webhooks=webhooks
    )


def worker_command(job: Job) -> list[str]:
    """The command line of the worker of a job."""
    return module_command("worker", job.id, "--parent", str(os.getpid()))


@dataclass(eq=False)
class Running:
    """A worker that this dispatcher started.

    Attributes:
        job: The row when the worker was started.
        claim: The worker's claim on it.
        process: The worker.
        log: The log of the job.
        drain: The thread that copies the worker's output to the log.
        gpu: The worker's value of CUDA_VISIBLE_DEVICES, if there are several GPUs.
        kills: The kernel's count of out-of-memory kills before the start.
        epoch: The newest epoch reported to `on_epoch`.
        heartbeat: When the row was last updated, and how often output was read, at the last poll;
            a change shows that the worker is alive.
        heard_at: Time of the last change of the heartbeat (monotonic seconds).
        stalled: The reason given if the dispatcher ends this worker because it hangs; otherwise
            empty.
        yielding: Whether the dispatcher ends this worker because another job waits.
        ending: The task that ends the worker.
        watch: The task that waits for the worker's end.
    """

    job: Job
    claim: str
    process: subprocess.Popen[bytes]
    log: LogWriter
    drain: threading.Thread
    gpu: str | None
    kills: int
    epoch: int = 0
    heartbeat: object = None
    heard_at: float = field(default_factory=time.monotonic)
    stalled: str = ""
    yielding: bool = False
    ending: asyncio.Task[None] | None = None
    watch: asyncio.Task[None] | None = field(default=None, repr=False)


class Dispatcher:
    """Starts queued jobs in the order of submission, watches their workers, finalizes their rows.

    Args:
        store: The job table.
        settings: Provide the numbers of slots, threads and attempts.
        command: Returns the command line of a job's worker.
        published: Returns the id of the model that a job has published, if any; see `JobFinalizer`.
        on_epoch: Called with mode and duration (seconds) of every finished epoch.
        webhooks: Sends the deliveries of ended jobs while this dispatcher holds the lock.
        timing: Waiting times.
        machine: Functions that start processes and check memory and disk.
    """

    def __init__(
        self,
        store: JobStore,
        settings: Settings,
        *,
        command: Callable[[Job], Sequence[str]] = worker_command,
        published: Callable[[str], str | None] = lambda _: None,
        on_epoch: Callable[[str, float], None] = lambda *_: None,
        webhooks: WebhookSender | None = None,
        timing: Timing = Timing(),
        machine: Machine = Machine(),
    ) -> None:
        self.store = store
        self.settings = settings
        self.slots = slots(settings)
        self._command = command
        self._finalizer = JobFinalizer(store, settings.train_attempts, published)
        self._on_epoch = on_epoch
        self._webhooks = webhooks
        self._timing = timing
        self._machine = machine
        self._running: dict[str, Running] = {}
        self._refused: set[str] = set()  # jobs whose process could not be started
        self._awaited: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._shutdown = asyncio.Event()
        self._lock = dispatcher_lock(settings)
        self._task: asyncio.Task[None] | None = None
        self._stop: asyncio.Future[None] | None = None  # a reference, so that it is not collected
        self._stopped = asyncio.Event()

    def start(self) -> None:
        """Start the loop. Needs a running event loop.

        The event loop's thread starts the workers, because that thread must outlive them: the
        kernel kills a worker when the *thread* that started it ends (PR_SET_PDEATHSIG).
        """
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Query the table now."""
        self._wake.set()

    async def finished(self, job_id: str) -> Job:
        """Wait for a job. Returns its final row; the current one if the dispatcher stops first."""
        self.wake()
        ended = self._awaited.setdefault(job_id, asyncio.Event())
        while True:
            ended.clear()
            try:
                job = await asyncio.to_thread(self.store.get, job_id)
            except DatabaseBusy:
                if self._shutdown.is_set():
                    raise
                await asyncio.sleep(self._timing.retry)
                continue
            if job.is_final or self._shutdown.is_set():
                self._awaited.pop(job_id, None)
                return job
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    await ended.wait()

    def begin_shutdown(self) -> None:
        """Start `stop` in the background."""
        self._stop = asyncio.ensure_future(self.stop())

    async def stop(self) -> None:
        """End the workers after they have saved; their jobs resume at the next start."""
        if not self._shutdown.is_set():
            self._shutdown.set()
            self.wake()
            for ended in self._awaited.values():
                ended.set()
            watches = [running.watch for running in self._running.values() if running.watch]
            for running in list(self._running.values()):
                self._end(running, SIGNAL_SAVE_AND_EXIT, self._timing.saving)
            await asyncio.gather(*watches, return_exceptions=True)
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            if self._webhooks is not None:
                await asyncio.to_thread(self._webhooks.stop)
            self._lock.release()
            self._stopped.set()
        await self._stopped.wait()

    # --- the loop

    async def _run(self) -> None:
        await self._acquire_lock()
        if self._webhooks is not None:
            self._webhooks.start()
        await self._retry(self._take_over)
        while not self._shutdown.is_set():
            try:
                await self._poll()
            except Exception:
                log.exception("The job table could not be read; retrying")
                await asyncio.sleep(self._timing.retry)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._wake.wait()
            self._wake.clear()

    async def _acquire_lock(self) -> None:
        """Wait until no other dispatcher runs on this home."""
        while True:
            try:
                self._lock.acquire(blocking=False)
                return
            except Timeout:
                await asyncio.sleep(POLL)

    async def _retry(self, step: Callable[[], None]) -> None:
        """Repeat a database step until it succeeds."""
        while True:
            try:
                await asyncio.to_thread(step)
                return
            except Exception:
                log.exception("The job table could not be written; retrying")
                await asyncio.sleep(self._timing.retry)

    def _take_over(self) -> None:
        """Kill the workers of an earlier dispatcher that are still running; finalize its jobs."""
        left = marked()
        for job in self.store.list(None, "queued", "running", "stopping"):
            kill(left.get(job.id, []))
        for job in self.store.list(None, "running", "stopping"):
            self._finalizer.finalize(job.id, KILLED)
        for job in self.store.list(None, *FINAL):  # perhaps not cleared yet
            clear(self.store.folder(job.id), completed=job.status == "completed")

    async def _poll(self) -> None:
        for running in list(self._running.values()):
            job = await asyncio.to_thread(self.store.get, running.job.id)
            if job.status == "stopping":
                self._end(running)
            self._end_if_stalled(running, job)
            self._observe(running, job)
        for kind in LIGHT:
            await self._fill(1 - self._count((kind,)), (kind,))
        heavy = len(self._running) - self._count(LIGHT) - self._count(IDLE)
        await self._fill(self.slots - heavy)
        await self._fill_idle()

    def _count(self, kinds: Collection[str]) -> int:
        return sum(running.job.kind in kinds for running in self._running.values())

    async def _fill(self, free: int, kinds: Collection[str] | None = None) -> None:
        """Start the next jobs of some kinds in their free slots, as `JobStore.queued` has them."""
        if free <= 0 or self._shutdown.is_set():
            return
        for job in await asyncio.to_thread(self.store.queued, self.slots, kinds):
            if job.id not in self._running and free > 0 and not self._shutdown.is_set():
                free -= await self._launch(job)

    async def _fill_idle(self) -> None:
        """Run one job of an idle kind while no other job waits or runs; else end it for now."""
        others = len(self._running) > self._count(IDLE)
        for kinds in (LIGHT, None):
            others = others or bool(await asyncio.to_thread(self.store.queued, 1, kinds))
        if not others:
            await self._fill(1 - self._count(IDLE), IDLE)
            return
        for running in self._running.values():
            if running.job.kind in IDLE and running.ending is None:
                running.yielding = True
                self._end(running)

    # --- one worker

    async def _launch(self, job: Job) -> bool:
        """Start a worker in the event loop's thread. Returns whether it was started."""
        writer = LogWriter(self.store.log(job.id))
        if (lacking := self._machine.lacking_room(self.settings)) is not None:
            return self._refuse(job, writer, lacking)
        claim = local_claim()
        claimed = await asyncio.to_thread(self.store.claim, job.id, claim)
        if not claimed or self._shutdown.is_set():
            return False
        gpu, kills = self._free_gpu(), self._machine.memory_kills()
        reading, writing = os.pipe()
        try:
            drain = writer.drain(reading)
            process = self._machine.start(
                self._command(job),
                cwd=ROOT,
                env=self._environment(job, claim, gpu),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        except (OSError, RuntimeError) as error:  # temporary lack of memory or processes
            return self._refuse(job, writer, error)
        finally:
            os.close(writing)  # if no worker was started, the drain thread ends
        self._refused.discard(job.id)
        again = f", attempt {job.attempts + 1}" if job.attempts else ""
        writer.say(f"Process {process.pid} started{again}.")
        with of_request(job.request_id):
            log.info("Job %s, %s: process %d started%s", job.id, job.kind, process.pid, again)
        running = Running(job, claim, process, writer, drain, gpu, kills)
        running.epoch = job.checkpoint
        self._running[job.id] = running
        running.watch = asyncio.create_task(self._watch(running))
        return True

    def _refuse(self, job: Job, writer: LogWriter, error: Exception) -> bool:
        """Log once why a worker cannot be started. The start is retried at every poll."""
        if job.id not in self._refused:
            self._refused.add(job.id)
            writer.say(f"The worker cannot be started yet: {str(error).rstrip('.')}.")
        return False

    def _environment(self, job: Job, claim: str, gpu: str | None) -> dict[str, str]:
        ours = {JOB_ENV: job.id, CLAIM_ENV: claim, "PYTHONUNBUFFERED": "1"}
        if gpu is not None:
            ours["CUDA_VISIBLE_DEVICES"] = gpu
        inherited = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
        hardened = environment(self.settings.home, threads(self.settings))
        return module_environment(inherited | hardened | ours)

    def _free_gpu(self) -> str | None:
        """The GPU with the fewest jobs, as a value for CUDA_VISIBLE_DEVICES.

        None if there are fewer than two GPUs.
        """
        count = cuda_devices() if device(self.settings) == "cuda" else 0
        if count < 2:
            return None
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        used = [running.gpu for running in self._running.values()]
        return min(visible.split(","), key=used.count)

    def _observe(self, running: Running, job: Job) -> None:
        """Report the epochs finished since the last call."""
        for _ in range(job.checkpoint - running.epoch):
            if job.epoch_seconds is not None:
                self._on_epoch(job.mode or job.kind, job.epoch_seconds)
        running.epoch = job.checkpoint

    def _end_if_stalled(self, running: Running, job: Job) -> None:
        """End a worker that hangs: it has reported no progress and no output for too long."""
        heartbeat, now = (job.updated_at, running.log.heard), time.monotonic()
        if heartbeat != running.heartbeat:
            running.heartbeat, running.heard_at = heartbeat, now
        limit = self.settings.train_stall_minutes
        if limit and now - running.heard_at > 60 * limit and running.ending is None:
            running.stalled = (
                f"The worker sent no heartbeat (progress or output) for {limit:g} minutes "
                "(VISIONLOOP_TRAIN_STALL_MINUTES) and was killed."
            )
            # faulthandler logs where it hangs
            self._end(running, signal.SIGABRT, self._timing.term_grace)

    def _end(
        self, running: Running, ask: signal.Signals = SIGNAL_EXIT, patience: float = END_GRACE
    ) -> None:
        if running.ending is None:
            grace = self._timing.term_grace
            ending = end_group(running.process.pid, ask, patience, grace)
            running.ending = asyncio.create_task(ending)

    async def _watch(self, running: Running) -> None:
        """Mark a job as running, wait for the end of its process, finalize the row."""
        job_id, process = running.job.id, running.process
        try:
            if not await self._mark_running(running):  # cancelled in the meantime
                self._end(running)
            # Only this loop polls the process, so nothing else could set an event at its end.
            while (code := process.poll()) is None:  # noqa: ASYNC110
                await asyncio.sleep(REAP)
            await asyncio.to_thread(self._clear, running)
            reason = running.stalled or death(code, self._machine.memory_kills() > running.kills)
            finalize = partial(
                self._finalizer.finalize,
                job_id,
                reason,
                code=code,
                shutdown=self._shutdown.is_set(),
                yielded=running.yielding,
            )
            await self._retry(finalize)
            with contextlib.suppress(*FAILURES, JobNotFound):
                job = await asyncio.to_thread(self.store.get, job_id)
                self._observe(running, job)
                _log_end(job)
        finally:
            del self._running[job_id]
            self.wake()
            if job_id in self._awaited:
                self._awaited[job_id].set()

    async def _mark_running(self, running: Running) -> bool:
        job_id, pid = running.job.id, running.process.pid
        try:
            return await asyncio.to_thread(
                self.store.start, job_id, running.claim, pid, started_at(pid)
            )
        except Exception:
            log.exception("Job %s could not be marked as running", running.job.id)
            return False

    def _clear(self, running: Running) -> None:
        """Kill a worker's child processes (data loaders, exports); read its remaining output."""
        kill(marked().get(running.job.id, []))
        running.drain.join(DRAIN)


def _log_end(job: Job) -> None:
    """Log how a job's process has ended, with the reason if the job has failed."""
    with of_request(job.request_id):
        if job.status == "failed":
            log.warning("Job %s, %s: failed: %s", job.id, job.kind, job.error)
        else:
            log.info("Job %s, %s: %s", job.id, job.kind, job.status)
