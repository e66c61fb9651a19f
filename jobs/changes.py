"""Which jobs have changed since the last look, whichever process changed them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from database import blocks
from jobs.job import Job

OVERLAP = timedelta(seconds=40)
"""A change may be committed this long after its time: its process had to wait for the database."""


@dataclass(frozen=True)
class ChangedJobs:
    """What a look found.

    Attributes:
        changed: The jobs that are new or have changed, the oldest change first.
        deleted: The ids of the jobs that were deleted.
    """

    changed: tuple[Job, ...] = ()
    deleted: tuple[str, ...] = ()


class JobChanges:
    """Remembers what was seen of the jobs; for one thread at a time."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str, float]] = {}  # by id, of the jobs changed lately
        self._known: set[str] | None = None  # ids; None: before the first look
        self._newest = ""  # time of the newest change

    def look(self, session: Session) -> ChangedJobs:
        """The changes since the last call; the first one finds none."""
        if self._known is None:
            self._known = set(session.scalars(select(Job.id)))
            self._newest = session.scalar(select(func.max(Job.updated_at))) or ""
            self._seen = dict(self._recent(session))
            return ChangedJobs()
        recent = dict(self._recent(session))
        ids = [key for key, state in recent.items() if self._seen.get(key) != state]
        self._seen = recent
        found = [
            job
            for some in blocks(ids)
            for job in session.scalars(select(Job).where(Job.id.in_(some)))
        ]
        changed = sorted(found, key=lambda job: (job.updated_at, job.number))
        if changed:
            self._newest = max(self._newest, changed[-1].updated_at)
            self._known.update(job.id for job in changed)
        return ChangedJobs(tuple(changed), self._deleted(session, self._known))

    def _recent(self, session: Session) -> list[tuple[str, tuple[str, str, float]]]:
        query = select(Job.id, Job.updated_at, Job.status, Job.progress)
        if self._newest:
            since = datetime.fromisoformat(self._newest) - OVERLAP
            text = since.astimezone(UTC).isoformat(timespec="milliseconds")
            query = query.where(Job.updated_at >= text)
        return [(key, (at, status, share)) for key, at, status, share in session.execute(query)]

    def _deleted(self, session: Session, known: set[str]) -> tuple[str, ...]:
        if session.scalar(select(func.count()).select_from(Job)) == len(known):
            return ()
        now = set(session.scalars(select(Job.id)))
        gone = known - now
        self._known = now
        return tuple(sorted(gone))
