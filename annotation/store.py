"""Data sets that grow while people annotate: what they marked, and the pictures it belongs to.

What arrives is a row at once, and the picture may follow. The folder that trains is made from
all of it by `annotation.revision_builder`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, ForeignKey, Integer, String, Text, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from annotation.pictures import BEFORE, CORRECTION_RANK, ImageRecord, SourceAnnotation, picture_of
from annotation.prelabels import said_until
from database import Base, Database, now
from dataset.image_files import suffix_of
from errors import DatasetNotFound
from files import atomic_write
from formats.annotations import Annotations

PICTURES = "pictures"
FURTHER = "#"  # between an annotation's key and the number of a further image that it is about


class AnnotatedDataset(Base):
    """A growing data set; its id is that of the data set it becomes.

    `changes` counts them; `built` is what it was when the newest folder was made.
    """

    __tablename__ = "annotated_datasets"

    id: Mapped[str] = mapped_column(String(61), primary_key=True)
    source: Mapped[str] = mapped_column(String(200), unique=True)  # such as a tool's project
    name: Mapped[str] = mapped_column(String(100))
    options: Mapped[dict[str, Any]]  # what the source says: its configuration
    changes: Mapped[int] = mapped_column(Integer, default=0)
    built: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[str] = mapped_column(String(40), default=now)
    updated_at: Mapped[str] = mapped_column(String(40), default=now)


class AnnotationEntry(Base):
    """What one person marked in one picture.

    A row waits for its picture while `annotations` is None; `document` is what the tool sent.
    Of several of a picture that with the highest `rank` counts, of these the newest.
    """

    __tablename__ = "annotation_entries"

    dataset_id: Mapped[str] = mapped_column(
        ForeignKey("annotated_datasets.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(80), primary_key=True)  # the tool's, of the annotation
    task: Mapped[str] = mapped_column(String(80), index=True, default="")  # of the picture
    address: Mapped[str] = mapped_column(Text, default="")
    rank: Mapped[int] = mapped_column(Integer, default=0)
    stamp: Mapped[str] = mapped_column(String(40), default="")  # the tool's time of change
    number: Mapped[int] = mapped_column(Integer, default=0)  # of changes of this row
    document: Mapped[dict[str, Any]]
    content: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the picture's file
    suffix: Mapped[str] = mapped_column(String(8), default="")
    annotations: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)  # why it still waits
    updated_at: Mapped[str] = mapped_column(String(40), default=now)


class AnnotatedDatasets:
    """Reads and changes them; safe to share between threads and between processes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.max_pixels = database.settings.max_pixels
        self._folder = database.settings.paths.datasets

    def folder(self, dataset_id: str) -> Path:
        return self._folder / dataset_id

    # --- data sets

    def ensure(self, source: str, name: str, options: Mapping[str, Any]) -> AnnotatedDataset:
        """The data set of a source, made where there is none; its options are brought up to date.

        Options that are not given stay as they are.
        """
        try:
            return self._ensure(source, name, options)
        except IntegrityError:  # a database with several writers: another one was first
            return self._ensure(source, name, options)

    def _ensure(self, source: str, name: str, options: Mapping[str, Any]) -> AnnotatedDataset:
        with self.database.write() as session:
            found = session.scalar(
                select(AnnotatedDataset).where(AnnotatedDataset.source == source)
            )
            if found is None:
                found = AnnotatedDataset(id=_new_id(name), source=source, name=name, options={})
                session.add(found)
            merged = found.options | dict(options)
            if merged != found.options:
                found.options = merged
                found.changes = (found.changes or 0) + 1
            found.name = name[:100] or found.name
        return found

    def ensure_with(
        self,
        source: str,
        name: str,
        options: Mapping[str, Any],
        dataset_id: str,
        rows: Iterable[AnnotationEntry],
    ) -> AnnotatedDataset:
        """A new data set together with what is known of its pictures: both, or neither."""
        with self.database.write() as session:
            made = AnnotatedDataset(id=dataset_id, source=source, name=name, options=dict(options))
            session.add(made)
            session.flush()
            for row in rows:
                row.dataset_id, row.number = dataset_id, 1
                session.merge(row)
        return made

    def find(self, source: str) -> AnnotatedDataset | None:
        with self.database.read() as session:
            return session.scalar(select(AnnotatedDataset).where(AnnotatedDataset.source == source))

    def get(self, dataset_id: str) -> AnnotatedDataset:
        """Raises DatasetNotFound."""
        with self.database.read() as session:
            found = session.get(AnnotatedDataset, dataset_id)
        if found is None:
            raise DatasetNotFound(f"No annotated data set '{dataset_id[:80]}'.")
        return found

    def changed(self) -> list[AnnotatedDataset]:
        """Those whose folder is older than what they hold."""
        row = AnnotatedDataset
        own = row.source.like("batch:%") | row.source.like("upload:%")  # by who changes them
        query = select(row).where(row.built < row.changes, ~own)
        with self.database.read() as session:
            return list(session.scalars(query))

    def note_built(self, dataset_id: str, changes: int) -> None:
        row = AnnotatedDataset
        with self.database.write() as session:
            session.execute(update(row).where(row.id == dataset_id).values(built=changes))

    def forget(self, dataset_id: str) -> None:
        """Drop the rows of a data set whose folder was deleted."""
        with self.database.write() as session:
            entries = AnnotationEntry.dataset_id == dataset_id
            session.execute(delete(AnnotationEntry).where(entries))
            session.execute(delete(AnnotatedDataset).where(AnnotatedDataset.id == dataset_id))

    # --- annotations

    def receive(
        self,
        dataset_id: str,
        key: str,
        document: Mapping[str, Any],
        *,
        task: str = "",
        address: str = "",
        rank: int = 0,
        stamp: str = "",
    ) -> bool:
        """Take an annotation, new or changed, whose picture is fetched later.

        Returns:
            False where it, or a newer one of the same key, is here already.
        """
        with self.database.write() as session:
            entry = session.get(AnnotationEntry, (dataset_id, key))
            if entry is None:
                entry = AnnotationEntry(dataset_id=dataset_id, key=key, number=0)
                session.add(entry)
            elif stamp and (entry.stamp > stamp or _same(entry, document, stamp)):
                return False
            entry.task = task
            entry.rank, entry.stamp = rank, stamp
            frozen = entry.document if entry.document and entry.address == address else {}
            entry.document = dict(document) | {k: frozen[k] for k in (BEFORE,) if k in frozen}
            if entry.address != address:
                entry.content = None
            if entry.annotations is not None:  # what the folder has of it holds no longer
                _touch(session, dataset_id)
            entry.address, entry.annotations, entry.error = address, None, None
            entry.number += 1
            entry.updated_at = now()
        return True

    def waiting(self, dataset_id: str | None = None) -> list[AnnotationEntry]:
        """Entries without their picture, the oldest first."""
        query = select(AnnotationEntry).where(AnnotationEntry.annotations.is_(None))
        if dataset_id is not None:
            query = query.where(AnnotationEntry.dataset_id == dataset_id)
        with self.database.read() as session:
            return list(session.scalars(query.order_by(AnnotationEntry.updated_at)))

    def picture_of(self, dataset_id: str, address: str) -> bytes | None:
        """The picture of an address, where an annotation has brought it already."""
        query = select(AnnotationEntry).where(
            AnnotationEntry.dataset_id == dataset_id,
            AnnotationEntry.address == address,
            AnnotationEntry.content.is_not(None),
        )
        with self.database.read() as session:
            entry = session.scalars(query.limit(1)).first()
        if entry is None or entry.content is None:
            return None
        try:
            return self.file(dataset_id, entry.content, entry.suffix).read_bytes()
        except OSError:
            return None

    def settle(self, entry: AnnotationEntry, picture: bytes, found: Annotations) -> bool:
        """Keep the picture of an entry and what is marked in it.

        Returns:
            False where the entry has changed or gone since it was read.
        """
        content, suffix = self.keep(entry.dataset_id, picture)
        with self.database.read() as session:
            before = _before(session, entry.dataset_id, content, entry.updated_at)
        values = {
            "document": dict(entry.document) | {BEFORE: before},
            "content": content,
            "suffix": suffix,
            "annotations": found.to_json(),
            "error": None,
        }
        return self._change(entry, values)

    def fail(self, entry: AnnotationEntry, error: str) -> bool:
        """Note why an entry still waits."""
        return self._change(entry, {"error": error[:2000]})

    def remove(self, dataset_id: str, keys: Iterable[str] = (), tasks: Iterable[str] = ()) -> int:
        """Drop annotations by their keys or by their pictures' tasks. Returns how many."""
        entry, gone = AnnotationEntry, set(keys)
        further = (entry.key.startswith(f"{key}{FURTHER}", autoescape=True) for key in gone)
        wanted = or_(entry.key.in_(gone), entry.task.in_(list(tasks)), *further)
        with self.database.write() as session:
            found = list(
                session.scalars(select(entry).where(entry.dataset_id == dataset_id, wanted))
            )
            for row in found:
                session.delete(row)
            if found:
                _touch(session, dataset_id)
        return len(found)

    def count(self, dataset_id: str) -> int:
        """How many annotations there are, waiting ones included."""
        with self.database.read() as session:
            rows = select(AnnotationEntry.key).where(AnnotationEntry.dataset_id == dataset_id)
            return len(session.scalars(rows).all())

    def pictures(self, dataset_id: str) -> Sequence[ImageRecord]:
        """Every picture once, with the annotation that counts, in order of content."""
        query = select(AnnotationEntry).where(
            AnnotationEntry.dataset_id == dataset_id, AnnotationEntry.annotations.is_not(None)
        )
        order = (AnnotationEntry.rank, AnnotationEntry.stamp, AnnotationEntry.updated_at)
        entries: dict[str, list[AnnotationEntry]] = {}
        with self.database.read() as session:
            dataset = session.get(AnnotatedDataset, dataset_id)
            for row in session.scalars(query.order_by(*order)):
                entries.setdefault(row.content or "", []).append(row)
        accept = (dataset.options.get("bands") or {}).get("accept", 0.0) if dataset else 0.0
        return [
            picture_of(
                [_said(row) for row in rows],
                self.file(dataset_id, content, rows[-1].suffix),
                accept,
            )
            for content, rows in sorted(entries.items())
            if content
        ]

    def add_first(self, dataset_id: str, rows: Iterable[AnnotationEntry]) -> None:
        """Take what models or the original say of pictures that `keep` has stored; no change
        that would have the folder made anew."""
        with self.database.write() as session:
            for row in rows:
                row.dataset_id, row.number = dataset_id, 1
                session.merge(row)

    def correct(
        self,
        dataset_id: str,
        found: Mapping[str, Annotations],
        suffixes: Mapping[str, str],
        names: Mapping[str, str],
    ) -> None:
        """Take what a person says of pictures by their content; all or nothing."""
        with self.database.write() as session:
            for content, annotations in found.items():
                key = f"person:{content}"
                entry = session.get(AnnotationEntry, (dataset_id, key))
                if entry is None:
                    entry = AnnotationEntry(dataset_id=dataset_id, key=key, number=0, document={})
                    session.add(entry)
                entry.rank = CORRECTION_RANK
                before = _before(session, dataset_id, content, now())
                name = names.get(content) or entry.document.get("name", "")
                entry.document = {"name": name, BEFORE: before}
                entry.content, entry.suffix = content, suffixes[content]
                entry.annotations, entry.error = annotations.to_json(), None
                entry.number += 1
                entry.updated_at = now()
            _touch(session, dataset_id)

    # --- inside

    def _change(self, entry: AnnotationEntry, values: dict[str, Any]) -> bool:
        row = AnnotationEntry
        same = (
            row.dataset_id == entry.dataset_id,
            row.key == entry.key,
            row.number == entry.number,
        )
        with self.database.write() as session:
            changed = session.execute(update(row).where(*same).values(**values)).rowcount == 1  # type: ignore[attr-defined]
            if changed and values.get("annotations"):
                _touch(session, entry.dataset_id)
        return changed

    def keep(self, dataset_id: str, picture: bytes) -> tuple[str, str]:
        """Write a picture's file where it is new; the same content is the same file.

        Returns:
            Its SHA-256, and the suffix of its format.

        Raises:
            InvalidImage: Trainers do not read the format.
        """
        content, suffix = sha256(picture).hexdigest(), suffix_of(picture)
        target = self.file(dataset_id, content, suffix)
        if not target.exists():
            atomic_write(target, picture)
        return content, suffix

    def file(self, dataset_id: str, content: str, suffix: str) -> Path:
        return self.folder(dataset_id) / PICTURES / f"{content}{suffix}"


def _said(row: AnnotationEntry) -> SourceAnnotation:
    return SourceAnnotation(
        row.content or "", row.rank, row.document, row.annotations or {}, row.updated_at
    )


def _same(entry: AnnotationEntry, document: Mapping[str, Any], stamp: str) -> bool:
    sent = {key: value for key, value in entry.document.items() if key != BEFORE}
    return entry.stamp == stamp and sent == document and entry.annotations is not None


def _before(session: Session, dataset_id: str, content: str, until: str) -> list[dict[str, Any]]:
    """What models had said of a picture when the first person's word about it came."""
    row = AnnotationEntry
    query = select(row.document).where(
        row.dataset_id == dataset_id, row.content == content, row.rank >= 0
    )
    for document in session.scalars(query.order_by(row.updated_at)):
        if BEFORE in document:
            return list(document[BEFORE])
    return said_until(session, content, until)


def _touch(session: Session, dataset_id: str) -> None:
    row = AnnotatedDataset
    session.execute(
        update(row).where(row.id == dataset_id).values(changes=row.changes + 1, updated_at=now())
    )


def _new_id(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "annotations"
    return f"{slug}-{secrets.token_hex(4)}"
