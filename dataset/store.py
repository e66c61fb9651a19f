"""Stores uploaded datasets: one folder each in VISIONLOOP_HOME/datasets, created atomically."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from dataset import image_scan
from dataset.allowed_roots import confine, data_roots, there
from dataset.dataset import Dataset
from dataset.inspection import inspect
from dataset.revisions import get_revision, revision_folder
from errors import DatasetNotFound, NotFound, ValidationFailed
from files import PARTIAL, delete_abandoned, temporary_folder
from models_store.description import Task
from settings import Settings


class Datasets(Protocol):
    """The part of `DatasetStore` that planning needs."""

    def resolve(self, reference: str) -> Path:
        """The path that a dataset id or a path refers to, inside the allowed roots."""


CARD = "dataset.json"
FIRST_CARD = "original.json"  # the upload's own card, once a revision has replaced `CARD`
DATA = "data"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
_REVISION = re.compile(r"([a-z0-9][a-z0-9-]{0,60})@([0-9]{1,6})")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


class DatasetStore:
    """Creates, lists, resolves and deletes uploaded datasets.

    Each dataset has a card, `dataset.json`, with its id, its name and the results of its
    inspection. All methods read or write files: call them off the event loop.
    """

    def __init__(self, settings: Settings) -> None:
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
        return written

    def list(self) -> list[dict[str, Any]]:
        """The cards of all uploads, newest first."""
        cards = [card for folder in self._folders() if (card := _card(folder))]
        return sorted(cards, key=lambda card: card["created_at"], reverse=True)

    def get(self, dataset_id: str) -> dict[str, Any]:
        """The card of an upload: its id, name and inspection results.

        Raises:
            DatasetNotFound: No dataset has this id.
        """
        card = _card(self.folder / dataset_id) if _ID.fullmatch(dataset_id) else None
        if card is None:
            known = ", ".join(card["id"] for card in self.list()[:10]) or "none yet"
            raise DatasetNotFound(f"No dataset '{dataset_id[:80]}'. Known: {known}.")
        return card

    def delete(self, dataset_id: str) -> None:
        """Delete an upload.

        Raises:
            DatasetNotFound: No dataset has this id.
        """
        card = self.get(dataset_id)
        gone = self.staging / f"{PARTIAL}{secrets.token_hex(8)}"  # deleted later if we are killed
        self.staging.mkdir(parents=True, exist_ok=True)
        try:
            (self.folder / dataset_id).rename(gone)  # atomic for concurrent readers
        except FileNotFoundError:
            raise DatasetNotFound(
                f"No dataset '{dataset_id}': it was just deleted. GET /api/datasets lists the "
                "others."
            ) from None
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
        if _ID.fullmatch(reference) and (card := _card(self.folder / reference)):
            return confine(self.folder / reference / card["description"], self.roots)
        if named := _REVISION.fullmatch(reference):
            return confine(self._revision(named[1], int(named[2]))[0], self.roots)
        places = [""] if os.path.isabs(reference) else self.roots
        for place in places:
            path = confine(os.path.join(place, reference), self.roots, reference)
            if card := _card(path):  # an upload's folder
                return confine(path / card["description"], self.roots)
            if there(path, reference):
                return path
        raise DatasetNotFound(
            f"No dataset '{reference[:200]}': neither an id nor a path on this server. Upload "
            "the data to /api/datasets, or put it under VISIONLOOP_DATA_ROOTS."
        )

    def open(self, reference: str, task: Task | None = None) -> Dataset:
        """The inspected dataset that an id or a path refers to. Raises as `resolve` and
        `inspection.inspect`."""
        if task is None and _ID.fullmatch(reference) and (card := _card(self.folder / reference)):
            task = card["task"]
        if task is None and (named := _REVISION.fullmatch(reference)):
            task = self._revision(named[1], int(named[2]))[1]
        return inspect(self.resolve(reference), task, self.roots)

    def _revision(self, dataset_id: str, number: int) -> tuple[Path, Task]:
        """The data.yaml or folder of a revision, and its task.

        Raises:
            DatasetNotFound: There is no such dataset or revision.
        """
        card, folder = self.get(dataset_id), self.folder / dataset_id
        if number == 0:
            card = _card(folder, FIRST_CARD) or card
            if "revision" in card:
                raise DatasetNotFound(f"'{dataset_id}' was not uploaded: its revisions begin at 1.")
            return folder / card["description"], card["task"]
        try:
            revision = get_revision(folder, number)
        except NotFound as error:
            raise DatasetNotFound(error.message) from None
        top = revision_folder(folder, number)
        return top if revision.task == "classify" else top / "data.yaml", revision.task

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from self.folder.iterdir()

    def new_id(self, name: str) -> str:
        """An id for a new dataset, which begins with its name."""
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "dataset"
        return f"{slug}-{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"


def _card(folder: Path, name: str = CARD) -> dict[str, Any] | None:
    """The card in a dataset's folder; None if there is none or it cannot be read."""
    try:
        card = json.loads((folder / name).read_bytes())
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) and "created_at" in card else None
