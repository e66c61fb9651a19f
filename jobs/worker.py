"""A worker process: claims its job, runs it, records the outcome.

The function that does the work is passed to `main` (see the root module `worker`). The process's
output becomes the job's log.

SIGHUP keeps its default action, which ends the process at any point, even in the middle of a
convolution. No cleanup is needed: checkpoints are written atomically, and a model exists only once
its row is written. When the service stops (SIGUSR1, SIGTERM), a trainer that supports it first
writes a checkpoint within its epoch.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import process_log
import tracing
from database import FAILURES, Database, now
from disk_space import check_room, is_disk_full
from errors import DatabaseBusy, StoreRefused, StoreUnavailable, VisionLoopError
from files import delete_abandoned
from jobs.claims import CLAIM_ENV
from jobs.failures import DISK_FULL, LONGEST_OUTAGE, TRY_AGAIN, reason, spoken
from jobs.handle import JobCancelled, JobInterrupted
from jobs.job import Job
from jobs.pace import Pace
from jobs.processes import SIGNAL_EXIT, SIGNAL_SAVE_AND_EXIT
from jobs.shared_folders import JobFolders
from jobs.store import JobStore
from models_store import ultralytics_env
from models_store.registry import Registry
from request_id import REQUEST_ID
from settings import get_settings
from shell import Parser
from storage.place import open_trees

NICE = 10
STORE_POLL = 5.0  # seconds between two attempts to reach the object store
OUTAGE_LOG = 60.0  # seconds between two lines of the log about an outage
INTERVAL = 0.25  # seconds between two writes of progress
CLAIM_TIMEOUT = 15.0  # seconds within which the job must be assigned to this process
TRIES = 5  # attempts to write the outcome

Answer = TypeVar("Answer")
Work = Callable[["WorkerJob", Job, Registry], dict[str, Any]]
"""Runs a job; returns values for its row."""


class WorkerJob:
    """A JobHandle that writes to the job's row, under the claim that the row has."""

    def __init__(self, store: JobStore, job: Job, tries: int = TRIES) -> None:
        self.id = job.id
        self.folder = store.folder(job.id)
        self.resuming = job.resumable
        self.stop_requested = False
        self._store = store
        self._config = job.config
        self._tries = tries
        self._claim = job.claim or ""
        self._first = job.checkpoint
        self._whole = job.checkpoint_batch == 0  # whether the first epoch starts at its first batch
        self._epoch_began: float | None = None
        self._metrics: dict[str, float | None] = dict(job.metrics)
        self._pending: dict[str, Any] = {}
        self._epochs = job.total_epochs
        self._fraction = job.progress / 100 if self.resuming else 0.0
        self._pace = Pace()
        self._written = 0.0
        self._stopping = False
        self._folders = JobFolders(store.database.settings)
        self._attempt = job.attempts
        self._in_outage = job.outage_since is not None
        self._unwritten: float | None = None  # since when the database refuses reports
        self._told = -math.inf  # when the log last said so

    def begin(self) -> None:
        """Have what an earlier attempt left, on this machine or another.

        Raises:
            JobCancelled: The job was cancelled while the object store could not be reached.
        """
        begin = partial(self._folders.begin, self.id, self._attempt, self.resuming)
        found = self.patiently(begin)
        if self.resuming and not found:
            self.log("The checkpoint is not in the object store any more: begins anew.")
            self._first, self._whole, self._fraction = 0, True, 0.0
        self.resuming = found

    def patiently(self, action: Callable[[], Answer]) -> Answer:
        """Do what needs the object store, and wait while it cannot be reached.

        Raises:
            JobCancelled: The job was cancelled meanwhile.
            StoreUnavailable: It cannot be reached for `LONGEST_OUTAGE` seconds.
        """
        began, said, known = time.monotonic(), -math.inf, self._in_outage
        while True:
            try:
                found = action()
                break
            except StoreUnavailable:
                waited = time.monotonic() - began
                if waited > LONGEST_OUTAGE:
                    raise
                if waited - said >= OUTAGE_LOG:
                    since = f" for {spoken(waited)}" if waited >= 1 else ""
                    self.log(f"The object store cannot be reached{since}. The job waits for it.")
                    said = waited
                self.note_outage()
                self._write()
                self.check()
                time.sleep(STORE_POLL)
        if said >= 0:
            waited = time.monotonic() - began
            self.log(f"The object store answers again, after {spoken(waited)}.")
            if not known:  # else it lasts until the next checkpoint
                self._end_outage()
        return found

    def note_outage(self) -> None:
        """Have the row say since when the job waits."""
        if not self._in_outage:
            self._in_outage = True
            self._pending["outage_since"] = now()

    def _end_outage(self) -> None:
        if self._in_outage:
            self._in_outage = False
            self._pending["outage_since"] = None

    def report(
        self,
        *,
        fraction: float,
        epoch: int,
        epochs: int,
        metrics: Mapping[str, float] = {},
        batch: int = 0,
        batches: int = 0,
    ) -> None:
        epoch = max(self._first, epoch)
        self._pending |= {"current_epoch": epoch, "total_epochs": epochs}
        self._pending |= {"batch": batch, "batches": batches} if batches else {}
        self._epochs = epochs
        if epoch > self._first and self._epoch_began is None:
            self._epoch_began = time.monotonic()
        self.advance(fraction, metrics)

    def advance(self, fraction: float, metrics: Mapping[str, float] = {}) -> None:
        self._fraction = max(self._fraction, min(1.0, fraction))
        self._pace.note(self._fraction)
        self._metrics |= finite(metrics)
        progress = round(100 * self._fraction, 2)
        self._pending |= {"progress": progress, "metrics": dict(self._metrics)}
        self._pending["eta_seconds"] = self._pace.remaining()
        if time.monotonic() - self._written >= INTERVAL:
            self._write()

    def log(self, message: str) -> None:
        print(message, flush=True)

    def replace_recipe(self, recipe: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
        self._config = {**self._config, "resolved": dict(shown)}
        self._insist(recipe=self._store.stored(recipe), config=self._config)

    def check(self) -> None:
        if self._stopping:
            raise JobCancelled

    def finished_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        whole = self._whole and self._epoch_began is not None
        seconds = time.monotonic() - (self._epoch_began or 0.0) if whole else None
        with self._tolerant("An epoch's metrics"):
            self._store.add_epoch(self.id, self._claim, epoch, seconds, finite(metrics))

    def checkpointed(self, epoch: int, batch: int = 0) -> None:
        if self._save():
            self._pending |= {"checkpoint": epoch, "checkpoint_batch": batch, "crashes": 0}
            self._end_outage()
        if not batch:
            now = time.monotonic()
            whole = self._whole and self._epoch_began is not None
            self._pending["epoch_seconds"] = now - (self._epoch_began or now) if whole else None
            if self._epoch_began is not None:
                tracing.stage("epoch", now - self._epoch_began, attributes={"epoch": epoch})
            self._whole, self._epoch_began = True, now
        self._write()
        if batch or epoch < self._epochs:  # a job that has ended may use the reserve
            check_room(self._store.database.settings)

    @contextmanager
    def graceful_stop(self) -> Iterator[None]:
        def asked(*_: object) -> None:
            self.stop_requested = True

        # BentoML's supervisor sends its SIGTERM to the Trainer's children too (1.4.39).
        for number in (SIGNAL_SAVE_AND_EXIT, signal.SIGTERM):
            signal.signal(number, asked)
        try:
            yield
        finally:
            for number in (SIGNAL_SAVE_AND_EXIT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)

    def _save(self) -> bool:
        """Upload the checkpoint. Returns whether another machine can resume from it."""
        try:
            self._folders.save(self.id, self._attempt)
        except StoreUnavailable as error:
            self.log(f"The checkpoint could not be stored, the job goes on: {error.message}")
            return False
        except StoreRefused as error:  # the next one would be, too, and so would the end
            raise StoreRefused(
                f"The checkpoint could not be stored. {error.message} What counts is what they are "
                "on the machine of the worker. Then start the job again.",
                error.retry_after,
            ) from error
        return True

    def _write(self) -> None:
        self._written = time.monotonic()
        with self._tolerant("Progress"):
            status = self._store.note(self.id, self._claim, **self._pending)
            self._pending = {}
            self._stopping = status != "running"

    @contextmanager
    def _tolerant(self, what: str) -> Iterator[None]:
        """A context in which the database may fail: a job does not fail because of its report.

        The log says so now and then: it is also the only sign of life that the dispatcher has then.
        Another line tells how long it lasted.
        """
        try:
            yield
        except FAILURES as error:
            now = time.monotonic()
            if self._unwritten is None:
                self._unwritten, self._told = now, -math.inf
            if now - self._told >= OUTAGE_LOG:
                self._told = now
                print(f"{what} could not be written: {error}", file=sys.stderr, flush=True)
            return
        if self._unwritten is not None:
            waited = spoken(time.monotonic() - self._unwritten)
            self._unwritten = None
            self.log(f"The database takes reports again, after {waited}.")

    def conclude(self, **outcome: Any) -> None:
        """Record the outcome.

        Raises:
            SQLAlchemyError, DatabaseBusy, InsufficientStorage: The outcome cannot be written.
        """
        with contextlib.suppress(VisionLoopError):  # plots that were drawn after the last one
            self._folders.save(self.id, self._attempt)
        self._insist(**self._pending, **outcome)

    def _insist(self, **values: Any) -> None:
        """Write values to the row, and try again if that fails. Raises as `conclude`."""
        for left in reversed(range(self._tries)):
            try:
                self._store.note(self.id, self._claim, **values)
                return
            except FAILURES:
                if not left:
                    raise
                time.sleep(1)


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The metrics as JSON has them: None for those that are not finite."""
    return {n: float(v) if math.isfinite(v) else None for n, v in metrics.items()}


def main(work: Work) -> int:
    """Entry point of the worker process. Returns the exit code."""
    parser = Parser(prog="python -m worker", description=__doc__)
    parser.add_argument("job_id")
    parser.add_argument(
        "--parent",
        type=int,
        help="process id of the dispatcher; the worker ends when the dispatcher does",
    )
    arguments = parser.parse_args()
    set_up_process(arguments.parent)
    settings = get_settings()
    process_log.configure_job(settings)
    tracing.configure("job")
    ultralytics_env.prepare(settings.home)
    claim = os.environ.get(CLAIM_ENV, "")
    try:
        store = JobStore(Database(settings))
        row = claimed(store, arguments.job_id, claim)
    except DatabaseBusy as error:
        print(f"The job cannot be read: {error.message}", flush=True)
        return TRY_AGAIN
    if row is None:
        print("Job is not assigned to this process; exiting.", flush=True)
        return TRY_AGAIN
    store.fence(row.id, claim)
    REQUEST_ID.set(row.request_id)
    delete_abandoned(store.folder(row.id))  # left by an earlier attempt that was killed
    tracing.waited("job queue", row.created_at, row.traceparent)
    attributes = {
        "visionloop.job_id": row.id,
        "visionloop.job_mode": row.mode,
        "visionloop.attempt": row.attempts,
        "visionloop.request_id": row.request_id,
    }
    with tracing.span(f"job {row.kind}", row.traceparent, "CONSUMER", attributes) as span:
        code = run(WorkerJob(store, row), row, Registry(store.database), work)
        if span is not None and code:
            tracing.failed(span, f"exit code {code}")
    tracing.flush()
    return code


def run(job: WorkerJob, row: Job, registry: Registry, work: Work) -> int:
    """Run the job and record its outcome. Returns the exit code."""
    try:
        try:
            job.begin()
            outcome = work(job, row, registry)
            job.conclude(outcome="completed", **outcome)
        except DatabaseBusy as error:  # no fault of the job: it resumes from its checkpoint
            job.log(f"The job ends here, to be resumed: {error.message}")
            return TRY_AGAIN
        except StoreUnavailable as error:  # the same, once the store can be reached
            job.log(f"The job ends here, to be resumed: {error.message}")
            job.note_outage()
            job.patiently(open_trees(registry.settings).check)
            return TRY_AGAIN
        except Exception as error:
            if not isinstance(error, VisionLoopError):
                traceback.print_exc()
            job.conclude(outcome="failed", error=reason(error))
            return 1
    except JobCancelled:
        return 128 + signal.SIGTERM
    except JobInterrupted:  # it counts as a crash
        traceback.print_exc()
        return 1
    except StoreUnavailable:
        return TRY_AGAIN
    except DatabaseBusy as error:
        job.log(f"The outcome could not be written: {error.message}")
        return TRY_AGAIN
    except FAILURES as error:  # not even the outcome could be written
        traceback.print_exc()
        return DISK_FULL if is_disk_full(error) else 1
    return 0


def claimed(store: JobStore, job_id: str, claim: str, timeout: float = CLAIM_TIMEOUT) -> Job | None:
    """Wait until the job runs with this claim. Returns its row, or None if it does not."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        row = store.get(job_id)
        if row.claim != claim:
            return None
        if row.status == "running":
            return row
        if row.status != "queued":
            return None
        time.sleep(0.05)
    return None


def set_up_process(parent: int | None) -> None:
    """Set signals, the parent-death signal, and low priority for CPU and memory.

    The process ends with the dispatcher `parent` (a pid; None: it outlives whoever started it). If
    memory runs out, the kernel kills this process before those of the service.
    """
    faulthandler.enable()
    for number in (signal.SIGTERM, SIGNAL_SAVE_AND_EXIT, SIGNAL_EXIT):  # undo inherited SIG_IGN
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        if parent is not None:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        with contextlib.suppress(OSError):  # if memory runs out, kill this process first
            Path("/proc/self/oom_score_adj").write_text("500")
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if parent is not None and os.getppid() != parent:  # the parent ended before prctl
        os._exit(1)
    with contextlib.suppress(OSError):
        os.nice(NICE)


def exit_process(code: int) -> NoReturn:
    """Exit at once, without waiting for threads and data loaders."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
