"""Reads the revisions of a dataset: immutable snapshots of its images and annotations.

A revision's folder can be trained on as it is. It also holds the complete annotations
(`annotation.revision_records`), of which the training labels are a part.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from errors import NotFound
from models_store.description import Task

CARD = "dataset.json"  # file of a dataset's folder: its id, name and inspection results
FIRST_CARD = "original.json"  # the upload's own card, once a revision has replaced `CARD`
IMAGES = "pictures"  # subfolder with the files of annotated images, named by their SHA-256
REVISIONS = "revisions"  # subfolder of a dataset's folder
RECORDS = "annotations.jsonl"  # the complete annotations, an image a line
NOTE = "revision.jsonl"  # one line; not .json, because .json files look like COCO annotations


@dataclass(frozen=True)
class Revision:
    """Summary of a revision.

    Attributes:
        number: Number of the revision, from 1; 0 is the unchanged upload.
        task: The task that its folder is written for.
        names, keypoint_names: Class and keypoint names in order of id.
        pictures: Number of images.
        annotated: Number of images annotated by people.
        to_review: Number of images left out of training until a person has reviewed them.
        objects: Number of annotated objects in all images.
        kept: Not deleted as long as the dataset exists.
        corrections: Source, such as a model id → counts of people's changes to its annotations.
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
    """The revisions in a dataset's folder, newest first."""
    folders = sorted((dataset / REVISIONS).glob("[0-9]*"), reverse=True)
    return [found for folder in folders if (found := _noted(folder)) is not None]


def _noted(folder: Path) -> Revision | None:
    """`read_note`; revisions never change, so that each is read once."""
    try:
        return _read_once(folder, os.stat(folder / NOTE).st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _read_once(folder: Path, _: int) -> Revision | None:
    return read_note(folder)


def revision_folder(dataset: Path, number: int) -> Path:
    """The folder of a revision.

    Raises:
        NotFound: It does not exist (any more).
    """
    folder = dataset / REVISIONS / f"{number:06}"
    if not 0 < number < 10**6 or not (folder / NOTE).is_file():
        known = [str(revision.number) for revision in list_revisions(dataset)[:10]]
        raise NotFound(
            f"'{dataset.name}' has no revision {number}. "
            f"Existing revisions: {', '.join(known) or 'none yet'}."
        )
    return folder


def get_revision(dataset: Path, number: int) -> Revision:
    """The summary of a revision.

    Raises:
        NotFound: It does not exist, or its summary cannot be read.
    """
    found = read_note(revision_folder(dataset, number))
    if found is None:
        raise NotFound(
            f"Revision {number} of '{dataset.name}' can no longer be read. Use another revision, "
            "or restore its folder from a backup."
        )
    return found


def image_names(folder: Path) -> dict[str, str]:
    """File name in a revision's folder → the image's path as users know it, where it is known.

    Empty if the folder is no revision: then users know the files by their own names.
    """
    names: dict[str, str] = {}
    if read_note(folder) is None:
        return names
    with (folder / RECORDS).open("rb") as lines:
        for row in map(json.loads, lines):
            if row.get("name"):
                names[str(row["file"])] = str(row["name"])
    return names


def is_kept(folder: Path) -> bool:
    """Whether a revision must not be deleted even if nothing refers to it."""
    found = read_note(folder)
    return found is not None and found.kept


def read_note(folder: Path) -> Revision | None:
    """The summary in a revision's folder; None if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return revision_from(json.loads((folder / NOTE).read_bytes()))
    return None


def revision_from(row: Any) -> Revision | None:
    """The summary in a JSON object; None if it is none."""
    with contextlib.suppress(TypeError, KeyError):
        names = {key: tuple(row[key]) for key in ("names", "keypoint_names")}
        return Revision(**row | names)
    return None
