"""What has changed on this home since the last look, by whichever process: jobs, models, datasets.

A look reads counters and the rows that they point to. With nothing changed it costs about a
millisecond.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from annotation.tables import AnnotatedDataset
from api.job_control import view
from evaluation.results import led
from evaluation.store import EvaluationRow
from jobs.changes import JobChanges
from jobs.job import Job
from models_store.decision_log import Decision
from models_store.tables import ModelEvent
from serving.gateway import Gateway

MOST = 200  # changes of models in one look that are told one by one; more are not expected


class Change(NamedTuple):
    """One event for clients: its name, and its data."""

    kind: str
    data: dict[str, Any]


class ManyChanges(Exception):
    """So much has changed that clients should read their lists again."""


class Changes:
    """Looks for changes; blocking, for one thread at a time."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._jobs = JobChanges()
        self._metrics: dict[str, dict[str, Any]] = {}  # by job id, as last told
        self._numbers: dict[type[Any], int] = {}
        self._annotated: dict[str, tuple[int, int]] | None = None
        self._datasets: set[str] | None = None
        self._datasets_change: Hashable = None

    def look(self) -> list[Change]:
        """The changes since the last call; the first one finds none.

        Raises:
            ManyChanges: There are too many to tell them one by one.
            DatabaseBusy: The database is locked or cannot be reached; the next call finds them.
        """
        with self._gateway.registry.database.read() as session:
            jobs = self._jobs.look(session)
            found = [*self._of_models(session), *self._of_annotations(session)]
        return [*self._of_jobs(jobs.changed), *_deleted(jobs.deleted), *found, *self._of_datasets()]

    def _of_jobs(self, changed: tuple[Job, ...]) -> Iterator[Change]:
        for job in changed:
            yield Change("job", view(self._gateway, job))
            if job.kind != "training":
                continue
            if job.metrics and self._metrics.get(job.id) != job.metrics:
                self._metrics[job.id] = job.metrics
                progress = {
                    "job_id": job.id,
                    "current_epoch": job.current_epoch,
                    "total_epochs": job.total_epochs,
                    "progress": job.progress,
                    "metrics": led(job.metrics),
                }
                yield Change("progress", progress)
            if job.is_final:
                self._metrics.pop(job.id, None)

    def _of_models(self, session: Session) -> Iterator[Change]:
        for event in self._new(session, ModelEvent):
            yield _model(event.model_id, event.kind)
        for decision in self._new(session, Decision):
            if decision.action != "deleted":  # it has an event of its own
                yield _model(f"{decision.name}:{decision.version}", decision.action)
        for row in self._new(session, EvaluationRow):
            yield _model(row.model_id, "evaluated")

    def _new(self, session: Session, table: Any) -> list[Any]:
        """The rows of a table that only grows that are newer than those seen."""
        newest = session.scalar(select(func.max(table.number))) or 0
        seen = self._numbers.get(table)
        self._numbers[table] = max(newest, seen or 0)
        if seen is None or newest <= seen:
            return []
        if newest - seen > MOST:
            raise ManyChanges
        return list(
            session.scalars(select(table).where(table.number > seen).order_by(table.number))
        )

    def _of_annotations(self, session: Session) -> Iterator[Change]:
        table = AnnotatedDataset
        rows = session.execute(select(table.id, table.changes, table.built))
        found = {key: (changes, built) for key, changes, built in rows}
        before, self._annotated = self._annotated, found
        if before is None:
            return
        for key, (changes, built) in found.items():
            old_changes, old_built = before.get(key, (0, 0))
            if changes != old_changes:
                yield Change("dataset", {"id": key, "what": "annotated"})
            if built != old_built:
                yield Change("dataset", {"id": key, "what": "revised"})

    def _of_datasets(self) -> Iterator[Change]:
        change = self._gateway.datasets.change()
        if change == self._datasets_change:
            return
        self._datasets_change = change
        found = {card["id"] for card in self._gateway.datasets.list()}
        before, self._datasets = self._datasets, found
        if before is None:
            return
        for key in sorted(found - before):
            yield Change("dataset", {"id": key, "what": "created"})
        for key in sorted(before - found):
            yield Change("dataset", {"id": key, "what": "deleted"})


def _deleted(ids: tuple[str, ...]) -> Iterator[Change]:
    for job_id in ids:
        yield Change("job_deleted", {"job_id": job_id})


def _model(model_id: str, what: str) -> Change:
    name = model_id.partition(":")[0]
    return Change("model", {"id": model_id, "name": name, "what": what})
