"""The job table, which is also the queue: request, progress and outcome of every job.

`jobs.states` explains a job's status; a final status never changes. Only the dispatcher sets a job
to running or to a final status, after the state of the process. The worker writes progress and
outcome in between.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from sqlalchemy import (
    JSON,
    ColumnElement,
    CursorResult,
    Float,
    Integer,
    Select,
    String,
    Text,
    Update,
    case,
    delete,
    event,
    func,
    select,
    update,
)
from sqlalchemy.orm import Mapped, QueryContext, Session, mapped_column
from sqlalchemy.orm.attributes import set_committed_value

import tracing
from database import HOME, Base, Database, now
from disk_space import check_room
from errors import Conflict, JobNotFound, RateLimited, VisionLoopError, without_server_paths
from jobs.caller import CALLER, public_name
from jobs.claims import machine_of
from jobs.epochs import EpochRow
from jobs.handle import JobCancelled
from jobs.home_references import referring, refuse_paths_elsewhere, resolved
from jobs.logs import LogWriter
from jobs.shared_logs import LogPiece, SharedLogs, SharedLogWriter, delete_log
from jobs.states import FINAL, Status
from jobs.webhooks.deliveries import enqueue
from request_id import REQUEST_ID
from short_ids import RULE, SHORTEST, only_match
from storage.place import open_trees

JOBS = "jobs"  # first word of the keys of objects of jobs: jobs/ID/…

Kind = Literal["training", "evaluation", "export", "annotation", "fetch", "engine", "import"]

KINDS: tuple[Kind, ...] = (
    "training", "evaluation", "export", "annotation", "fetch", "engine", "import",
)  # fmt: skip
# Kinds that run beside the jobs of the slots, one of each kind at a time
LIGHT: tuple[Kind, ...] = ("fetch", "import")
IDLE: tuple[Kind, ...] = ("engine",)  # kinds that run while no other job waits or runs
# Kinds that never run on a cluster. Fetches wait for a network, imports read an upload that is on
# this machine, trials of engines measure this machine, and exports are files that it serves; an
# engine of TensorRT fits the GPU it was made on.
LOCAL: tuple[Kind, ...] = (*LIGHT, *IDLE, "export")
LIVE: tuple[Status, ...] = ("running", "stopping")  # statuses of jobs that have or had a process

JOB_ID = re.compile(r"[0-9a-f]{32}")
SHORT_ID = re.compile(rf"[0-9a-f]{{{SHORTEST},31}}")
LISTED = 1000  # maximum number of jobs in a listing
SHOWN = (
    "kind", "mode", "task", "status", "progress", "current_epoch", "total_epochs", "batch",
    "batches", "metrics", "config", "base_model", "model_name", "model_id", "attempts",
    "request_id", "created_at", "started_at", "finished_at", "updated_at", "outage_since",
)  # fmt: skip
FULL_QUEUE = 60.0  # seconds of `Retry-After` when a caller has too many jobs
LONGEST_ERROR = 2000  # maximum number of characters of an error message


class Job(Base):
    """A job. Rows that the store returns are detached copies."""

    __tablename__ = "jobs"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    number: Mapped[int] = mapped_column(Integer, primary_key=True)  # order of submission
    id: Mapped[str] = mapped_column(String(32), unique=True)
    kind: Mapped[str] = mapped_column(String(20), index=True)
    mode: Mapped[str | None] = mapped_column(String(40))
    task: Mapped[str | None] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(20), index=True, default="queued")

    config: Mapped[dict[str, Any]]  # as the client sent it
    recipe: Mapped[dict[str, Any]]  # what the job does, in full
    base_model: Mapped[str | None] = mapped_column(String(400))
    model_name: Mapped[str | None] = mapped_column(String(80))
    caller: Mapped[str | None] = mapped_column(String(80), index=True)  # None: no request
    request_id: Mapped[str | None] = mapped_column(String(128))  # of the request for it
    traceparent: Mapped[str | None] = mapped_column(String(80))  # W3C; of that request's span
    model_id: Mapped[str | None] = mapped_column(String(140))  # the model version it produced
    outcome: Mapped[str | None] = mapped_column(String(20))  # a status, as the worker reported it
    error: Mapped[str | None] = mapped_column(Text)

    progress: Mapped[float] = mapped_column(Float, default=0.0)  # percent
    current_epoch: Mapped[int] = mapped_column(Integer, default=0)
    total_epochs: Mapped[int] = mapped_column(Integer, default=0)
    batch: Mapped[int | None] = mapped_column(Integer)  # trained batches of the current epoch
    batches: Mapped[int | None] = mapped_column(Integer)  # batches of an epoch; None: not known
    eta_seconds: Mapped[float | None] = mapped_column(Float)  # left at `updated_at`, estimated
    epoch_seconds: Mapped[float | None] = mapped_column(Float)  # duration of the last full epoch
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)

    claim: Mapped[str | None] = mapped_column(String(120))  # of its worker; see `jobs.claims`
    pid: Mapped[int | None] = mapped_column(Integer)  # of a worker on the dispatcher's machine
    pid_started: Mapped[float | None] = mapped_column(Float)  # detects a reused pid
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    crashes: Mapped[int] = mapped_column(Integer, default=0)  # since the last new checkpoint
    outage_since: Mapped[str | None] = mapped_column(String(40))  # see `jobs.failures`
    interrupted_at: Mapped[str | None] = mapped_column(String(40))  # the last end of an attempt
    interruption: Mapped[str | None] = mapped_column(Text)  # that was not the job's end, and why
    checkpoint: Mapped[int] = mapped_column(Integer, default=0)  # completed epochs in the last one
    checkpoint_batch: Mapped[int] = mapped_column(Integer, default=0)  # and batches of the next one

    created_at: Mapped[str] = mapped_column(String(40), default=now)
    started_at: Mapped[str | None] = mapped_column(String(40))
    finished_at: Mapped[str | None] = mapped_column(String(40))
    updated_at: Mapped[str] = mapped_column(String(40), default=now, index=True)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    def to_json(self) -> dict[str, Any]:
        """The job in the form of `GET /jobs/{job_id}`, which adds the path of the log."""
        shown = {name: getattr(self, name) for name in SHOWN}
        more = {
            "started_by": self.started_by,
            "error": self.shown_error,
            "runs_on": machine_of(self.claim),
            "interruption": self.shown_interruption,
        }
        return {"job_id": self.id} | shown | more

    @property
    def ending(self) -> str:
        """How a job ended, in words that clients of both families know."""
        return {"completed": "is completed", "failed": "has failed"}.get(
            self.status, "was ended on request"
        )

    @property
    def started_by(self) -> str | None:
        """Who started it: a token's name, or `open` without one; addresses are not shown."""
        return public_name(self.caller)

    @property
    def shown_error(self) -> str | None:
        """The error as clients see it, without folders of the server."""
        return None if self.error is None else without_server_paths(self.error)

    @property
    def shown_interruption(self) -> dict[str, str | None] | None:
        """Why and when its last attempt ended before the job had; None: none has."""
        if self.interruption is None:
            return None
        return {"at": self.interrupted_at, "reason": without_server_paths(self.interruption)}

    @property
    def seconds_left(self) -> float | None:
        """The estimated seconds until a running job has ended; None: not known yet."""
        if self.eta_seconds is None:
            return None
        passed = datetime.now(UTC) - datetime.fromisoformat(self.updated_at)
        return round(max(0.0, self.eta_seconds - passed.total_seconds()), 1)

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.checkpoint > 0 or self.checkpoint_batch > 0

    @property
    def notes(self) -> list[str]:
        """What its planning has to say: sentences."""
        return [str(note) for note in self.recipe.get("notes") or ()]


@event.listens_for(Job, "load")
def _loaded(job: Job, context: QueryContext) -> None:
    if (home := context.session.info.get(HOME)) is not None:
        set_committed_value(job, "recipe", resolved(job.recipe, home))


@event.listens_for(Job, "refresh")
def _refreshed(job: Job, context: QueryContext, names: Collection[str] | None) -> None:
    if names is None or "recipe" in names:
        _loaded(job, context)


class JobStore:
    """Reads and changes jobs; safe to share between threads and between processes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._jobs = database.settings.paths.jobs

    def folder(self, job_id: str) -> Path:
        """The folder of a job: log, checkpoints, runs."""
        return self._jobs / job_id

    def log(self, job_id: str) -> Path:
        """The log file of a job."""
        return self.folder(job_id) / "log"

    def log_writer(self, job_id: str) -> LogWriter:
        """Appends to the log of a job; with an object store, for all machines."""
        path = self.log(job_id)
        if self.database.settings.store_url is None:
            return LogWriter(path)
        return SharedLogWriter(SharedLogs(self.database), job_id, path)

    def log_to_read(self, job_id: str) -> Path:
        """The log file of a job; with an object store, after what other machines wrote."""
        path = self.log(job_id)
        if self.database.settings.store_url is not None:
            SharedLogs(self.database).copy(job_id, path)
        return path

    def stored(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe as the row has it: with an object store, for machines of other homes."""
        settings = self.database.settings
        return dict(recipe) if settings.store_url is None else referring(recipe, settings.home)

    def size_bytes(self, job_id: str) -> int:
        """The bytes of a job's files, without its view of the dataset, which consists of links."""
        total = 0
        folder = self.folder(job_id)
        for top, folders, names in os.walk(folder):
            if Path(top) == folder:
                folders[:] = [name for name in folders if name != "data"]
            for name in names:
                with contextlib.suppress(OSError):  # deleted meanwhile
                    total += os.lstat(os.path.join(top, name)).st_size
        return total

    # --- reading

    def get(self, job_id: str) -> Job:
        """A job by its id, or by the beginning of its id.

        Raises:
            JobNotFound: There is no such job.
            ValidationFailed: Several ids begin with it.
        """
        with self.database.read() as session:
            return _row(session, job_id)

    def list(
        self,
        kind: str | None = None,
        *statuses: str,
        limit: int = LISTED,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs, the newest first.

        Args:
            kind: Only jobs of this kind.
            statuses: Only jobs with one of these statuses.
            limit: Maximum number of jobs.
            before: Id of a job: only jobs older than it.

        Raises:
            JobNotFound: There is no job with the id `before`.
        """
        query = select(Job).order_by(Job.number.desc()).limit(limit)
        if kind is not None:
            query = query.where(Job.kind == kind)
        if statuses:
            query = query.where(Job.status.in_(statuses))
        with self.database.read() as session:
            if before is not None:
                query = query.where(Job.number < _row(session, before).number)
            return list(session.scalars(query))

    def queued(self, limit: int, kinds: Collection[str] | None = None) -> tuple[Job, ...]:
        """The next jobs of these kinds in the queue, in the order of submission.

        None: all kinds that need one of the slots, among them those that are not known.
        """
        kind = Job.kind.not_in((*LIGHT, *IDLE)) if kinds is None else Job.kind.in_(kinds)
        query = select(Job).where(Job.status == "queued", kind).order_by(Job.number).limit(limit)
        with self.database.read() as session:
            return tuple(session.scalars(query))

    def counts(self) -> dict[tuple[str, Status], int]:
        """The number of jobs by kind and status."""
        query = select(Job.kind, Job.status, func.count()).group_by(Job.kind, Job.status)
        with self.database.read() as session:
            return {
                (kind, cast("Status", status)): count
                for kind, status, count in session.execute(query)
            }

    def places(self) -> dict[str, int]:
        """The place in the queue of every waiting job, from 1, among those of its kind of slot."""
        query = select(Job.id, Job.kind).where(Job.status == "queued").order_by(Job.number)
        found: dict[str, int] = {}
        counts: dict[tuple[str, ...], int] = {}
        with self.database.read() as session:
            for job_id, kind in session.execute(query):
                lane: tuple[str, ...] = next(
                    (kinds for kinds in (LIGHT, IDLE) if kind in kinds), ()
                )
                found[job_id] = counts[lane] = counts.get(lane, 0) + 1
        return found

    def epochs(self, job_id: str, after: int = 0, limit: int = LISTED) -> tuple[EpochRow, ...]:
        """The finished epochs of a job, in order.

        Args:
            job_id: The job's full id.
            after: Only epochs after this one.
            limit: Maximum number of epochs.
        """
        wanted = (EpochRow.job_id == job_id, EpochRow.epoch > after)
        query = select(EpochRow).where(*wanted).order_by(EpochRow.epoch).limit(limit)
        with self.database.read() as session:
            return tuple(session.scalars(query))

    # --- requested by clients

    def create(
        self,
        kind: Kind,
        *,
        config: Mapping[str, Any],
        recipe: Mapping[str, Any],
        mode: str | None = None,
        task: str | None = None,
        base_model: str | None = None,
        model_name: str | None = None,
        total_epochs: int = 0,
    ) -> Job:
        """Add a job to the queue; its folder is created first.

        Raises:
            InsufficientStorage: The disk is full, or has less room than the reserve.
            RateLimited: The caller's jobs that have not ended are as many as allowed.
            ValidationFailed: It is to run on a cluster, and its recipe names a path on this server.
        """
        settings = self.database.settings
        if settings.cluster_url is not None and kind not in LOCAL:
            refuse_paths_elsewhere(recipe, settings)
        check_room(settings)
        job = Job(
            id=uuid.uuid4().hex,
            kind=kind,
            mode=mode,
            task=task,
            config=dict(config),
            recipe=self.stored(recipe),
            base_model=base_model,
            model_name=model_name,
            total_epochs=total_epochs,
            caller=CALLER.get(),
            request_id=REQUEST_ID.get(),
            traceparent=tracing.traceparent(),
        )
        folder = self.folder(job.id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self.database.write() as session:
                self._refuse_too_many(session, job.caller)
                session.add(job)
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        set_committed_value(job, "recipe", dict(recipe))
        if job.request_id is not None:
            self.log_writer(job.id).say(f"Request {job.request_id}.")
        return job

    def _refuse_too_many(self, session: Session, caller: str | None) -> None:
        most = self.database.settings.jobs_per_token
        if caller is None or not most:
            return
        mine = (Job.caller == caller, Job.status.in_(("queued", *LIVE)))
        count = session.scalar(select(func.count()).where(*mine)) or 0
        if count >= most:
            newest = session.scalar(
                select(Job.id).where(*mine).order_by(Job.number.desc()).limit(1)
            )
            raise RateLimited(
                f"{count} jobs of yours wait or run, and {most} are allowed "
                "(VISIONLOOP_JOBS_PER_TOKEN). Wait for one to end, or cancel one that you do not "
                f"need, such as the newest: POST /jobs/{newest}/cancel.",
                FULL_QUEUE,
            )

    def request_cancel(self, job_id: str) -> Job:
        """Stop a queued job at once; a running one is `stopping` until its process has ended.

        Repeated calls have no effect.

        Raises:
            JobNotFound: There is no such job.
            Conflict: The job has ended.
        """
        with self.database.write() as session:
            job = _row(session, job_id, lock=True)
            if job.is_final:
                raise Conflict(
                    f"Job '{job.id}' {job.ending}; there is nothing to cancel. "
                    f"DELETE /jobs/{job.id} removes it."
                )
            if job.status == "queued":
                job.status, job.finished_at = "stopped", now()
            else:
                job.status = "stopping"
            job.updated_at = now()
            if job.is_final:
                self._notify(session, job)
        return job

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended: its row, log and folder, but not the model it produced.

        Raises:
            JobNotFound: There is no such job.
            Conflict: The job has not ended, or a waiting job starts from its weights.
        """
        with self.database.write() as session:
            job = _row(session, job_id, lock=True)
            if not job.is_final:
                raise Conflict(
                    f"Job '{job.id}' is {job.status}. Cancel it first, or wait until it ends."
                )
            waiting = select(Job).where(Job.status.in_(("queued", *LIVE)))
            for other in session.scalars(waiting):
                base = other.recipe.get("base") or {}
                if (base.get("kind"), base.get("value")) == ("job", job.id):
                    raise Conflict(
                        f"Job '{other.id}' starts from this job's weights. Wait until that job "
                        "ends."
                    )
            # inside the transaction, so that delete can be repeated after a crash
            shutil.rmtree(self.folder(job.id), ignore_errors=True)
            session.execute(delete(EpochRow).where(EpochRow.job_id == job.id))
            delete_log(session, job.id)
            session.delete(job)
        with contextlib.suppress(VisionLoopError):  # `lost` finds them later
            self._delete_objects(job.id)

    def lost(self, min_age: float) -> Sequence[str]:
        """With an object store: ids of jobs without a row that have files here, objects or a log.

        They were deleted on another machine, or while the store could not be reached, or output of
        their worker arrived late.

        Args:
            min_age: Age in seconds from which a folder is not one of a job that is being made.
        """
        trees = open_trees(self.database.settings)
        if not trees.shared:
            return []
        found = {key.split("/")[1] for key in trees.list(JOBS)}
        for folder in self._jobs.glob("*/"):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                old = time.time() - folder.stat().st_mtime > min_age
                if old and JOB_ID.fullmatch(folder.name):
                    found.add(folder.name)
        with self.database.read() as session:  # after the files: each job had its row before them
            found |= set(session.scalars(select(LogPiece.job_id).distinct()))
            return sorted(found - set(session.scalars(select(Job.id))))

    def delete_lost(self, job_id: str) -> None:
        """Delete what is left of one of `lost`."""
        with self.database.write() as session:
            delete_log(session, job_id)
        shutil.rmtree(self.folder(job_id), ignore_errors=True)
        self._delete_objects(job_id)

    def _delete_objects(self, job_id: str) -> None:
        trees = open_trees(self.database.settings)
        for key in trees.list(f"{JOBS}/{job_id}"):
            trees.delete(key)

    # --- written by the worker

    def fence(self, job_id: str, claim: str) -> None:
        """Have the worker with this claim write only while the job is assigned to it.

        From now on every write transaction of this store's database, of whatever table, begins with
        a check of the job's row, which stays locked until the transaction ends. It raises
        `JobCancelled` once the job has ended or was given to another worker. So a worker that was
        given up publishes no model.
        """
        mine = select(Job.id).where(*_mine(job_id, claim)).with_for_update()

        def check(session: Session) -> None:
            if session.scalar(mine) is None:
                raise JobCancelled

        self.database.fence = check

    def note(self, job_id: str, claim: str, **values: Any) -> str | None:
        """Write values that the worker with this claim reports.

        Returns:
            The status of the job; None if it is no longer assigned to this worker.
        """
        mine = _mine(job_id, claim)
        with self.database.write_rows() as session:
            _execute(session, update(Job).where(*mine).values(updated_at=now(), **values))
            status: str | None = session.scalar(select(Job.status).where(*mine))
            return status

    def add_epoch(
        self,
        job_id: str,
        claim: str,
        epoch: int,
        seconds: float | None,
        metrics: Mapping[str, float | None],
    ) -> None:
        """Add an epoch that the worker with this claim finished to the job's history.

        It replaces the entry of the same epoch, and those of later ones, which an earlier attempt
        left. Nothing is written if the job is no longer assigned to this worker.
        """
        mine = _mine(job_id, claim)
        repeated = (EpochRow.job_id == job_id, EpochRow.epoch >= epoch)
        with self.database.write() as session:
            if session.scalar(select(Job.id).where(*mine)) is not None:
                session.execute(delete(EpochRow).where(*repeated))
                session.add(
                    EpochRow(job_id=job_id, epoch=epoch, seconds=seconds, metrics=dict(metrics))
                )

    # --- written by the dispatcher

    def claim(self, job_id: str, claim: str) -> bool:
        """Write the claim of the worker that is to be started for a queued job.

        Returns False if the job is not queued. A later claim replaces an earlier one.
        """
        queued = (Job.id == job_id, Job.status == "queued")
        with self.database.write_rows() as session:
            return _execute(session, update(Job).where(*queued).values(claim=claim)) == 1

    def start(
        self,
        job_id: str,
        claim: str,
        pid: int | None = None,
        pid_started: float | None = None,
    ) -> bool:
        """Set a queued job to running, by the worker with this claim.

        Args:
            job_id: The job.
            claim: The claim that its row has.
            pid: The worker's process, if it runs on this machine.
            pid_started: See `jobs.processes.started_at`.

        Returns:
            False if the job was not queued, or has another claim by now.
        """
        values = {
            "status": "running",
            "pid": pid,
            "pid_started": pid_started,
            "attempts": Job.attempts + 1,
            "started_at": func.coalesce(Job.started_at, now()),
            "updated_at": now(),
        }
        return self._move(job_id, ("queued",), values, Job.claim == claim)

    def requeue(
        self,
        job_id: str,
        crashed: bool,
        claim: str | None = None,
        reason: str | None = None,
        *,
        outage: bool = False,
    ) -> bool:
        """Return a running job whose process has ended to its former place in the queue.

        Args:
            job_id: The job.
            crashed: Whether this counts as a crash.
            claim: That of the process; None: any.
            reason: A sentence on why the attempt ended.
            outage: Whether it could not reach the database or the object store.

        Returns False, and changes nothing, if it does not run, or has another claim than this one.
        """
        resumes = (Job.checkpoint > 0) | (Job.checkpoint_batch > 0)
        values: dict[str, Any] = {
            "status": "queued",
            "claim": None,
            "pid": None,
            "pid_started": None,
            "crashes": Job.crashes + int(crashed),
            "interrupted_at": now(),
            "interruption": reason,
            "progress": case((resumes, Job.progress), else_=0.0),
            "current_epoch": case((resumes, Job.current_epoch), else_=0),
            "batch": None,
            "batches": None,
            "eta_seconds": None,
            "updated_at": now(),
        }
        if outage:
            values["outage_since"] = func.coalesce(Job.outage_since, now())
        return self._move(job_id, ("running",), values, *_under(claim))

    def finish(
        self,
        job_id: str,
        status: Status,
        error: str | None = None,
        claim: str | None = None,
        **values: Any,
    ) -> bool:
        """Set a final status, and add the webhook deliveries that announce it.

        Returns False, and changes nothing, if the job had ended before, or has another claim.
        """
        assert status in FINAL
        ended: dict[str, Any] = {
            "status": status,
            "claim": None,
            "pid": None,
            "outage_since": None,
            "finished_at": now(),
            "updated_at": now(),
        }
        if error is not None:
            ended["error"] = error[:LONGEST_ERROR]
        if status == "completed":
            ended["progress"] = 100.0
        return self._move(job_id, ("queued", *LIVE), ended | values, *_under(claim))

    def _move(
        self,
        job_id: str,
        origins: tuple[Status, ...],
        values: Mapping[str, Any],
        *more: ColumnElement[bool],
    ) -> bool:
        """Change the status in one statement, so that only one of two concurrent calls succeeds."""
        place = (Job.id == job_id, Job.status.in_(origins), *more)
        with self.database.write_rows() as session:
            moved = _execute(session, update(Job).where(*place).values(**values)) == 1
            if moved and values["status"] in FINAL:
                self._notify(session, _row(session, job_id))
            return moved

    def _notify(self, session: Session, job: Job) -> None:
        """Queue the webhook deliveries of a job that this transaction ends."""
        addresses = self.database.settings.webhook_url
        enqueue(session, addresses, job.id, job.status, job.to_json())


def _row(session: Session, job_id: str, lock: bool = False) -> Job:
    """The job that a client names: by its id, or by a unique beginning of it.

    With `lock`, nobody else changes its row until the transaction ends.
    """
    job = session.scalar(_locked(select(Job).where(Job.id == job_id), lock))
    if job is None and SHORT_ID.fullmatch(start := job_id.lower()):
        # a range, because the index on the column does not serve LIKE
        begins = (Job.id >= start, Job.id < start + "g")
        found = only_match(start, list(session.scalars(select(Job.id).where(*begins))), "jobs")
        if found:
            job = session.scalar(_locked(select(Job).where(Job.id == found), lock))
    if job is None:
        raise JobNotFound(f"No job {job_id[:80]!r}. GET /jobs lists them; give an id, {RULE}.")
    return job


def _mine(job_id: str, claim: str) -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a job is assigned to the worker with this claim."""
    return Job.id == job_id, Job.claim == claim, Job.status.in_(LIVE)


def _locked(query: Select[Job], lock: bool) -> Select[Job]:
    return query.with_for_update() if lock else query


def _under(claim: str | None) -> tuple[ColumnElement[bool], ...]:
    """The condition that a job has this claim; None: any."""
    return () if claim is None else (Job.claim == claim,)


def _execute(session: Session, statement: Update) -> int:
    """Execute a statement. Returns the number of changed rows."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
