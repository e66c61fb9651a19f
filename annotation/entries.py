"""The store of annotations with their source, and of the image files that they annotate.

An annotation is stored when it arrives; its image may be fetched later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from annotation.image_records import (
    BEFORE,
    HUMAN_KINDS,
    PRELABEL_RANK,
    EntryKind,
    ImageRecord,
    SourceAnnotation,
    resolve_record,
)
from annotation.prelabels import prelabels_until
from annotation.tables import AnnotatedDataset, AnnotationEntry
from database import Database, State, blocks, now
from dataset.image_files import suffix_of
from dataset.revisions import IMAGES
from dataset.shared.datasets import shared_datasets
from errors import NotFound
from files import atomic_write
from formats.annotations import Annotations

CHANGES = "annotations"  # key of the count of changes in the table `state`
EXTRA_IMAGE = "#"  # separates key and image number, if one annotation has several images


@dataclass(frozen=True)
class UnreviewedEntry:
    """An entry of a model or of an upload, for the annotation queue.

    Attributes:
        dataset_id: Id of the dataset.
        content: SHA-256 of the image's file.
        document: The values stored with it: `name`, `by`, and those that order the queue.
    """

    dataset_id: str
    content: str
    document: dict[str, Any]


def image_entry(
    kind: EntryKind,
    content: str,
    suffix: str,
    annotations: Annotations,
    *,
    rank: int,
    document: dict[str, Any],
) -> AnnotationEntry:
    """A new entry for an image whose file is stored. An image has at most one of each kind."""
    return AnnotationEntry(
        kind=kind,
        key=image_key(kind, content),
        rank=rank,
        document=document,
        content=content,
        suffix=suffix,
        annotations=annotations.to_json(),
    )


class AnnotationEntries:
    """Reads and changes annotations; safe to share between threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.max_pixels = database.settings.max_pixels
        self._folder = database.settings.paths.datasets
        self._shared = shared_datasets(database)

    # --- annotations that a tool sends

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
        """Store a new or changed annotation of a tool; its image is fetched later.

        Returns:
            False if this or a newer version of the annotation is already stored.
        """
        with self.database.write() as session:
            entry = session.get(AnnotationEntry, (dataset_id, key))
            if entry is None:
                entry = AnnotationEntry(dataset_id=dataset_id, kind="tool", key=key, number=0)
                session.add(entry)
            elif stamp and (entry.stamp > stamp or _same(entry, document, stamp)):
                return False
            entry.task = task
            entry.rank, entry.stamp = rank, stamp
            stored = entry.document if entry.document and entry.address == address else {}
            entry.document = dict(document) | {k: stored[k] for k in (BEFORE,) if k in stored}
            if entry.address != address:
                entry.content = None
            if entry.annotations is not None:  # the newest revision is outdated
                touch(session, dataset_id)
            else:  # whoever fetches the images sees that one waits
                note_change(session)
            entry.address, entry.annotations, entry.error = address, None, None
            entry.number += 1
            entry.updated_at = now()
        return True

    def waiting(self, dataset_id: str | None = None) -> list[AnnotationEntry]:
        """Entries whose image was not fetched yet, oldest first; of one dataset or of all."""
        query = select(AnnotationEntry).where(AnnotationEntry.annotations.is_(None))
        if dataset_id is not None:
            query = query.where(AnnotationEntry.dataset_id == dataset_id)
        with self.database.read() as session:
            return list(session.scalars(query.order_by(AnnotationEntry.updated_at)))

    def image_at(self, dataset_id: str, address: str) -> bytes | None:
        """The image of a URL, if it is already stored for another annotation; else None."""
        query = select(AnnotationEntry).where(
            AnnotationEntry.dataset_id == dataset_id,
            AnnotationEntry.address == address,
            AnnotationEntry.content.is_not(None),
        )
        with self.database.read() as session:
            entry = session.scalars(query.limit(1)).first()
        if entry is None or entry.content is None:
            return None
        file = self.file(dataset_id, entry.content, entry.suffix)
        self.have(dataset_id, [file])
        try:
            return file.read_bytes()
        except OSError:
            return None

    def complete(self, entry: AnnotationEntry, image: bytes, found: Annotations) -> bool:
        """Store the fetched image of an entry, and the annotations parsed for it.

        Returns:
            False if the entry was changed or deleted since it was read; nothing changes then.

        Raises:
            InvalidImage: Trainers do not read the image's format.
        """
        content, suffix = self.keep(entry.dataset_id, image)
        with self.database.read() as session:
            before = prelabels_before(session, entry.dataset_id, content, entry.updated_at)
        values = {
            "document": dict(entry.document) | {BEFORE: before},
            "content": content,
            "suffix": suffix,
            "annotations": found.to_json(),
            "error": None,
        }
        return self._update(entry, values)

    def note_error(self, entry: AnnotationEntry, error: str) -> bool:
        """Record why an entry's image could not be fetched. Returns False as `complete` does."""
        return self._update(entry, {"error": error[:2000]})

    def remove(self, dataset_id: str, keys: Iterable[str] = (), tasks: Iterable[str] = ()) -> int:
        """Delete entries by key or by the tool's task. Returns the number of deleted entries."""
        entry = AnnotationEntry
        wanted = [_of_keys(some) for some in blocks(list(set(keys)))]
        wanted += [entry.task.in_(some) for some in blocks(list(set(tasks)))]
        count = 0
        with self.database.write() as session:
            for one in wanted:
                query = select(entry).where(entry.dataset_id == dataset_id, one)
                for row in session.scalars(query).all():
                    session.delete(row)
                    count += 1
            if count:
                touch(session, dataset_id)
        return count

    def count(self, dataset_id: str) -> int:
        """The number of entries, including those without their image."""
        with self.database.read() as session:
            rows = select(AnnotationEntry.key).where(AnnotationEntry.dataset_id == dataset_id)
            return len(session.scalars(rows).all())

    # --- images and their records

    def records(self, dataset_id: str) -> Sequence[ImageRecord]:
        """One record per image, with its effective annotations, in order of SHA-256."""
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
            resolve_record(
                [source_annotation(row) for row in rows],
                self.file(dataset_id, content, rows[-1].suffix),
                accept,
            )
            for content, rows in sorted(entries.items())
            if content
        ]

    def add_prelabels(self, dataset_id: str, entries: Iterable[AnnotationEntry]) -> None:
        """Store a model's entries for images that `keep` has stored.

        `changes` is not incremented.
        """
        with self.database.write() as session:
            add_entries(session, dataset_id, entries)

    def add_images(self, dataset_id: str, entries: Iterable[AnnotationEntry]) -> None:
        """Store entries of new images, which `keep` has stored, without replacing others."""
        with self.database.write() as session:
            known = set(
                session.scalars(
                    select(AnnotationEntry.content).where(AnnotationEntry.dataset_id == dataset_id)
                )
            )
            add_entries(session, dataset_id, (one for one in entries if one.content not in known))
            touch(session, dataset_id)

    def contents(self, dataset_id: str) -> set[str]:
        """SHA-256 of the images of a dataset."""
        row = AnnotationEntry
        query = select(row.content).where(row.dataset_id == dataset_id, row.content.is_not(None))
        with self.database.read() as session:
            return {content for content in session.scalars(query) if content}

    def names(self, dataset_id: str) -> set[str]:
        """The paths of the images of a dataset, as users know them."""
        row = AnnotationEntry
        with self.database.read() as session:
            documents = session.scalars(select(row.document).where(row.dataset_id == dataset_id))
            return {str(one["name"]) for one in documents if one.get("name")}

    def prelabelled(self, dataset_id: str) -> dict[str, AnnotationEntry]:
        """SHA-256 of an image → the model's entry for it."""
        row = AnnotationEntry
        query = select(row).where(row.dataset_id == dataset_id, row.kind == "model")
        with self.database.read() as session:
            return {entry.content: entry for entry in session.scalars(query) if entry.content}

    def unreviewed(self, dataset_id: str | None = None) -> list[UnreviewedEntry]:
        """Entries added for review, oldest first; of one dataset or of all.

        They include images that a person has annotated since.
        """
        entry = AnnotationEntry
        query = select(entry.dataset_id, entry.content, entry.document)
        query = query.where(entry.rank == PRELABEL_RANK)
        if dataset_id is not None:
            query = query.where(entry.dataset_id == dataset_id)
        with self.database.read() as session:
            rows = session.execute(query.order_by(entry.updated_at, entry.content)).all()
        return [
            UnreviewedEntry(owner, content or "", document) for owner, content, document in rows
        ]

    def prelabels_of(self, images: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Annotations]:
        """Dataset and SHA-256 of images → what was added for review; for a page of images."""
        row = AnnotationEntry
        contents = {content for _, content in images}
        query = select(row.dataset_id, row.content, row.annotations).where(
            row.rank == PRELABEL_RANK, row.content.in_(contents), row.annotations.is_not(None)
        )
        with self.database.read() as session:
            found = session.execute(query.order_by(row.updated_at)).all()
        wanted = set(images)
        return {
            (dataset_id, content): Annotations.from_json(annotations)
            for dataset_id, content, annotations in found
            if (dataset_id, content) in wanted and annotations is not None
        }

    def annotated_contents(self) -> set[str]:
        """SHA-256 of the images that people have annotated, in any dataset."""
        row = AnnotationEntry
        query = select(row.content).where(row.kind.in_(HUMAN_KINDS), row.annotations.is_not(None))
        with self.database.read() as session:
            return {content for content in session.scalars(query) if content}

    def image_path(self, dataset_id: str, content: str) -> Path:
        """The file of an image of a dataset. Raises NotFound."""
        row = AnnotationEntry
        query = select(row.suffix).where(row.dataset_id == dataset_id, row.content == content)
        with self.database.read() as session:
            suffix = session.scalars(query.limit(1)).first()
        file = self.file(dataset_id, content, suffix or "")
        if suffix is not None:
            self.have(dataset_id, [file])
        if suffix is None or not file.is_file():
            raise NotFound(
                f"No image {content[:64]!r} in '{dataset_id[:80]}'. Its annotation queue and diffs "
                "name images by the SHA-256 of the file."
            )
        return file

    def keep(self, dataset_id: str, image: bytes) -> tuple[str, str]:
        """Store an image file under its SHA-256; equal files are stored once.

        Returns:
            Its SHA-256, and the file suffix of its format.

        Raises:
            InvalidImage: Trainers do not read the image's format.
        """
        content, suffix = sha256(image).hexdigest(), suffix_of(image)
        target = self.file(dataset_id, content, suffix)
        if not target.exists():
            if self._shared is not None:  # first: what is here counts as stored
                self._shared.keep_image(dataset_id, target.name, image)
            atomic_write(target, image)
        return content, suffix

    def have(self, dataset_id: str, files: Iterable[Path]) -> None:
        """Download those of a dataset's images' files that another machine has stored.

        Without an object store there are none. Images that are nowhere stay missing.
        """
        if self._shared is not None:
            self._shared.have_images(dataset_id, files)

    def file(self, dataset_id: str, content: str, suffix: str) -> Path:
        """The path of an image's file, whether it exists or not."""
        return self._folder / dataset_id / IMAGES / f"{content}{suffix}"

    # --- changes

    def change(self) -> int:
        """A number that is another one once annotations were added, changed or removed."""
        with self.database.read() as session:
            return session.scalar(select(State.number).where(State.key == CHANGES)) or 0

    # --- private

    def _update(self, entry: AnnotationEntry, values: dict[str, Any]) -> bool:
        row = AnnotationEntry
        same = (
            row.dataset_id == entry.dataset_id,
            row.key == entry.key,
            row.number == entry.number,
        )
        with self.database.write() as session:
            changed = session.execute(update(row).where(*same).values(**values)).rowcount == 1  # type: ignore[attr-defined]
            if changed and values.get("annotations"):
                touch(session, entry.dataset_id)
        return changed


def note_change(session: Session) -> None:
    """Have `AnnotationEntries.change` return another number after the session's transaction."""
    counted = update(State).where(State.key == CHANGES).values(number=State.number + 1)
    if not session.execute(counted).rowcount:  # type: ignore[attr-defined]
        session.merge(State(key=CHANGES, number=1))


def image_key(kind: EntryKind, content: str) -> str:
    """The key of an entry for an image whose file is stored."""
    return f"{kind}:{content}"


def add_entries(session: Session, dataset_id: str, entries: Iterable[AnnotationEntry]) -> None:
    """Add new entries of a dataset in the session's transaction; equal keys are replaced."""
    for entry in entries:
        entry.dataset_id, entry.number = dataset_id, 1
        session.merge(entry)
    note_change(session)


def source_annotation(row: AnnotationEntry) -> SourceAnnotation:
    """The annotations of an entry whose image is stored."""
    return SourceAnnotation(
        content=row.content or "",
        kind=cast("EntryKind", row.kind),
        rank=row.rank,
        origin=row.document,
        annotations=row.annotations or {},
        at=row.updated_at,
    )


def _of_keys(keys: Sequence[str]) -> ColumnElement[bool]:
    """Whether an entry is that of a key, or of a further image of the same annotation."""
    column = AnnotationEntry.key
    further = (column.startswith(f"{key}{EXTRA_IMAGE}", autoescape=True) for key in keys)
    return or_(column.in_(keys), *further)


def _same(entry: AnnotationEntry, document: Mapping[str, Any], stamp: str) -> bool:
    sent = {key: value for key, value in entry.document.items() if key != BEFORE}
    return entry.stamp == stamp and sent == document and entry.annotations is not None


def prelabels_before(
    session: Session, dataset_id: str, content: str, until: str
) -> list[dict[str, Any]]:
    """The prelabels that existed before an image's first human annotation."""
    row = AnnotationEntry
    query = select(row.document).where(
        row.dataset_id == dataset_id, row.content == content, row.kind.in_(HUMAN_KINDS)
    )
    for document in session.scalars(query.order_by(row.updated_at)):
        if BEFORE in document:
            return list(document[BEFORE])
    return prelabels_until(session, content, until)


def touch(session: Session, dataset_id: str) -> None:
    """Note in the session's transaction that a dataset's annotations have changed."""
    row = AnnotatedDataset
    session.execute(
        update(row).where(row.id == dataset_id).values(changes=row.changes + 1, updated_at=now())
    )
    note_change(session)
