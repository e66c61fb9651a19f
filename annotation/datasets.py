"""The store of annotated datasets, one for each upload, batch annotation and tool's project.

Their annotations are in `annotation.entries`. From both, `annotation.revision_builder` writes the
folder for training.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from annotation.draft_tables import CommittedDraft, Draft, DraftCommit
from annotation.entries import AnnotationEntries, add_entries, note_change
from annotation.tables import AnnotatedDataset, AnnotationEntry
from database import Database
from dataset.revisions import CARD
from dataset.shared.datasets import (
    CHANGE_TIMEOUT,
    MIN_AGE,
    LostObject,
    shared_datasets,
)
from errors import DatasetNotFound

DatasetKind = Literal["upload", "batch", "project"]
"""The origin of a dataset: an uploaded dataset, a batch annotation, or a tool's project."""


def upload_source(dataset_id: str) -> str:
    """The `source` of an uploaded dataset."""
    return f"upload:{dataset_id}"


def batch_source(number: str) -> str:
    """The `source` of the dataset that a batch annotation creates."""
    return f"batch:{number}"


class AnnotatedDatasets:
    """Reads and changes annotated datasets; safe to share between threads and processes.

    `entries` is the store of their annotations and images.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.entries = AnnotationEntries(database)
        self._folder = database.settings.paths.datasets
        self._shared = shared_datasets(database)

    def folder(self, dataset_id: str) -> Path:
        """The folder of a dataset on this machine, as it is: another one may have a newer copy."""
        return self._folder / dataset_id

    def is_built(self, dataset_id: str) -> bool:
        """Whether a dataset has a card, so that clients see it."""
        if self._shared is not None:
            return self._shared.card(dataset_id) is not None
        return (self.folder(dataset_id) / CARD).is_file()

    @contextmanager
    def changing(self, dataset_id: str, what: str = "build") -> Iterator[Path]:
        """Context in which no other process changes the files of a dataset; its folder.

        Args:
            dataset_id: Id of the dataset.
            what: Names one of several locks; with an object store there is one.

        Raises:
            filelock.Timeout: Others have been changing it for five minutes.
        """
        if self._shared is not None:
            with self._shared.changing(dataset_id) as folder:
                yield folder
            return
        with self.database.exclusive(f"{what}-{dataset_id}", CHANGE_TIMEOUT):
            yield self.folder(dataset_id)

    def publish(self, dataset_id: str, card: Mapping[str, Any]) -> None:
        """Show a changed dataset, and its card, to the other machines; call it in `changing`."""
        if self._shared is not None:
            self._shared.publish(dataset_id, card)

    def ensure(
        self,
        source: str,
        name: str,
        options: Mapping[str, Any],
        kind: DatasetKind = "project",
    ) -> AnnotatedDataset:
        """The dataset of a source; created if there is none.

        `options` is merged into its options. `kind` is used only for a new dataset.
        """
        try:
            return self._ensure(source, name, options, kind)
        except IntegrityError:  # another process has just added the row
            return self._ensure(source, name, options, kind)

    def _ensure(
        self, source: str, name: str, options: Mapping[str, Any], kind: DatasetKind
    ) -> AnnotatedDataset:
        with self.database.write() as session:
            found = session.scalar(
                select(AnnotatedDataset).where(AnnotatedDataset.source == source)
            )
            if found is None:
                found = AnnotatedDataset(
                    id=_new_id(name), kind=kind, source=source, name=name, options={}
                )
                session.add(found)
            merged = found.options | dict(options)
            if merged != found.options:
                found.options = merged
                found.changes = (found.changes or 0) + 1
            found.name = name[:100] or found.name
        return found

    def create_upload(
        self,
        dataset_id: str,
        name: str,
        options: Mapping[str, Any],
        entries: Iterable[AnnotationEntry],
    ) -> AnnotatedDataset:
        """Add the annotated dataset of an upload and its entries, in one transaction."""
        with self.database.write() as session:
            made = AnnotatedDataset(
                id=dataset_id,
                kind="upload",
                source=upload_source(dataset_id),
                name=name,
                options=dict(options),
            )
            session.add(made)
            session.flush()
            add_entries(session, dataset_id, entries)
        return made

    def find(self, source: str) -> AnnotatedDataset | None:
        """The dataset of a source; None if there is none."""
        with self.database.read() as session:
            return session.scalar(select(AnnotatedDataset).where(AnnotatedDataset.source == source))

    def get(self, dataset_id: str) -> AnnotatedDataset:
        """The dataset with an id. Raises DatasetNotFound."""
        with self.database.read() as session:
            found = session.get(AnnotatedDataset, dataset_id)
        if found is None:
            raise DatasetNotFound(
                f"No annotated dataset '{dataset_id[:80]}'. GET /api/datasets lists them."
            )
        return found

    def is_project(self, dataset_id: str) -> bool:
        """Whether an annotation tool's project has this dataset."""
        with self.database.read() as session:
            found = session.get(AnnotatedDataset, dataset_id)
        return found is not None and found.kind == "project"

    def outdated_projects(self) -> list[AnnotatedDataset]:
        """The annotation tools' projects that changed since their newest revision.

        Datasets of the other kinds are built by the request or job that changes them.
        """
        row = AnnotatedDataset
        query = select(row).where(row.kind == "project", row.built < row.changes)
        with self.database.read() as session:
            return list(session.scalars(query))

    def lost_objects(self, min_age: float) -> Sequence[LostObject]:
        """Objects of datasets that nothing refers to, from an age in seconds on, a day at least."""
        if self._shared is None:
            return []
        with self.database.read() as session:
            known = list(session.scalars(select(AnnotatedDataset.id)))
        return self._shared.lost(known, max(min_age, MIN_AGE))

    def delete_lost(self, found: LostObject) -> None:
        """Delete one of `lost_objects`."""
        if self._shared is not None:
            self._shared.delete_lost(found)

    def batches_before(self, time: str) -> set[str]:
        """Ids of the datasets of batch annotations created up to a time (as `database.now`)."""
        row = AnnotatedDataset
        query = select(row.id).where(row.kind == "batch", row.created_at <= time)
        with self.database.read() as session:
            return set(session.scalars(query))

    def note_built(self, dataset_id: str, changes: int) -> None:
        """Record that the newest revision contains the first `changes` changes."""
        row = AnnotatedDataset
        with self.database.write() as session:
            session.execute(update(row).where(row.id == dataset_id).values(built=changes))
            note_change(session)

    def delete(self, dataset_id: str) -> None:
        """Delete the rows of a dataset. The caller deletes its folder."""
        with self.database.write() as session:
            for table in (Draft, DraftCommit, CommittedDraft):
                session.execute(delete(table).where(table.dataset_id == dataset_id))
            entries = AnnotationEntry.dataset_id == dataset_id
            session.execute(delete(AnnotationEntry).where(entries))
            session.execute(delete(AnnotatedDataset).where(AnnotatedDataset.id == dataset_id))
            note_change(session)


def _new_id(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "annotations"
    return f"{slug}-{secrets.token_hex(4)}"
