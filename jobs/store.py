"""The job table, which is also the queue: request, progress and outcome of every job.

`jobs.states` explains a job's status; a final status never changes. Only the dispatcher sets a job
to running or to a final status, after the state of the process. The worker writes progress and
outcome in between.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Update, case, delete, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

import tracing
from database import Database, now
from disk_space import check_room
from errors import Conflict, VisionLoopError
from jobs.caller import CALLER
from jobs.epochs import EpochRow
from jobs.failures import UNTRIED, ago
from jobs.handle import JobCancelled
from jobs.home_references import referring, refuse_paths_elsewhere
from jobs.job import IDLE, LIGHT, LOCAL, Job, Kind, find_job
from jobs.logs.log_file import LogWriter
from jobs.logs.shared_logs import SharedLogs, SharedLogWriter, delete_log
from jobs.lost_jobs import delete_objects
from jobs.quota import refuse_too_many
from jobs.states import FINAL, LIVE, Status
from jobs.webhooks.deliveries import enqueue
from request_id import REQUEST_ID
from storage.deletion import LATER

log = logging.getLogger(__name__)

LISTED = 1000  # maximum number of jobs in a listing
LONGEST_ERROR = 2000  # maximum number of characters of an error message


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

    # --- reading

    def get(self, job_id: str) -> Job:
        """A job by its id, or by the beginning of its id.

        Raises:
            JobNotFound: There is no such job.
            ValidationFailed: Several ids begin with it.
        """
        with self.database.read() as session:
            return find_job(session, job_id)

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
                query = query.where(Job.number < find_job(session, before).number)
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
                refuse_too_many(session, job.caller, settings.jobs_per_token)
                session.add(job)
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        set_committed_value(job, "recipe", dict(recipe))
        if job.request_id is not None:
            self.log_writer(job.id).say(f"Request {job.request_id}.")
        return job

    def request_cancel(self, job_id: str) -> Job:
        """Stop a queued job at once; a running one is `stopping` until its process has ended.

        Repeated calls have no effect.

        Raises:
            JobNotFound: There is no such job.
            Conflict: The job has ended.
        """
        with self.database.write() as session:
            job = find_job(session, job_id, lock=True)
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
            job = find_job(session, job_id, lock=True)
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
        try:
            delete_objects(self.database, job.id)
        except VisionLoopError as error:
            log.warning("Files of the deleted job %s are still stored: %s %s", job.id, error, LATER)

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

        Returns False if the job is not queued. A later claim replaces an earlier one. An outage
        counts on only if the job was tried lately.
        """
        queued = (Job.id == job_id, Job.status == "queued")
        since = case((Job.updated_at > ago(UNTRIED), Job.outage_since), else_=None)
        with self.database.write_rows() as session:
            values = {"claim": claim, "outage_since": since}
            return _execute(session, update(Job).where(*queued).values(values)) == 1

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
                self._notify(session, find_job(session, job_id))
            return moved

    def _notify(self, session: Session, job: Job) -> None:
        """Queue the webhook deliveries of a job that this transaction ends."""
        addresses = self.database.settings.webhook_url
        enqueue(session, addresses, job.id, job.status, job.to_json())


def _mine(job_id: str, claim: str) -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a job is assigned to the worker with this claim."""
    return Job.id == job_id, Job.claim == claim, Job.status.in_(LIVE)


def _under(claim: str | None) -> tuple[ColumnElement[bool], ...]:
    """The condition that a job has this claim; None: any."""
    return () if claim is None else (Job.claim == claim,)


def _execute(session: Session, statement: Update) -> int:
    """Execute a statement. Returns the number of changed rows."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
