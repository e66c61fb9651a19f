"""The records that a timeline is made of: decisions, events, evaluations, comparisons, jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dataset.allowed_roots import real_path
from evaluation.gate import MAIN, metric_name
from evaluation.store import EvaluationRow, EvaluationStore
from evaluation.timeline.entry import (
    COMPARISON,
    DECISION,
    EVALUATION,
    EVENT,
    JOB,
    Before,
    Entry,
    EntryKind,
    number,
)
from jobs.caller import public_name
from jobs.home_references import resolved
from jobs.job import Job
from models_store.decision_log import Decision
from models_store.tables import ModelEvent
from settings import Settings

SPARE = 20  # rows beyond those wanted, for those at the same time as the place
TRAINED_BY = {
    "regular": "",
    "freeze": " in stages",
    "incremental": " incrementally",
    "distillation": " by distillation",
}


@dataclass(frozen=True)
class Wanted:
    """A part of the timeline of a name: entries older than a place, at most so many."""

    name: str
    before: Before
    limit: int

    @property
    def rows(self) -> int:
        return self.limit + SPARE


def decisions(session: Session, wanted: Wanted, kinds: Collection[str]) -> Iterator[Entry]:
    """Promotions, refusals and rollbacks; a deletion has an event of its own."""
    query = (
        select(Decision)
        .where(Decision.name == wanted.name, Decision.at <= wanted.before.at)
        .where(Decision.action.in_(kinds) if kinds else Decision.action != "deleted")
        .order_by(Decision.number.desc())
        .limit(wanted.rows)
    )
    for row in session.scalars(query):
        yield _decision(row)


def _decision(row: Decision) -> Entry:
    model = f"{row.name}:{row.version}"
    before = f"{row.name}:{row.previous}" if row.previous else None
    texts: dict[str, tuple[EntryKind, str]] = {
        "promoted": ("promoted", f"{model} was promoted{_instead(before, model)}."),
        "refused": ("refused", f"The gate refused {model}{_kept(before, model)}."),
        "rolled_back": ("rolled_back", f"'{row.name}' went back to {model}{_from(before)}."),
    }
    kind, text = texts[row.action]
    if row.forced:
        text = f"{model} was promoted against the gate{_instead(before, model)}."
    evaluations = row.evaluations or {}
    compared = (before, model) if before and before != model and evaluations else None
    return Entry(
        at=row.at,
        key=number(DECISION, row.number),
        kind=kind,
        text=text,
        who=public_name(row.by),
        reasons=tuple(row.reasons),
        regressed=tuple(row.regressed or ()),
        model_id=model,
        job_id=row.job_id,
        evaluation=evaluations.get("candidate"),
        compared=compared,
        forced=row.forced,
    )


def _instead(before: str | None, model: str) -> str:
    return f" instead of {before}" if before and before != model else ""


def _kept(before: str | None, model: str) -> str:
    return f"; {before} stays promoted" if before and before != model else ""


def _from(before: str | None) -> str:
    return f" from {before}" if before else ""


def events(session: Session, wanted: Wanted, kinds: Collection[str]) -> Iterator[Entry]:
    """Versions that came, were activated or deleted, drifted, or got an engine."""
    query = (
        select(ModelEvent)
        .where(ModelEvent.name == wanted.name, ModelEvent.at <= wanted.before.at)
        .order_by(ModelEvent.number.desc())
        .limit(wanted.rows)
    )
    if kinds:
        query = query.where(ModelEvent.kind.in_(kinds))
    rows = list(session.scalars(query))
    jobs = _jobs(session, [row.job_id for row in rows])
    for row in rows:
        job = jobs.get(row.job_id or "")
        who = public_name(row.by) if row.by else job.started_by if job else None
        kind, text, reasons = _told(row)
        yield Entry(
            at=row.at,
            key=number(EVENT, row.number),
            kind=kind,
            text=text,
            who=who,
            reasons=reasons,
            model_id=row.model_id,
            job_id=row.job_id,
            dataset=row.details.get("dataset"),
        )


def _told(row: ModelEvent) -> tuple[EntryKind, str, tuple[str, ...]]:
    """The kind, the sentence and the reasons of an event."""
    details, model = row.details, row.model_id
    if row.kind == "trained":
        how = TRAINED_BY.get(str(details.get("mode")), "")
        data = f" on {details['dataset']}" if details.get("dataset") else ""
        return "trained", f"{model} was trained{how}{data}.", ()
    if row.kind == "activated":
        pinned = str(details.get("pointer", "")).count(":") > 0
        fixed = "" if pinned else ", and follows promotions"
        return "activated", f"{model} answers requests without a model id{fixed}.", ()
    if row.kind == "deleted":
        was = ", which was promoted," if details.get("promoted") else ""
        return "deleted", f"{model}{was} was deleted.", tuple(details.get("reasons", ()))
    if row.kind == "drift":
        verdict = details["verdict"]
        text = f"Live traffic of {model} compared with its training data: {verdict}"
        return "drift", f"{text} (index {details['index']:.2f}).", ()
    if row.kind == "engine":
        text = f"{model} is served by {details['engine']} on this machine."
        return "engine", text, (str(details["reason"]),)
    origin = {"starter": "came with VisionLoop", "import": "was imported"}.get(
        str(details.get("kind")), "was imported"
    )
    file = f" from {details['file']}" if details.get("file") else ""
    return "imported", f"{model} {origin}{file}.", ()


def evaluated(session: Session, wanted: Wanted) -> Iterator[Entry]:
    """Evaluations; those of deleted versions are gone."""
    rows = list(_evaluations(session, wanted, before=True))
    jobs = _jobs(session, [row.job_id for row in rows])
    for row in rows:
        job = jobs.get(row.job_id or "")
        metric = next((name for name in reversed(MAIN.values()) if name in row.figures), None)
        value = f": {metric_name(metric)} {row.figures[metric]:.3f}" if metric else ""
        yield Entry(
            at=row.created_at,
            key=number(EVALUATION, row.number),
            kind="evaluated",
            text=f"{row.model_id} was evaluated on {row.dataset} ({row.split}){value}.",
            who=job.started_by if job else None,
            model_id=row.model_id,
            job_id=row.job_id,
            evaluation=row.id,
            dataset=row.dataset,
        )


def compared(session: Session, wanted: Wanted, store: EvaluationStore) -> Iterator[Entry]:
    """Comparisons that somebody asked for; each left a file beside the newer evaluation."""
    rows = {row.id: row for row in _evaluations(session, wanted, before=False)}
    for row in rows.values():
        for file in store.folder(row).glob("compared-*.json"):
            other_id = file.stem.removeprefix("compared-")
            other = rows.get(other_id) or session.scalar(
                select(EvaluationRow).where(EvaluationRow.id == other_id)
            )
            if other is None:
                continue
            at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
            yield Entry(
                at=at.isoformat(timespec="milliseconds"),
                key=f"{COMPARISON}{row.id}-{other_id}",
                kind="compared",
                text=(
                    f"{row.model_id} was compared with {other.model_id} on {row.dataset} "
                    f"({row.split})."
                ),
                model_id=row.model_id,
                evaluation=row.id,
                compared=(other.model_id, row.model_id),
                dataset=row.dataset,
            )


def _evaluations(session: Session, wanted: Wanted, before: bool) -> Iterator[EvaluationRow]:
    query = select(EvaluationRow).where(EvaluationRow.name == wanted.name)
    if before:
        query = query.where(EvaluationRow.created_at <= wanted.before.at).limit(wanted.rows)
    yield from session.scalars(query.order_by(EvaluationRow.number.desc()))


def failed(session: Session, wanted: Wanted) -> Iterator[Entry]:
    """Trainings and evaluations that failed or were stopped: they left no version or report."""
    query = (
        select(Job)
        .where(Job.model_name == wanted.name, Job.finished_at <= wanted.before.at)
        .where(Job.kind.in_(("training", "evaluation")), Job.status.in_(("failed", "stopped")))
        .order_by(Job.finished_at.desc(), Job.number.desc())
        .limit(wanted.rows)
    )
    for job in session.scalars(query):
        what = "gate's comparison" if job.mode == "gate" else job.kind
        ending = "failed" if job.status == "failed" else "was stopped"
        yield Entry(
            at=job.finished_at or job.updated_at,
            key=number(JOB, job.number),
            kind="failed",
            text=f"The {what} of '{wanted.name}' {ending}.",
            who=job.started_by,
            reasons=(job.shown_error,) if job.shown_error else (),
            model_id=job.base_model if job.kind == "evaluation" else None,
            job_id=job.id,
        )


def datasets_of(session: Session, name: str, settings: Settings) -> set[str]:
    """The ids of the uploaded datasets that versions of a name were trained on."""
    query = select(Job.recipe).where(Job.model_name == name, Job.kind == "training")
    events = select(ModelEvent.details).where(ModelEvent.name == name, ModelEvent.kind == "trained")
    found = {str(details.get("dataset") or "") for details in session.scalars(events)}
    root = real_path(settings.paths.datasets)
    for recipe in session.scalars(query):
        path = Path(str(resolved(recipe, settings.home).get("dataset") or ""))
        if path != root and path.is_relative_to(root):
            found.add(path.relative_to(root).parts[0])
    return found - {""}


def _jobs(session: Session, ids: list[str | None]) -> dict[str, Job]:
    known = {job_id for job_id in ids if job_id}
    if not known:
        return {}
    return {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(known)))}


def summed(corrections: dict[str, Any]) -> dict[str, int]:
    """The counts of the people's changes of a revision, over all that they corrected."""
    total: dict[str, int] = {}
    for counts in corrections.values():
        for kind in ("accepted", "moved", "relabelled", "added", "removed"):
            total[kind] = total.get(kind, 0) + int(counts.get(kind, 0))
    return total
