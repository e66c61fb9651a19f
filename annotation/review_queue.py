"""The pictures that wait for a person: what models said of them, and how much that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from annotation.pictures import PRELABEL_RANK
from annotation.priority import Look, unpack
from annotation.store import AnnotatedDatasets, AnnotationEntry
from dataset.store import CARD
from errors import NotFound


@dataclass(frozen=True)
class Waiting:
    """A picture that no person has annotated.

    Attributes:
        content: SHA-256 of its file.
        document: What was noted when it was pre-labelled: `name`, `by`, `doubt`, `reason` …
        look: Its descriptor.
    """

    dataset_id: str
    content: str
    document: dict[str, Any]
    look: Look


def waiting(
    store: AnnotatedDatasets, dataset_id: str | None = None
) -> tuple[list[Waiting], list[Look]]:
    """Pictures that wait, of one data set or of all, and the looks of those that do not.

    The oldest answer first. Data sets without a card are left out: their job still runs, or has
    ended before they were whole, and nothing can be corrected in them.
    """
    row = AnnotationEntry
    guessed = select(row.dataset_id, row.content, row.document).where(row.rank == PRELABEL_RANK)
    if dataset_id is not None:
        guessed = guessed.where(row.dataset_id == dataset_id)
    whole: dict[str, bool] = {}
    seen = annotated(store)
    found: list[Waiting] = []
    looks: list[Look] = []
    with store.database.read() as session:
        for owner, content, document in session.execute(guessed.order_by(row.updated_at)):
            if owner not in whole:
                whole[owner] = (store.folder(owner) / CARD).is_file()
            if not whole[owner]:
                continue
            look = unpack(str(document.get("look") or ""))
            if content in seen:
                looks.append(look)
            else:
                found.append(Waiting(owner, content, document, look))
    return found, looks


def first_words(store: AnnotatedDatasets, dataset_id: str) -> list[AnnotationEntry]:
    """What models, or the original, said of a data set's pictures."""
    row = AnnotationEntry
    query = select(row).where(row.dataset_id == dataset_id, row.rank < 0)
    with store.database.read() as session:
        return list(session.scalars(query))


def picture_file(store: AnnotatedDatasets, dataset_id: str, content: str) -> Path:
    """A picture of a data set by its content. Raises NotFound."""
    row = AnnotationEntry
    query = select(row.suffix).where(row.dataset_id == dataset_id, row.content == content)
    with store.database.read() as session:
        suffix = session.scalars(query.limit(1)).first()
    if suffix is None or not store.file(dataset_id, content, suffix).is_file():
        raise NotFound(f"No picture {content[:64]!r} in '{dataset_id[:80]}'.")
    return store.file(dataset_id, content, suffix)


def annotated(store: AnnotatedDatasets) -> set[str]:
    """The pictures that people have annotated, in whatever data set."""
    row = AnnotationEntry
    query = select(row.content).where(row.rank >= 0, row.annotations.is_not(None))
    with store.database.read() as session:
        return {content for content in session.scalars(query) if content}


def unique(found: Sequence[Waiting]) -> list[Waiting]:
    """Of pictures that wait in several data sets the one of the newest answer, in the order of
    `waiting`."""
    return list({one.content: one for one in found}.values())
