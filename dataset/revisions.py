"""The revisions of a dataset: what was said of every image at a time, for good.

A revision's folder trains as it is; beside that it keeps everything that its annotations say
(`annotation.revision_records`), of which training labels hold a part.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import NotFound
from models_store.description import Task

REVISIONS = "revisions"  # in a dataset's folder
NOTE = "revision.jsonl"  # a line; a folder with .json files is taken for COCO's


@dataclass(frozen=True)
class Revision:
    """What a revision is.

    Attributes:
        number: From 1; 0 is an upload as it came.
        task: What its folder trains.
        names, keypoint_names: In the order of their ids.
        images: How many there are.
        annotated: Of these, by people.
        to_review: Of these, left out of training until a person has looked.
        objects: Marked in all of them.
        kept: Stays for as long as the dataset does.
        corrections: Per model, what people changed of what it said.
    """

    number: int
    task: Task
    names: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    pictures: int
    annotated: int
    to_review: int
    objects: int
    kept: bool
    created_at: str
    corrections: dict[str, Any] = field(default_factory=dict)


def list_revisions(dataset: Path) -> list[Revision]:
    """Those of a dataset's folder, the newest first."""
    folders = sorted((dataset / REVISIONS).glob("[0-9]*"), reverse=True)
    return [found for folder in folders if (found := read_note(folder)) is not None]


def revision_folder(dataset: Path, number: int) -> Path:
    """The folder of a revision.

    Raises:
        NotFound: It is not there, or no longer.
    """
    folder = dataset / REVISIONS / f"{number:06}"
    if not 0 < number < 10**6 or not (folder / NOTE).is_file():
        known = [str(revision.number) for revision in list_revisions(dataset)[:10]]
        raise NotFound(
            f"'{dataset.name}' has no revision {number}. "
            f"There are: {', '.join(known) or 'none yet'}."
        )
    return folder


def get_revision(dataset: Path, number: int) -> Revision:
    """Raises NotFound."""
    found = read_note(revision_folder(dataset, number))
    if found is None:
        raise NotFound(f"Revision {number} of '{dataset.name}' cannot be read any more.")
    return found


def is_kept(folder: Path) -> bool:
    """Whether a revision stays though nothing names it."""
    found = read_note(folder)
    return found is not None and found.kept


def read_note(folder: Path) -> Revision | None:
    """The summary in a revision's folder; None where it cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        row = json.loads((folder / NOTE).read_bytes())
        names = {key: tuple(row[key]) for key in ("names", "keypoint_names")}
        return Revision(**row | names)
    return None
