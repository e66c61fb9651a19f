"""A page of a timeline, merged from all sources; the newest entry first."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from dataset.revisions import Revision
from dataset.store import DatasetStore, open_datasets
from evaluation.store import EvaluationStore
from evaluation.timeline import sources
from evaluation.timeline.entry import REVISION, Before, Entry, EntryKind
from evaluation.timeline.sources import Wanted
from models_store.decision_log import Decision
from models_store.names import split_tag
from models_store.registry import Registry
from models_store.tables import ModelEvent


def timeline(
    registry: Registry,
    evaluations: EvaluationStore,
    name: str,
    limit: int,
    before: str = "",
    kinds: Collection[EntryKind] = (),
) -> tuple[list[Entry], bool]:
    """Entries on a model name, and whether there are older ones. Blocking.

    Args:
        registry: The models; names the database and the home.
        evaluations: The store of reports and comparisons.
        name: A name; of an id `name:version` the name counts. All its versions may be deleted.
        limit: Maximum number of entries.
        before: Id of an entry: only older ones.
        kinds: Only entries of these kinds; empty: of every kind.

    Raises:
        ModelNotFound: Nothing ever happened to this name.
        ValidationFailed: `before` is no id of an entry.
    """
    place = Before.of(before)
    with registry.database.read() as session:
        name = _known(registry, session, name)
        wanted = Wanted(name, place, limit + 1)
        found = [
            entry
            for entry in _all(session, registry, evaluations, wanted, kinds)
            if place.is_after(entry) and (not kinds or entry.kind in kinds)
        ]
    found.sort(key=lambda entry: (entry.at, entry.key), reverse=True)
    return found[:limit], len(found) > limit


def _known(registry: Registry, session: Session, name: str) -> str:
    """The name that is meant, if there is or was such a model."""
    bare, _ = split_tag(name)
    for table in (ModelEvent, Decision):
        if session.scalar(select(table.number).where(table.name == bare).limit(1)):
            return bare
    return registry.get(name).name


def _all(
    session: Session,
    registry: Registry,
    evaluations: EvaluationStore,
    wanted: Wanted,
    kinds: Collection[EntryKind],
) -> Iterator[Entry]:
    def asked(*of: EntryKind) -> bool:
        return not kinds or not set(of).isdisjoint(kinds)

    if asked("promoted", "refused", "rolled_back"):
        yield from sources.decisions(session, wanted, kinds)
    if asked("trained", "imported", "activated", "deleted", "drift", "engine"):
        yield from sources.events(session, wanted, kinds)
    if asked("evaluated"):
        yield from sources.evaluated(session, wanted)
    if asked("compared"):
        yield from sources.compared(session, wanted, evaluations)
    if asked("failed"):
        yield from sources.failed(session, wanted)
    if asked("corrections"):
        known = sources.datasets_of(session, wanted.name, registry.settings)
        yield from corrections(open_datasets(registry.database), wanted.name, known)


def corrections(datasets: DatasetStore, name: str, known: Collection[str]) -> Iterator[Entry]:
    """Revisions of datasets that versions of a name were trained on, or pre-labelled.

    Args:
        datasets: The datasets.
        name: The name.
        known: Ids of the datasets that it was trained on.
    """
    for dataset, revisions in datasets.all_revisions():
        for revision in revisions:
            of_name = {
                model: counts
                for model, counts in revision.corrections.items()
                if split_tag(model)[0] == name
            }
            if dataset not in known and not of_name:
                continue
            counts = sources.summed(of_name or revision.corrections)
            yield Entry(
                at=revision.created_at,
                key=f"{REVISION}{dataset}@{revision.number}",
                kind="corrections",
                text=_sentence(dataset, revision, counts),
                dataset=f"{dataset}@{revision.number}",
            )


def _sentence(dataset: str, revision: Revision, counts: dict[str, int]) -> str:
    changed = {kind: count for kind, count in counts.items() if count and kind != "accepted"}
    told = ", ".join(f"{count} {kind}" for kind, count in changed.items())
    if counts.get("accepted"):
        told = ", ".join(filter(None, (f"{counts['accepted']} accepted", told)))
    more = f": {told}" if told else ""
    people = f"{revision.annotated} of {revision.pictures} images annotated by people"
    return f"Corrections came in revision {revision.number} of {dataset} ({people}){more}."
