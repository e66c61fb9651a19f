"""The job table: what was asked for, how far it is, how it ended. The table is the queue.

A job is `queued`, `running`, `stopping`, and in the end `stopped`, `completed` or `failed`;
those three never change again. Only the dispatcher makes a job running or ends it, and only by
what it sees of the process; the worker notes progress and outcome in between.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from sqlalchemy import (
    JSON,
    CursorResult,
    Float,
    Integer,
    String,
    Text,
    Update,
    case,
    func,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import Base, Database, now
from errors import Conflict, JobNotFound

Kind = Literal["training", "evaluation", "export", "annotation"]
Status = Literal["queued", "running", "stopping", "stopped", "completed", "failed"]

KINDS: tuple[Kind, ...] = ("training", "evaluation", "export", "annotation")
STATUSES: tuple[Status, ...] = ("queued", "running", "stopping", "stopped", "completed", "failed")
LIVE: tuple[Status, ...] = ("running", "stopping")  # they have, or had, a process
FINAL: tuple[Status, ...] = ("stopped", "completed", "failed")

JOB_ID = re.compile(r"[0-9a-f]{32}")
LISTED = 1000  # jobs a listing answers, the newest
LONGEST_ERROR = 2000  # characters


class Job(Base):
    """One job; a copy of its row when it was read."""

    __tablename__ = "jobs"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    number: Mapped[int] = mapped_column(Integer, primary_key=True)  # order of submission
    id: Mapped[str] = mapped_column(String(32), unique=True)
    kind: Mapped[str] = mapped_column(String(20), index=True)
    mode: Mapped[str | None] = mapped_column(String(40))
    task: Mapped[str | None] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(20), index=True, default="queued")

    config: Mapped[dict[str, Any]]  # as sent
    recipe: Mapped[dict[str, Any]]  # as decided
    base_model: Mapped[str | None] = mapped_column(String(400))
    model_name: Mapped[str | None] = mapped_column(String(80))
    model_id: Mapped[str | None] = mapped_column(String(140))  # what it produced
    outcome: Mapped[str | None] = mapped_column(String(20))  # what the worker says: a status
    error: Mapped[str | None] = mapped_column(Text)

    progress: Mapped[float] = mapped_column(Float, default=0.0)  # percent
    current_epoch: Mapped[int] = mapped_column(Integer, default=0)
    total_epochs: Mapped[int] = mapped_column(Integer, default=0)
    epoch_seconds: Mapped[float | None] = mapped_column(Float)  # of the last full epoch
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)

    pid: Mapped[int | None] = mapped_column(Integer)
    pid_started: Mapped[float | None] = mapped_column(Float)  # tells a reused pid apart
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    crashes: Mapped[int] = mapped_column(Integer, default=0)  # since the last new checkpoint
    checkpoint: Mapped[int] = mapped_column(Integer, default=0)  # epochs in the newest one
    checkpoint_batch: Mapped[int] = mapped_column(Integer, default=0)  # and batches of the next

    created_at: Mapped[str] = mapped_column(String(40), default=now)
    started_at: Mapped[str | None] = mapped_column(String(40))
    finished_at: Mapped[str | None] = mapped_column(String(40))
    updated_at: Mapped[str] = mapped_column(String(40), default=now)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.checkpoint > 0 or self.checkpoint_batch > 0


class JobStore:
    """Reads and changes jobs; safe to share between threads and between processes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._jobs = database.settings.paths.jobs

    def folder(self, job_id: str) -> Path:
        """What belongs to a job: its log, its checkpoints."""
        return self._jobs / job_id

    def log(self, job_id: str) -> Path:
        return self.folder(job_id) / "log"

    # --- reading

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        with self.database.read() as session:
            return _row(session, job_id)

    def list(
        self,
        kind: str | None = None,
        *statuses: str,
        limit: int = LISTED,
        before: str | None = None,
    ) -> list[Job]:
        """The newest first; with `before` a job's id, those that are older than it.

        Raises:
            JobNotFound: There is no job `before`.
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

    def queued(self, limit: int) -> tuple[Job, ...]:
        """Those that are next, in the order they were submitted."""
        query = select(Job).where(Job.status == "queued").order_by(Job.number).limit(limit)
        with self.database.read() as session:
            return tuple(session.scalars(query))

    def counts(self) -> dict[tuple[str, str], int]:
        """How many jobs there are, by kind and status."""
        query = select(Job.kind, Job.status, func.count()).group_by(Job.kind, Job.status)
        with self.database.read() as session:
            return {(kind, status): count for kind, status, count in session.execute(query)}

    # --- asked for by clients

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
        """Put a job into the queue; its folder is made first."""
        job = Job(
            id=uuid.uuid4().hex,
            kind=kind,
            mode=mode,
            task=task,
            config=dict(config),
            recipe=dict(recipe),
            base_model=base_model,
            model_name=model_name,
            total_epochs=total_epochs,
        )
        self.folder(job.id).mkdir(parents=True, exist_ok=True)
        with self.database.write() as session:
            session.add(job)
        return job

    def request_cancel(self, job_id: str) -> Job:
        """A queued job is stopped at once, a running one is stopping until its process is gone.

        Asking again is harmless.

        Raises:
            JobNotFound: There is none.
            Conflict: It has ended already.
        """
        with self.database.write() as session:
            job = _row(session, job_id)
            if job.is_final:
                raise Conflict(f"Job '{job_id}' is {job.status} already; it cannot be cancelled.")
            if job.status == "queued":
                job.status, job.finished_at = "stopped", now()
            else:
                job.status = "stopping"
            job.updated_at = now()
        return job

    def delete(self, job_id: str) -> None:
        """Remove a job that has ended: its row, its log, its folder. Its model stays.

        Raises:
            JobNotFound: There is none.
            Conflict: It has not ended, or another job is to start from its weights.
        """
        with self.database.write() as session:
            job = _row(session, job_id)
            if not job.is_final:
                raise Conflict(f"Job '{job_id}' is {job.status}. Cancel it first, or wait for it.")
            waiting = select(Job).where(Job.status.in_(("queued", *LIVE)))
            for other in session.scalars(waiting):
                base = other.recipe.get("base") or {}
                if (base.get("kind"), base.get("value")) == ("job", job_id):
                    raise Conflict(f"Job '{other.id}' starts from its weights. Wait for that one.")
            # Within the transaction: what is killed in between can be deleted again.
            shutil.rmtree(self.folder(job_id), ignore_errors=True)
            session.delete(job)

    # --- noted by the worker

    def note(self, job_id: str, pid: int, **values: Any) -> str | None:
        """Write progress or outcome of the worker `pid`.

        Returns:
            The job's status; None where the job is no longer this worker's.
        """
        mine = (Job.id == job_id, Job.pid == pid, Job.status.in_(LIVE))
        with self.database.write() as session:
            _execute(session, update(Job).where(*mine).values(updated_at=now(), **values))
            status: str | None = session.scalar(select(Job.status).where(*mine))
            return status

    # --- decided by the dispatcher

    def start(self, job_id: str, pid: int, pid_started: float) -> bool:
        """Make a queued job running in a process that lives; False if it is queued no more."""
        values = {
            "status": "running",
            "pid": pid,
            "pid_started": pid_started,
            "attempts": Job.attempts + 1,
            "started_at": func.coalesce(Job.started_at, now()),
            "updated_at": now(),
        }
        return self._move(job_id, ("queued",), values)

    def requeue(self, job_id: str, crashed: bool) -> bool:
        """A running job whose process is gone goes back to its place in the queue."""
        resumes = (Job.checkpoint > 0) | (Job.checkpoint_batch > 0)
        values = {
            "status": "queued",
            "pid": None,
            "pid_started": None,
            "crashes": Job.crashes + crashed,
            "progress": case((resumes, Job.progress), else_=0.0),
            "current_epoch": case((resumes, Job.current_epoch), else_=0),
            "updated_at": now(),
        }
        return self._move(job_id, ("running",), values)

    def finish(self, job_id: str, status: Status, error: str | None = None, **values: Any) -> bool:
        """End a job; False if it had ended before, which nothing changes."""
        assert status in FINAL
        ended: dict[str, Any] = {
            "status": status,
            "pid": None,
            "finished_at": now(),
            "updated_at": now(),
        }
        if error is not None:
            ended["error"] = error[:LONGEST_ERROR]
        if status == "completed":
            ended["progress"] = 100.0
        return self._move(job_id, ("queued", *LIVE), ended | values)

    def _move(self, job_id: str, origins: tuple[Status, ...], values: Mapping[str, Any]) -> bool:
        """One statement, so that of two who try only one succeeds."""
        place = (Job.id == job_id, Job.status.in_(origins))
        with self.database.write() as session:
            return _execute(session, update(Job).where(*place).values(**values)) == 1


def _row(session: Session, job_id: str) -> Job:
    job = session.scalar(select(Job).where(Job.id == job_id))
    if job is None:
        raise JobNotFound(f"No job {job_id[:80]!r}. GET /jobs lists them.")
    return job


def _execute(session: Session, statement: Update) -> int:
    """How many rows it changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
