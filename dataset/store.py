"""Stores uploaded datasets: one folder each in VISIONLOOP_HOME/datasets, created atomically.

With an object store, the folders are copies of what all machines share: see `dataset.shared`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from database import Database
from dataset import image_scan
from dataset.allowed_roots import confine, data_roots, there
from dataset.dataset import Dataset
from dataset.inspection import inspect
from dataset.revisions import (
    CARD,
    FIRST_CARD,
    Revision,
    get_revision,
    list_revisions,
    revision_folder,
)
from dataset.shared.datasets import SharedDatasets, shared_datasets
from errors import DatasetNotFound, NotFound, ValidationFailed
from files import PARTIAL, delete_abandoned, temporary_folder
from models_store.description import Task
from settings import Settings


class Datasets(Protocol):
    """The part of `DatasetStore` that planning needs."""

    def resolve(self, reference: str) -> Path:
        """The path that a dataset id or a path refers to, inside the allowed roots."""


DATA = "data"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
_REVISION = re.compile(r"([a-z0-9][a-z0-9-]{0,60})@([0-9]{1,6})")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


class DatasetStore:
    """Creates, lists, resolves and deletes uploaded datasets.

    Each dataset has a card, `dataset.json`, with its id, its name and the results of its
    inspection. All methods read or write files: call them off the event loop.

    Args:
        settings: The folders and limits.
        shared: The datasets of all machines; None: those in the folder are all there are.
    """

    def __init__(self, settings: Settings, shared: SharedDatasets | None = None) -> None:
        self._shared = shared
        self.folder = settings.paths.datasets
        self.staging = settings.paths.uploads
        self.max_upload = settings.max_upload_bytes
        self.reserve = int(settings.disk_reserve)
        self.max_pixels = settings.max_pixels
        self.roots = data_roots(settings)

    @contextlib.contextmanager
    def staged(self) -> Iterator[Path]:
        """Context with a temporary folder for a new dataset. `keep` makes it a dataset; it is
        deleted if the block raises."""
        self.folder.mkdir(parents=True, exist_ok=True)
        delete_abandoned(self.staging)
        with temporary_folder(self.staging) as folder:
            yield folder

    def keep(
        self, staged: Path, name: str, card: Mapping[str, Any], dataset_id: str = ""
    ) -> dict[str, Any]:
        """Make a staged folder a dataset.

        Args:
            staged: The temporary folder, with the data in its subfolder `DATA`.
            name: Display name; the id begins with it.
            card: Further fields of the card.
            dataset_id: Id of the dataset, from `new_id`; empty: a new one.

        Returns:
            The complete card.
        """
        new_id = dataset_id or self.new_id(name)
        written: dict[str, Any] = {
            "id": new_id,
            "name": name,
            "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **card,
        }
        (staged / CARD).write_text(json.dumps(written, indent=1), encoding="utf-8")
        staged.rename(self.folder / new_id)
        if self._shared is not None:
            try:
                self._shared.publish(new_id, written)
            except BaseException:
                shutil.rmtree(self.folder / new_id, ignore_errors=True)
                raise
        return written

    def list(self) -> list[dict[str, Any]]:
        """The cards of all uploads, newest first."""
        if self._shared is not None:
            cards = self._shared.list()
        else:
            cards = [card for folder in self._folders() if (card := _card(folder))]
        return sorted(cards, key=lambda card: card["created_at"], reverse=True)

    def change(self) -> Hashable:
        """What is another one whenever a dataset was added or deleted."""
        if self._shared is not None:
            return self._shared.ids()
        try:
            return self.folder.stat().st_mtime_ns
        except OSError:
            return 0

    def get(self, dataset_id: str) -> dict[str, Any]:
        """The card of an upload: its id, name and inspection results.

        Raises:
            DatasetNotFound: No dataset has this id.
        """
        card = self._card(dataset_id)
        if card is None:
            known = ", ".join(card["id"] for card in self.list()[:10]) or "none yet"
            raise DatasetNotFound(f"No dataset '{dataset_id[:80]}'. Known: {known}.")
        return card

    def exists(self, dataset_id: str) -> bool:
        """Whether there is a dataset of this id."""
        return self._card(dataset_id) is not None

    def first_card(self, dataset_id: str) -> dict[str, Any] | None:
        """The card with which a dataset was uploaded, if a revision's card has replaced it."""
        if self._shared is not None:
            return self._shared.first_card(dataset_id)
        return _card(self.folder / dataset_id, FIRST_CARD)

    def revisions(self, dataset_id: str) -> Sequence[Revision]:
        """The revisions of a dataset, newest first."""
        if self._shared is not None:
            return self._shared.revisions(dataset_id)
        return list_revisions(self.folder / dataset_id)

    def all_revisions(self) -> Iterator[tuple[str, Sequence[Revision]]]:
        """The id and the revisions, newest first, of each dataset that has any."""
        if self._shared is not None:
            lists: Iterable[tuple[str, Sequence[Revision]]] = self._shared.all_revisions()
        else:
            lists = ((folder.name, list_revisions(folder)) for folder in sorted(self._folders()))
        return ((dataset_id, found) for dataset_id, found in lists if found)

    def newest_revisions(self) -> Iterator[Revision]:
        """The newest revision of each dataset that has one."""
        return (found[0] for _, found in self.all_revisions())

    def local(self, dataset_id: str) -> Path:
        """The folder of a dataset, up to date.

        With an object store it is downloaded first if need be; see `SharedDatasets.local`.
        """
        if self._shared is not None:
            return self._shared.local(dataset_id)
        return self.folder / dataset_id

    def delete(self, dataset_id: str) -> None:
        """Delete an upload.

        Raises:
            DatasetNotFound: No dataset has this id.
        """
        card = self.get(dataset_id)
        if self._shared is not None:
            if not self._shared.delete(dataset_id):
                raise _just_deleted(dataset_id)
            return
        gone = self.staging / f"{PARTIAL}{secrets.token_hex(8)}"  # deleted later if we are killed
        self.staging.mkdir(parents=True, exist_ok=True)
        try:
            (self.folder / dataset_id).rename(gone)  # atomic for concurrent readers
        except FileNotFoundError:
            raise _just_deleted(dataset_id) from None
        image_scan.forget((self.folder / dataset_id / card["description"]).parent)
        shutil.rmtree(gone, ignore_errors=True)

    def resolve(self, reference: str) -> Path:
        """The data.yaml or folder that an id or a path refers to, inside the allowed roots.

        `id@3` is revision 3 of a dataset, `id@0` the unchanged upload. A relative path is
        searched in each root in turn.

        Raises:
            DatasetNotFound: It does not exist.
            Forbidden: It is outside the allowed roots.
            ValidationFailed: It is empty or not a valid path.
        """
        reference = reference.strip()
        if not reference:
            raise ValidationFailed("Give a data.yaml, a folder, or the id of a dataset.")
        if _ID.fullmatch(reference) and (card := self._card(reference)):
            return confine(self.local(reference) / card["description"], self.roots)
        if named := _REVISION.fullmatch(reference):
            return confine(self._revision(named[1], int(named[2]))[0], self.roots)
        places = [""] if os.path.isabs(reference) else self.roots
        for place in places:
            path = confine(os.path.join(place, reference), self.roots, reference)
            self.have(path)
            if card := _card(path):  # an upload's folder
                return confine(path / card["description"], self.roots)
            if there(path, reference):
                return path
        raise DatasetNotFound(
            f"No dataset '{reference[:200]}': neither an id nor a path on this server. Upload "
            "the data to /api/datasets, or put it under VISIONLOOP_DATA_ROOTS."
        )

    def have(self, path: Path) -> None:
        """Download the dataset that a resolved path is in, if it is one of those that are shared
        and its copy is missing or outdated."""
        top = self.roots[0]
        if self._shared is not None and path != top and path.is_relative_to(top):
            self._shared.local(path.relative_to(top).parts[0])

    def open(self, reference: str, task: Task | None = None) -> Dataset:
        """The inspected dataset that an id or a path refers to. Raises as `resolve` and
        `inspection.inspect`."""
        if task is None and _ID.fullmatch(reference) and (card := self._card(reference)):
            task = card["task"]
        if task is None and (named := _REVISION.fullmatch(reference)):
            task = self._revision(named[1], int(named[2]))[1]
        return inspect(self.resolve(reference), task, self.roots)

    def _revision(self, dataset_id: str, number: int) -> tuple[Path, Task]:
        """The data.yaml or folder of a revision, and its task.

        Raises:
            DatasetNotFound: There is no such dataset or revision.
        """
        card, folder = self.get(dataset_id), self.local(dataset_id)
        if number == 0:
            card = self.first_card(dataset_id) or card
            if "revision" in card:
                raise DatasetNotFound(f"'{dataset_id}' was not uploaded: its revisions begin at 1.")
            return folder / card["description"], card["task"]
        try:
            revision = get_revision(folder, number)
        except NotFound as error:
            raise DatasetNotFound(error.message) from None
        top = revision_folder(folder, number)
        return top if revision.task == "classify" else top / "data.yaml", revision.task

    def _card(self, dataset_id: str) -> dict[str, Any] | None:
        if not _ID.fullmatch(dataset_id):
            return None
        if self._shared is not None:
            return self._shared.card(dataset_id)
        return _card(self.folder / dataset_id)

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from self.folder.iterdir()

    def new_id(self, name: str, digest: bytes = b"") -> str:
        """An id for a new dataset, which begins with its name.

        Args:
            name: Display name.
            digest: A hash of what the id depends on; empty: it is another one each time.
        """
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "dataset"
        drawn = secrets.token_bytes(8)
        return f"{slug}-{''.join(_ALPHABET[byte % 32] for byte in digest[:16] or drawn)}"


def open_datasets(database: Database) -> DatasetStore:
    """The store of the datasets that this database's servers and jobs have."""
    return DatasetStore(database.settings, shared_datasets(database))


def _just_deleted(dataset_id: str) -> DatasetNotFound:
    return DatasetNotFound(
        f"No dataset '{dataset_id}': it was just deleted. GET /api/datasets lists the others."
    )


def _card(folder: Path, name: str = CARD) -> dict[str, Any] | None:
    """The card in a dataset's folder; None if there is none or it cannot be read."""
    try:
        card = json.loads((folder / name).read_bytes())
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) and "created_at" in card else None
