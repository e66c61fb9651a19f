"""Runs the jobs of the table by workers of a `JobEngine`; part of the Trainer service.

All its state is in the table, so a new dispatcher takes over the jobs of an earlier one, even if
that was killed. A lock ensures that there is only one dispatcher per home.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial

from filelock import Timeout

from database import FAILURES, Database
from errors import DatabaseBusy, JobNotFound
from jobs.artifacts import clear
from jobs.claims import HOST, is_of_this_machine
from jobs.execution.engine import End, Ending, JobEngine, Launched, NotLaunched, SplitEngine
from jobs.execution.local_engine import LocalEngine, slots
from jobs.failures import pause_left
from jobs.finalizer import KILLED, JobFinalizer, dispatcher_lock, note_leader, published_in
from jobs.job import IDLE, LIGHT, LOCAL, Job
from jobs.logs.log_file import LogWriter
from jobs.states import FINAL, LIVE
from jobs.store import JobStore
from jobs.webhooks.deliveries import DeliveryStore
from jobs.webhooks.sender import WebhookSender
from models_store.registry import Registry
from request_id import of_request
from settings import Settings

log = logging.getLogger("visionloop")

POLL = 0.5  # seconds between two queries of the table
LOCK_CHECK = 1.0  # seconds between two questions whether the lock is still held
REAP = 0.1  # seconds between two questions to the engine which workers have ended
# Seconds between two queries of an awaited job. Another process may cancel it, which sets no event
# here.
AGAIN = 3.0
PAUSED = 100  # jobs before others in the queue that may be about to be tried again, later
RETRY = 2.0  # seconds from a failed database access to the next attempt


def dispatcher_of(
    settings: Settings,
    on_epoch: Callable[[str, float], None],
    on_delivery: Callable[[str], None] = lambda _: None,
    on_lead: Callable[[bool], None] = lambda _: None,
) -> Dispatcher:
    """Create a dispatcher for the job table in the home of these settings.

    Args:
        settings: Of this process.
        on_epoch: See `Dispatcher`.
        on_delivery: Called with the outcome of every attempt to deliver a webhook.
        on_lead: See `Dispatcher`.
    """
    database = Database(settings)
    published = published_in(Registry(database))
    webhooks = WebhookSender(DeliveryStore(database), settings, on_delivery)
    dispatcher = Dispatcher(
        JobStore(database),
        settings,
        engine_of(settings),
        published=published,
        on_epoch=on_epoch,
        webhooks=webhooks,
    )
    dispatcher.on_lead = on_lead
    return dispatcher


def engine_of(settings: Settings) -> JobEngine:
    """The engine that these settings name: this machine, or most kinds of jobs on a cluster."""
    here = LocalEngine(settings)
    if settings.cluster_url is None:
        return here
    from jobs.execution.ray_engine import RayEngine  # late: only with a cluster

    cluster = RayEngine(settings, settings.cluster_url, settings.cluster_token)
    return SplitEngine(here, cluster, LOCAL, is_of_this_machine)


@dataclass(eq=False)
class Running:
    """A worker that this dispatcher started or adopted.

    Attributes:
        job: The row at that time.
        claim: The worker's claim on it.
        log: The log of the job.
        ended: How the worker ended.
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
    log: LogWriter
    ended: asyncio.Future[End]
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
        settings: Provide the numbers of slots and attempts.
        engine: Runs the workers.
        published: Returns the id of the model that a job has published, if any; see `JobFinalizer`.
        on_epoch: Called with mode and duration (seconds) of every finished epoch.
        webhooks: Sends the deliveries of ended jobs while this dispatcher holds the lock.
        retry: Seconds from a failed database access to the next attempt.

    Attributes:
        on_lead: Called with whether this dispatcher leads, when that changes and at its start.
    """

    def __init__(
        self,
        store: JobStore,
        settings: Settings,
        engine: JobEngine,
        *,
        published: Callable[[str], str | None] = lambda _: None,
        on_epoch: Callable[[str, float], None] = lambda *_: None,
        webhooks: WebhookSender | None = None,
        retry: float = RETRY,
    ) -> None:
        self.store = store
        self.settings = settings
        self.slots = slots(settings)
        self.on_lead: Callable[[bool], None] = lambda _: None
        self._engine = engine
        self._finalizer = JobFinalizer(store, settings.train_attempts, published)
        self._on_epoch = on_epoch
        self._webhooks = webhooks
        self._retry_after = retry
        self._running: dict[str, Running] = {}
        self._refused: set[str] = set()  # jobs whose worker could not be started
        self._awaited: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._shutdown = asyncio.Event()
        self._lock = dispatcher_lock(store.database)
        self._leads = False
        self._tasks: list[asyncio.Task[None]] = []
        self._stop: asyncio.Future[None] | None = None  # a reference, so that it is not collected
        self._stopped = asyncio.Event()

    def start(self) -> None:
        """Start the loop. Needs a running event loop, whose thread must outlive the workers."""
        self._note_lead(False)
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._reap())]

    @property
    def leads(self) -> bool:
        """Whether this dispatcher starts the jobs, and none of another server."""
        return self._leads

    def _note_lead(self, leads: bool) -> None:
        self._leads = leads
        self.on_lead(leads)

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
                await asyncio.sleep(self._retry_after)
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
        """End the workers after they have saved; their jobs resume at the next start.

        Workers that outlive this dispatcher go on; the next one adopts them.
        """
        if not self._shutdown.is_set():
            self._shutdown.set()
            self.wake()
            for ended in self._awaited.values():
                ended.set()
            for running in self._running.values():
                if not self._engine.outlives(running.claim):
                    self._end(running, Ending.SAVE)
                    continue
                for task in (running.watch, running.ending):
                    if task is not None:
                        task.cancel()
            going = list(self._running.values())
            watches = [running.watch for running in going if running.watch]
            await asyncio.gather(*watches, return_exceptions=True)
            for running in going:  # the process may end before a log's next piece is due
                await asyncio.to_thread(running.log.flush)
            for task in self._tasks:
                task.cancel()
            late = [running.watch for running in self._running.values() if running.watch]
            await asyncio.gather(*self._tasks, *late, return_exceptions=True)
            await self._engine.close()
            if self._webhooks is not None:
                await asyncio.to_thread(self._webhooks.stop)
            if self.store.database.is_shared and await asyncio.to_thread(self._lock.is_held):
                with contextlib.suppress(*FAILURES):
                    await asyncio.to_thread(note_leader, self.store.database, False)
            self._note_lead(False)
            await asyncio.to_thread(self._lock.release)
            self._stopped.set()
        await self._stopped.wait()

    # --- the loop

    async def _run(self) -> None:
        await self._acquire_lock()
        if self._webhooks is not None:
            self._webhooks.start()
        await self._retry(self._take_over)
        checked = time.monotonic()
        while not self._shutdown.is_set():
            try:
                if time.monotonic() - checked >= LOCK_CHECK:
                    await self._keep_lock()
                    checked = time.monotonic()
                await self._poll()
            except Exception:
                log.exception("The job table could not be read; retrying")
                await asyncio.sleep(self._retry_after)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._wake.wait()
            self._wake.clear()

    async def _acquire_lock(self) -> None:
        """Wait until no other dispatcher runs these jobs, and say that this one does."""
        while True:
            try:
                await asyncio.to_thread(self._lock.acquire, 0)
                break
            except Timeout:
                await asyncio.sleep(POLL)
            except Exception:
                log.exception("The lock of the dispatcher cannot be taken yet; retrying")
                await asyncio.sleep(self._retry_after)
        self._note_lead(True)
        await self._retry(partial(asyncio.to_thread, note_leader, self.store.database, True))

    async def _keep_lock(self) -> None:
        """Start no job while another dispatcher may: the lock is lost with its connection.

        What runs here goes on meanwhile. A worker whose job was given to another one ends itself.
        """
        if await asyncio.to_thread(self._lock.is_held):
            return
        log.warning("The lock of the dispatcher was lost with the database; waiting for it")
        self._note_lead(False)
        await self._acquire_lock()
        await self._retry(self._take_over)

    async def _reap(self) -> None:
        """Pass on how workers have ended."""
        while True:
            ends = self._engine.poll()
            for running in self._running.values():
                end = ends.get(running.claim)
                if end is not None and not running.ended.done():
                    running.ended.set_result(end)
            await asyncio.sleep(REAP)

    async def _retry(self, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat a step that uses the database until it succeeds."""
        while True:
            try:
                await step()
                return
            except Exception:
                log.exception("The job table could not be written; retrying")
                await asyncio.sleep(self._retry_after)

    async def _take_over(self) -> None:
        """Adopt or end the workers that an earlier dispatcher left; finalize its other jobs."""
        left = await asyncio.to_thread(self.store.list, None, "queued", *LIVE)
        left = [job for job in left if job.id not in self._running]  # ours, if the lock was lost
        queued = [job for job in left if job.status == "queued"]
        live = [job for job in left if job.status != "queued"]
        logs = {job.id: await self._log_of(job) for job in live}
        adopted = await self._engine.adopt([*live, *queued], lambda job: logs[job.id])
        for job in live:
            if job.claim in adopted:
                logs[job.id].say_soon(f"The server {HOST} watches the worker from now on.")
                self._watch(job, job.claim, logs[job.id])
            else:
                await asyncio.to_thread(self._finalizer.finalize, job.id, KILLED)
        for job in await asyncio.to_thread(self.store.list, None, *FINAL):  # not cleared yet?
            folder = self.store.folder(job.id)
            await asyncio.to_thread(clear, folder, completed=job.status == "completed")

    async def _poll(self) -> None:
        for running in list(self._running.values()):
            job = await asyncio.to_thread(self.store.get, running.job.id)
            given_away = job.claim != running.claim and not running.ended.done()
            if job.status == "stopping" or given_away:
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
        queued = await asyncio.to_thread(self.store.queued, self.slots + PAUSED, kinds)
        ready = [job for job in queued if pause_left(job.outage_since, job.updated_at) <= 0]
        # No more: each start that fails, as while the cluster does not answer, may take seconds.
        for job in ready[: self.slots]:
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

    async def _log_of(self, job: Job) -> LogWriter:
        return await asyncio.to_thread(self.store.log_writer, job.id)  # may ask the database

    async def _launch(self, job: Job) -> bool:
        """Start a worker. Returns whether it was started."""
        writer, claim = await self._log_of(job), self._engine.claim(job)
        claimed = await asyncio.to_thread(self.store.claim, job.id, claim)
        if not claimed or self._shutdown.is_set():
            return False
        try:
            launched = await self._engine.launch(job, claim, writer)
        except NotLaunched as error:
            self._refuse(job, writer, error)
            return False
        self._refused.discard(job.id)
        again = f", attempt {job.attempts + 1}" if job.attempts else ""
        where = f" on {HOST}" if self.store.database.is_shared and launched.pid else ""
        writer.say_soon(f"{launched.shown} started{where}{again}.")
        with of_request(job.request_id):
            log.info("Job %s, %s: %s started%s", job.id, job.kind, _lowered(launched.shown), again)
        self._watch(job, claim, writer, launched)
        return True

    def _refuse(self, job: Job, writer: LogWriter, error: Exception) -> None:
        """Log once why a worker cannot be started. The start is retried at every poll."""
        if job.id not in self._refused:
            self._refused.add(job.id)
            writer.say_soon(f"The worker cannot be started yet: {str(error).rstrip('.')}.")

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
            self._end(running, Ending.ABORT)

    def _end(self, running: Running, how: Ending = Ending.CANCEL) -> None:
        if running.ending is None:
            running.ending = asyncio.create_task(self._engine.end(running.claim, how))

    def _watch(
        self,
        job: Job,
        claim: str,
        writer: LogWriter,
        launched: Launched | None = None,
    ) -> None:
        """Watch a worker that was started just now, or that was adopted."""
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        running = Running(job, claim, writer, ended, epoch=job.checkpoint)
        self._running[job.id] = running
        running.watch = asyncio.create_task(self._finish(running, launched))

    async def _finish(self, running: Running, launched: Launched | None) -> None:
        """Mark a job as running, wait for the end of its worker, finalize the row."""
        job_id = running.job.id
        try:
            if launched is not None and not await self._mark_running(running, launched):
                self._end(running)  # cancelled in the meantime
            if self._shutdown.is_set() and self._engine.outlives(running.claim):
                return
            end = await running.ended
            finalize = partial(
                self._finalizer.finalize,
                job_id,
                running.stalled or end.reason,
                claim=running.claim,
                code=end.code,
                shutdown=self._shutdown.is_set(),
                yielded=running.yielding,
            )
            await self._retry(partial(asyncio.to_thread, finalize))
            self._engine.forget(running.claim)
            with contextlib.suppress(*FAILURES, JobNotFound):
                job = await asyncio.to_thread(self.store.get, job_id)
                self._observe(running, job)
                _log_end(job)
        finally:
            del self._running[job_id]
            self.wake()
            if job_id in self._awaited:
                self._awaited[job_id].set()

    async def _mark_running(self, running: Running, launched: Launched) -> bool:
        job_id, claim = running.job.id, running.claim
        try:
            return await asyncio.to_thread(
                self.store.start, job_id, claim, launched.pid, launched.pid_started
            )
        except Exception:
            log.exception("Job %s could not be marked as running", job_id)
            return False


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _log_end(job: Job) -> None:
    """Log how a job's process has ended, with the reason if the job has failed."""
    with of_request(job.request_id):
        if job.status == "failed":
            log.warning("Job %s, %s: failed: %s", job.id, job.kind, job.error)
        else:
            log.info("Job %s, %s: %s", job.id, job.kind, job.status)
