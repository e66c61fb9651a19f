"""A person's annotations of images, stored in one transaction that can be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from annotation.entries import image_key, note_change, prelabels_before, touch
from annotation.image_records import AUTHOR, BEFORE, CORRECTION_RANK
from annotation.tables import AnnotationEntry
from database import Database, now
from formats.annotations import Annotations


@dataclass(frozen=True)
class AppliedCorrection:
    """A stored correction and the entries that it replaced, for `withdraw_correction`.

    Attributes:
        dataset_id: Id of the dataset.
        written: Key of an entry → its `number` after the correction.
        replaced: Key of an entry that existed before → the values of its columns.
    """

    dataset_id: str
    written: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, dict[str, Any]] = field(default_factory=dict)


def apply_correction(
    database: Database,
    dataset_id: str,
    found: Mapping[str, Annotations],
    suffixes: Mapping[str, str],
    names: Mapping[str, str],
    author: str = "",
    check: Callable[[Session], None] = lambda _: None,
) -> AppliedCorrection:
    """Store a person's annotations of images, in one transaction.

    Args:
        database: The database of the annotations.
        dataset_id: Id of the dataset.
        found: SHA-256 of an image → its annotations.
        suffixes: SHA-256 → suffix of the image's file.
        names: SHA-256 of a new image → its path.
        author: The person's name; empty if it is not known.
        check: Called first in the transaction; if it raises, nothing is stored.

    Returns:
        The record with which `withdraw_correction` can undo the correction.
    """
    applied = AppliedCorrection(dataset_id)
    with database.write() as session:
        check(session)
        for content, annotations in found.items():
            key = image_key("person", content)
            entry = session.get(AnnotationEntry, (dataset_id, key))
            if entry is None:
                entry = AnnotationEntry(
                    dataset_id=dataset_id, kind="person", key=key, number=0, document={}
                )
                session.add(entry)
            else:
                applied.replaced[key] = _columns(entry)
            entry.rank = CORRECTION_RANK
            before = prelabels_before(session, dataset_id, content, now())
            name = names.get(content) or entry.document.get("name", "")
            made_by = {AUTHOR: author} if author else {}
            entry.document = {"name": name, BEFORE: before} | made_by
            entry.content, entry.suffix = content, suffixes[content]
            entry.annotations, entry.error = annotations.to_json(), None
            entry.number += 1
            entry.updated_at = now()
            applied.written[key] = entry.number
        touch(session, dataset_id)
    return applied


def withdraw_correction(database: Database, applied: AppliedCorrection) -> None:
    """Undo a correction, except for images that were corrected again since then."""
    with database.write() as session:
        for key, number in applied.written.items():
            entry = session.get(AnnotationEntry, (applied.dataset_id, key))
            if entry is None or entry.number != number:
                continue
            if key in applied.replaced:
                session.merge(AnnotationEntry(**applied.replaced[key]))
            else:
                session.delete(entry)
        note_change(session)


def _columns(entry: AnnotationEntry) -> dict[str, Any]:
    names = (column.key for column in inspect(AnnotationEntry).column_attrs)
    return {name: getattr(entry, name) for name in names}
