"""A job: its row, and what clients see of it.

`jobs.states` explains its status; a final status never changes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import JSON, Float, Integer, Select, String, Text, event, select
from sqlalchemy.orm import Mapped, QueryContext, Session, mapped_column
from sqlalchemy.orm.attributes import set_committed_value

from database import HOME, Base, now
from errors import JobNotFound, without_server_paths
from jobs.caller import public_name
from jobs.claims import machine_of
from jobs.home_references import resolved
from jobs.states import FINAL
from short_ids import RULE, SHORTEST, only_match

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

SHORT_ID = re.compile(rf"[0-9a-f]{{{SHORTEST},31}}")
SHOWN = (
    "kind", "mode", "task", "status", "progress", "current_epoch", "total_epochs", "batch",
    "batches", "metrics", "config", "base_model", "model_name", "model_id", "attempts",
    "request_id", "created_at", "started_at", "finished_at", "updated_at", "outage_since",
)  # fmt: skip


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


def find_job(session: Session, job_id: str, lock: bool = False) -> Job:
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


def _locked(query: Select[Job], lock: bool) -> Select[Job]:
    return query.with_for_update() if lock else query
