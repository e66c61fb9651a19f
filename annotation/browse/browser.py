"""Lists, counts and finds the images of a dataset, by an index that is written once a revision."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from annotation.browse.rows import revision_images, upload_images
from annotation.entries import AnnotationEntries
from annotation.history import is_upload, newest
from annotation.revision_records import read_records
from dataset.browse.health import Health
from dataset.browse.index import FORMAT, ImageFilter, ImageIndex, IndexedImage, write_index
from dataset.revisions import CARD, FIRST_CARD, NOTE, get_revision, revision_folder
from dataset.store import DatasetStore
from errors import BackendUnavailable, NotFound, ValidationFailed
from files import PARTIAL, delete_if_abandoned

Answer = TypeVar("Answer")

MOST_INDEXES = 8  # of one dataset; the oldest is deleted
LOCK_TIMEOUT = 120.0  # seconds to wait for another process that writes the same index
EXAMPLES = 12  # images of a kind of problem in the health
CONTENT = re.compile(r"[0-9a-f]{64}")
_CURSOR = re.compile(r"([0-9]{1,6})-([0-9]{1,9})")


class DatasetBrowser:
    """The images of datasets, revision by revision. Its methods read files: call them off the event
    loop.

    An index belongs to a revision, which never changes; that of an upload belongs to its card. It
    is written by the first call, or by the upload, and all gateway processes share it.

    Args:
        datasets: The store of the datasets.
        entries: The store of annotations and of their images.
        drafts: Returns the SHA-256 of the images of a dataset that have a draft.
    """

    def __init__(
        self,
        datasets: DatasetStore,
        entries: AnnotationEntries,
        drafts: Callable[[str], frozenset[str]] = lambda _: frozenset(),
    ) -> None:
        self._datasets = datasets
        self._entries = entries
        self._drafts = drafts
        self._folder = entries.database.settings.paths.image_index

    def page(
        self,
        dataset_id: str,
        wanted: ImageFilter,
        *,
        revision: int | None = None,
        after: str = "",
        limit: int = 100,
    ) -> dict[str, Any]:
        """Some images of a revision, with the counts of each filter on the first page.

        Args:
            dataset_id: Id of the dataset.
            wanted: Which images.
            revision: Number of the revision; None: that of `after`, else the newest.
            after: The `next` of the page before; empty: the first page.
            limit: Maximum number of images.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset or revision.
            ValidationFailed: `after` is none, or of another revision.
        """
        position = 0
        if after:
            found = _CURSOR.fullmatch(after)
            if found is None:
                raise ValidationFailed("'after' must be the value 'next' of the page before.")
            if revision not in (None, int(found[1])):
                raise ValidationFailed(
                    f"'after' is of revision {int(found[1])}, not {revision}. Start again without "
                    "'after'."
                )
            revision, position = int(found[1]), int(found[2])
        if revision is None:
            revision = newest(self._datasets, dataset_id)
        wanted = ImageFilter(**{**vars(wanted), "drafts": self._drafts(dataset_id)})

        def read(index: ImageIndex) -> dict[str, Any]:
            page = index.page(wanted, position, limit)
            answer: dict[str, Any] = {
                "dataset_id": dataset_id,
                "revision": revision,
                "task": index.note("task"),
                "total": index.count(wanted),
                "images": page.rows,
                "next": None if page.following is None else f"{revision}-{page.following}",
                "facets": None,
            }
            if not position:
                answer["facets"] = index.facets(wanted)
            return answer

        return self._read(dataset_id, revision, read)

    def health(self, dataset_id: str, revision: int | None = None) -> dict[str, Any]:
        """Balance of classes, histograms, and problems with example images of a revision.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset or revision.
        """
        number = newest(self._datasets, dataset_id) if revision is None else revision
        card = self._datasets.get(dataset_id)
        described = card["problems"] if number == card.get("revision", 0) else []

        def read(index: ImageIndex) -> dict[str, Any]:
            counts = index.facets(ImageFilter())["problem"]
            kinds = [problem["kind"] for problem in described]
            rows = [
                {
                    **problem,
                    "images": counts.get(problem["kind"], 0),
                    "shown": index.examples(problem["kind"], EXAMPLES),
                }
                for problem in described
            ]
            for kind, count in sorted(counts.items()):
                if kind not in kinds:
                    examples = index.examples(kind, EXAMPLES)
                    rows.append(
                        {
                            "kind": kind,
                            "message": f"{examples[0]['name']}: {examples[0]['problems'][kind]}",
                            "count": count,
                            "examples": [],
                            "fatal": False,
                            "images": count,
                            "shown": examples,
                        }
                    )
            return {
                "dataset_id": dataset_id,
                "revision": number,
                "task": index.note("task"),
                **index.note("health"),
                "problems": rows,
            }

        return self._read(dataset_id, number, read)

    def path(self, dataset_id: str, content: str) -> Path:
        """The file of an image of a dataset.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset, or no such image in it.
        """
        unknown = NotFound(
            f"No image {content[:64]!r} in '{dataset_id[:80]}'. GET /api/datasets/{{id}}/images "
            "lists the SHA-256 of its images."
        )
        if not CONTENT.fullmatch(content):
            raise unknown
        with contextlib.suppress(NotFound):
            return self._entries.image_path(dataset_id, content)
        self._datasets.get(dataset_id)
        folder = self._datasets.local(dataset_id)
        if is_upload(self._datasets, dataset_id):
            found = self._read(dataset_id, 0, lambda index: index.path_of(content))
            if found is not None and (folder / found).is_file():
                return folder / found
        raise unknown

    def prepare(self, dataset_id: str) -> None:
        """Write the index of a dataset's newest revision, so that the first call is quick."""
        self._read(dataset_id, newest(self._datasets, dataset_id), lambda index: None)

    def forget(self, dataset_id: str) -> None:
        """Delete the indexes of a dataset that was deleted."""
        shutil.rmtree(self._folder / dataset_id, ignore_errors=True)

    def _read(self, dataset_id: str, revision: int, read: Callable[[ImageIndex], Answer]) -> Answer:
        """Read the index of a revision; one that is missing or damaged is written first."""
        for again in (False, True):
            file = self._index(dataset_id, revision, again)
            try:
                return read(ImageIndex(file))
            except (sqlite3.Error, ValueError, TypeError):
                if again:
                    raise
                file.unlink(missing_ok=True)
        raise AssertionError("the second try returns or raises")

    def _index(self, dataset_id: str, revision: int, missing: bool) -> Path:
        folder = self._datasets.local(dataset_id)
        file = (
            self._folder / dataset_id / f"{revision:06}-{self._stamp(dataset_id, revision)}.sqlite"
        )
        if not missing and file.is_file():
            return file
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(file.with_suffix(".lock"), timeout=LOCK_TIMEOUT):
                if not file.is_file():
                    self._write(dataset_id, revision, folder, file)
        except Timeout:
            raise BackendUnavailable(
                f"The images of '{dataset_id}' are being read for the first time. Try again in a "
                "minute."
            ) from None
        return file

    def _stamp(self, dataset_id: str, revision: int) -> str:
        """What identifies the content of a revision: the time of its summary or card.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset or revision.
        """
        self._datasets.get(dataset_id)
        folder = self._datasets.local(dataset_id)
        if revision == 0:
            if not is_upload(self._datasets, dataset_id):
                raise NotFound(f"'{dataset_id}' was not uploaded: its revisions begin at 1.")
            first = folder / FIRST_CARD
            note = first if first.exists() else folder / CARD
            # a revision copies the card, and keeps its content, but not its time
            return f"{FORMAT}-{note.stat().st_size:x}"
        status = (revision_folder(folder, revision) / NOTE).stat()
        return f"{FORMAT}-{status.st_mtime_ns:x}"

    def _write(self, dataset_id: str, revision: int, folder: Path, file: Path) -> None:
        if revision == 0:
            dataset = self._datasets.open(f"{dataset_id}@0")
            task, names = dataset.task, dataset.names
            images = upload_images(dataset, folder.resolve())
        else:
            summary = get_revision(folder, revision)
            task, names = summary.task, summary.names
            top = revision_folder(folder, revision)
            images = revision_images(read_records(folder, revision), top, folder, task)
        health = Health(names)
        notes: dict[str, Any] = {"task": task, "classes": list(names)}

        def counted() -> Iterator[IndexedImage]:
            for image in images:
                health.update(image)
                yield image
            notes["health"] = health.to_json()

        write_index(file, counted(), notes)
        _delete_oldest(file)


def _delete_oldest(newest_file: Path) -> None:
    """Delete the oldest indexes of a dataset, and the locks of those that are gone."""
    found = sorted(newest_file.parent.glob("*.sqlite"), key=os.path.getmtime)
    for file in found[:-MOST_INDEXES]:
        if file != newest_file:
            file.unlink(missing_ok=True)
            file.with_suffix(".lock").unlink(missing_ok=True)
    for folder in newest_file.parent.glob(f"{PARTIAL}*"):
        delete_if_abandoned(folder)
