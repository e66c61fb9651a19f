"""Model versions in the object store that several machines share.

Each version has a tree of its files and a card: what `model.yaml` and the version's row say. The
Bento model store of each machine then holds copies, which are downloaded when they are needed.
Without a store, nothing here does anything: the version's folder is the version.

| key | meaning |
|---|---|
| `models/NAME/VERSION`, a tree | the files |
| `models/NAME/VERSION`, a small object | the card |
| `unpublished/NAME/VERSION` | it is visible only if it has a row: see `ModelTrees.unpublish` |
| `exports/NAME/VERSION/…` | exported files of it, see `engines.store` |
| `promoted/NAME` | the promoted version, for `reindex` |
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from disk_space import no_room_in
from errors import BackendUnavailable, ModelDamaged, ModelNotFound, StoreDamaged
from files import temporary_folder
from models_store.names import split_tag
from models_store.store import REQUIRED, ModelStore, content_hash, locate, version_time
from settings import Settings
from storage.place import open_trees
from storage.trees import TreeNotFound, TreeStore

log = logging.getLogger("visionloop")

MODELS, EXPORTS = "models", "exports"
UNPUBLISHED, PROMOTED = "unpublished", "promoted"
DOWNLOAD_TIMEOUT = 1800.0  # seconds for which a process waits for another one's download
ABANDONED = 86_400.0  # seconds after which a tree without a card is one of an upload that broke off


@dataclass(frozen=True)
class Card:
    """What is known of a version without its files.

    Attributes:
        metadata: As in the version's BentoML manifest.
        description: `model.json` as text.
        size_bytes: Of the version's files.
    """

    metadata: Mapping[str, Any]
    description: str
    size_bytes: int


class ModelTrees:
    """Publishes, fetches and deletes the shared files of model versions.

    Methods block, and raise as those of `TreeStore`. They do nothing without a store.
    """

    def __init__(self, trees: TreeStore, store: ModelStore) -> None:
        self._trees = trees
        self.store = store
        self.shared = trees.shared

    # --- files

    def upload(self, source: Path, name: str, version: str) -> None:
        """Store the files of a model folder. The version is not visible yet."""
        if self.shared:
            files = [
                path.relative_to(source).as_posix()
                for path in source.rglob("*")
                if path.is_file() and not _is_hidden(path, source)
            ]
            self._trees.put(source, _key(name, version), files)

    def locate(self, tag: str) -> Path:
        """The folder of an exact `name:version` on this machine; it is downloaded if need be.

        Raises:
            ModelNotFound: There is no such version, or files of it are missing.
            ModelDamaged: What is stored is damaged.
            BackendUnavailable: The store cannot be used now, or another process's download of the
                same version does not end.
            InsufficientStorage: The disk is full.
        """
        name, version = split_tag(tag)
        if version is None or not self.shared:
            return locate(tag)
        return self.fetch(name, version)

    def fetch(self, name: str, version: str) -> Path:
        """The folder of a version on this machine. Raises as `locate`."""
        folder = self.store.folder(name, version)
        if not self.shared or self.is_here(name, version):
            return folder
        self.store.downloads.mkdir(parents=True, exist_ok=True)
        file = self.store.downloads / f"{name}-{version}.lock"
        try:
            # One process downloads; the others wait, and find the folder.
            with FileLock(file, timeout=DOWNLOAD_TIMEOUT):
                if not self.is_here(name, version):
                    self._download(name, version)
                file.unlink(missing_ok=True)
        except Timeout:
            raise BackendUnavailable(
                f"The model '{name}:{version}' is still being downloaded. Try again.", 30
            ) from None
        return folder

    def is_here(self, name: str, version: str) -> bool:
        """Whether the files of a version are on this machine."""
        folder = self.store.folder(name, version)
        return all((folder / file).is_file() for file in REQUIRED)

    def _download(self, name: str, version: str) -> None:
        started = time.monotonic()
        model_id = f"{name}:{version}"
        try:
            card = self.card(name, version)
            if (error := no_room_in(self.store.home, 0, card.size_bytes)) is not None:
                raise error
            with temporary_folder(self.store.downloads) as folder:
                self._trees.get(_key(name, version), folder / version)
                if content_hash(folder / version) != card.metadata.get("content"):
                    raise StoreDamaged(f"The files of {model_id} are not those of its card.")
                self.store.receive(folder / version, name, version, card.metadata)
        except TreeNotFound:
            raise ModelNotFound(
                f"No model '{model_id}' in the object store: it has been deleted. GET /models "
                "lists the others."
            ) from None
        except (StoreDamaged, FileNotFoundError) as error:
            raise ModelDamaged(f"The model '{model_id}' is damaged: {error}") from error
        log.info("Downloaded %s in %.1f s", model_id, time.monotonic() - started)

    # --- cards

    def card(self, name: str, version: str) -> Card:
        """The card of a version.

        Raises:
            TreeNotFound: There is none.
            StoreDamaged: It cannot be read.
        """
        try:
            found = json.loads(self._trees.get_bytes(_key(name, version)))
            return Card(found["metadata"], found["description"], found["size_bytes"])
        except (ValueError, KeyError, TypeError):
            raise StoreDamaged(f"The card of {name}:{version} cannot be read.") from None

    def write_card(self, name: str, version: str, card: Card) -> None:
        """Write a version's card, or replace it."""
        if self.shared:
            data = {
                "metadata": dict(card.metadata),
                "description": card.description,
                "size_bytes": card.size_bytes,
            }
            self._trees.put_bytes(_key(name, version), json.dumps(data, sort_keys=True).encode())

    def unpublish(self, name: str, version: str) -> None:
        """Mark a version whose row is about to be written or deleted.

        If this process is killed then, the row decides: `ModelTrees.pending` finds the mark.
        """
        if self.shared:
            self._trees.put_bytes(f"{UNPUBLISHED}/{name}/{version}", b"")

    def publish(self, name: str, version: str) -> None:
        """Take the mark of `unpublish` away: the row is written."""
        if self.shared:
            self._trees.delete_bytes(f"{UNPUBLISHED}/{name}/{version}")

    def pending(self) -> list[tuple[str, str]]:
        """Name and version of each version with the mark of `unpublish`."""
        return [_name_and_version(key) for key in self._trees.list_bytes(UNPUBLISHED)]

    def share_export(self, folder: Path, name: str, version: str, record: bytes) -> None:
        """Store an exported file, as `engines.store` does: a folder named by its id."""
        if self.shared:
            key = f"{EXPORTS}/{name}/{version}/{folder.name}"
            self._trees.put(folder, key)
            self._trees.put_bytes(key, record)

    def remove(self, name: str, version: str) -> None:
        """Delete all of a version and its exports, the mark last."""
        if self.shared:
            for key in self._trees.list(f"{EXPORTS}/{name}/{version}"):
                self._trees.delete_bytes(key)
                self._trees.delete(key)
            self._trees.delete(_key(name, version))
            self._trees.delete_bytes(_key(name, version))
            self.publish(name, version)

    # --- all versions

    def versions(self) -> set[tuple[str, str]]:
        """Name and version of each version with files, published or not."""
        return {_name_and_version(key) for key in self._trees.list(MODELS)}

    def cards(self) -> set[tuple[str, str]]:
        """Name and version of each version with a card, published or not."""
        return {_name_and_version(key) for key in self._trees.list_bytes(MODELS)}

    def remove_abandoned(self) -> list[str]:
        """Delete files of uploads that broke off; returns their `name:version`.

        The uploads of other machines have no card either; those are younger.
        """
        done = []
        if self.shared:
            before = time.time() - ABANDONED
            for name, version in sorted(self.versions() - self.cards()):
                if version_time(version) < before:
                    self._trees.delete(_key(name, version))
                    done.append(f"{name}:{version}")
        return done

    def write_promoted(self, name: str, version: str | None) -> None:
        """Store the promoted version of a name, for `reindex`; None: there is none."""
        if not self.shared:
            self.store.write_promoted(name, version)
        elif version is None:
            self._trees.delete_bytes(f"{PROMOTED}/{name}")
        else:
            self._trees.put_bytes(f"{PROMOTED}/{name}", version.encode())

    def read_promoted(self, name: str) -> str | None:
        """The promoted version of a name, as `write_promoted` stored it."""
        if not self.shared:
            return self.store.read_promoted(name)
        try:
            return self._trees.get_bytes(f"{PROMOTED}/{name}").decode(errors="replace")
        except TreeNotFound:
            return None


def located(tag: str, settings: Settings) -> Path:
    """The folder of an exact `name:version` on this machine, for processes without a registry.

    Raises as `ModelTrees.locate`.
    """
    return ModelTrees(open_trees(settings), ModelStore()).locate(tag)


def _key(name: str, version: str) -> str:
    return f"{MODELS}/{name}/{version}"


def _name_and_version(key: str) -> tuple[str, str]:
    _, name, version = key.split("/")
    return name, version


def _is_hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)
