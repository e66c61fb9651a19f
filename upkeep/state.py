"""What the database refers to outside itself: read from a copy of it, and compared with it later.

Plain SQL on columns that every version has had: a home is backed up before it is migrated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, inspect, text

from database import revision
from jobs.states import FINAL


@dataclass(frozen=True)
class JobState:
    """What a job's row says of its files."""

    kind: str
    status: str
    recipe: Mapping[str, Any]
    resumable: bool

    @property
    def unfinished(self) -> bool:
        return self.status not in FINAL


@dataclass(frozen=True)
class State:
    """The rows to which files belong.

    Attributes:
        schema: Revision of the tables; None: a version before Alembic.
        models: `(name, version)` of every published version → time of its creation.
        promoted: Name → its promoted version.
        jobs: Every job by its id.
        evaluations: Their ids.
        annotated: Ids of annotated datasets → whether an image of theirs was fetched.
        drafts: Number of drafts of annotations that are not committed.
    """

    schema: str | None = None
    models: Mapping[tuple[str, str], str] = field(default_factory=dict)
    promoted: Mapping[str, str] = field(default_factory=dict)
    jobs: Mapping[str, JobState] = field(default_factory=dict)
    evaluations: frozenset[str] = frozenset()
    annotated: Mapping[str, bool] = field(default_factory=dict)
    drafts: int = 0

    def lost_in(self, later: State) -> list[str]:
        """What a later state no longer has, and jobs that have ended since: files may be deleted
        with either."""
        lost = [f"{name}:{version}" for name, version in self.models.keys() - later.models.keys()]
        lost += [f"evaluation {one}" for one in self.evaluations - later.evaluations]
        lost += [f"dataset {one}" for one in self.annotated.keys() - later.annotated.keys()]
        for job_id, job in self.jobs.items():
            found = later.jobs.get(job_id)
            if found is None or (job.unfinished and not found.unfinished):
                lost.append(f"job {job_id}")
        return sorted(lost)


def read_state(connection: Connection) -> State:
    """The state of a database; empty if it has no tables yet."""
    if not inspect(connection).has_table("jobs"):
        return State()

    def rows(query: str) -> list[Any]:
        return list(connection.execute(text(query)))

    columns = {column["name"] for column in inspect(connection).get_columns("jobs")}
    batch = "checkpoint_batch" if "checkpoint_batch" in columns else "0"  # schema 1 lacks it
    jobs = rows(f"SELECT id, kind, status, recipe, checkpoint, {batch} FROM jobs")  # noqa: S608
    has_drafts = inspect(connection).has_table("annotation_drafts")
    fetched = rows("SELECT DISTINCT dataset_id FROM annotation_entries WHERE content IS NOT NULL")
    with_images = {row[0] for row in fetched}
    return State(
        schema=revision(connection),
        models={
            (name, version): created
            for name, version, created in rows("SELECT name, version, created_at FROM models")
        },
        promoted=dict(map(tuple, rows("SELECT name, version FROM promotions"))),
        jobs={
            job_id: JobState(kind, status, _json(recipe), bool(epoch or batch))
            for job_id, kind, status, recipe, epoch, batch in jobs
        },
        evaluations=frozenset(row[0] for row in rows("SELECT id FROM evaluations")),
        annotated={
            row[0]: row[0] in with_images for row in rows("SELECT id FROM annotated_datasets")
        },
        drafts=rows("SELECT COUNT(*) FROM annotation_drafts")[0][0] if has_drafts else 0,
    )


def _json(value: Any) -> Mapping[str, Any]:
    """A JSON column, which some drivers parse and some do not."""
    found = json.loads(value) if isinstance(value, (str, bytes)) else value
    return found if isinstance(found, dict) else {}
