"""Taking a correction: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import inspect

from annotation.corrections.reader import Correction
from annotation.pictures import PERSON, ImageRecord
from annotation.store import AnnotatedDataset, AnnotatedDatasets, AnnotationEntry
from formats.annotations import Annotations

Row = dict[str, Any]


@contextmanager
def corrected(
    store: AnnotatedDatasets, dataset: AnnotatedDataset, correction: Correction
) -> Iterator[None]:
    """Take a correction; if the block fails, it is withdrawn with the images it brought."""
    before = _rows(store, dataset.id, correction)
    suffixes = {content: image.suffix for content, image in correction.images.items()}
    brought: list[Path] = []
    try:
        for content in correction.names:
            image = correction.images[content]
            assert image.file is not None
            file = store.file(dataset.id, content, image.suffix)
            if not file.exists():
                brought.append(file)
            store.keep(dataset.id, image.file.read_bytes())
        store.correct(dataset.id, correction.found, suffixes, correction.names)
        yield
    except BaseException:
        _withdraw(store, dataset.id, correction, before)
        for file in brought:
            file.unlink(missing_ok=True)
        raise


def applied(
    pictures: Sequence[ImageRecord], correction: Correction
) -> list[tuple[Annotations, bool, bool]]:
    """Per image, after a correction: its annotations, whether a person has spoken, whether it
    trains."""
    rows = []
    for picture in pictures:
        found = correction.found.get(picture.content)
        if found is None:
            rows.append((picture.annotations, picture.by == PERSON, picture.trains))
        else:
            rows.append((found, True, True))
    return rows + [(correction.found[content], True, True) for content in correction.names]


def _rows(store: AnnotatedDatasets, dataset_id: str, correction: Correction) -> dict[str, Row]:
    """What people had said of the images, by content."""
    columns = [column.key for column in inspect(AnnotationEntry).column_attrs]
    rows = {}
    with store.database.read() as session:
        for content in correction.found:
            entry = session.get(AnnotationEntry, (dataset_id, _key(content)))
            if entry is not None:
                rows[content] = {name: getattr(entry, name) for name in columns}
    return rows


def _withdraw(
    store: AnnotatedDatasets, dataset_id: str, correction: Correction, before: Mapping[str, Row]
) -> None:
    """Put back what was there, where nobody has said something else since."""
    with store.database.write() as session:
        for content in correction.found:
            entry = session.get(AnnotationEntry, (dataset_id, _key(content)))
            old = before.get(content)
            if entry is None or entry.number != (old["number"] if old else 0) + 1:
                continue
            if old is None:
                session.delete(entry)
            else:
                session.merge(AnnotationEntry(**old))


def _key(content: str) -> str:
    return f"person:{content}"
