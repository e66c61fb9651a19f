"""Applies a correction to an annotated dataset atomically."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from annotation.corrections.applied_correction import (
    AppliedCorrection,
    apply_correction,
    withdraw_correction,
)
from annotation.corrections.correction import Correction
from annotation.datasets import AnnotatedDatasets
from annotation.image_records import PERSON, ImageRecord
from annotation.tables import AnnotatedDataset
from files import temporary_folder
from formats.annotations import Annotations

UNDO_BYTES = 512 * 1024  # that the database needs to undo a correction


@contextmanager
def corrected(
    store: AnnotatedDatasets,
    dataset: AnnotatedDataset,
    correction: Correction,
    author: str = "",
    check: Callable[[Session], None] = lambda _: None,
) -> Iterator[None]:
    """Apply a correction, as a context; if the block raises, undo it and delete its new images.

    `author` and `check` are those of `apply_correction`.
    """
    suffixes = {content: image.suffix for content, image in correction.images.items()}
    added: list[Path] = []
    applied: AppliedCorrection | None = None
    with _room_to_undo(store) as reserved:
        try:
            for content in correction.names:
                image = correction.images[content]
                assert image.file is not None
                file = store.entries.file(dataset.id, content, image.suffix)
                if not file.exists():
                    added.append(file)
                store.entries.keep(dataset.id, image.file.read_bytes())
            applied = apply_correction(
                store.database,
                dataset.id,
                correction.found,
                suffixes,
                correction.names,
                author,
                check,
            )
            yield
        except BaseException:
            reserved.unlink(missing_ok=True)  # the undoing needs the room
            if applied is not None:
                withdraw_correction(store.database, applied)
            for file in added:
                file.unlink(missing_ok=True)
            raise


@contextmanager
def _room_to_undo(store: AnnotatedDatasets) -> Iterator[Path]:
    """A file that keeps room on the disk, so that a change that fills it can be undone."""
    with temporary_folder(store.database.settings.paths.uploads) as folder:
        reserved = folder / "reserved"
        with reserved.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, UNDO_BYTES)
        yield reserved


def preview(
    records: Sequence[ImageRecord], correction: Correction
) -> list[tuple[Annotations, bool, bool]]:
    """The dataset's images as they would be after a correction; nothing is stored.

    Returns:
        Per image: its annotations, whether a person has annotated it, whether it is trained on.
    """
    rows = []
    for record in records:
        found = correction.found.get(record.content)
        if found is None:
            rows.append((record.annotations, record.by == PERSON, record.trains))
        else:
            rows.append((found, True, True))
    return rows + [(correction.found[content], True, True) for content in correction.names]
