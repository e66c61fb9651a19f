"""Datasets that several machines share: rows say which there are, objects in S3 have their files.

VISIONLOOP_HOME/datasets is a cache then. A change is made in a copy that is as new as the row,
under a lock across machines; its files are uploaded, and then the row says so. Readers ask `local`
for an up-to-date copy.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import delete, select

from database import Database, now
from dataset import image_scan
from dataset.revisions import CARD, FIRST_CARD, IMAGES, Revision, list_revisions, revision_from
from dataset.shared import parts
from dataset.shared.parts import Part
from dataset.shared.tables import SharedDataset
from disk_space import NO_ROOM, is_disk_full
from errors import BackendUnavailable, Conflict, InsufficientStorage, VisionLoopError
from exclusive import Exclusive
from files import atomic_write
from storage.deletion import LATER, delete_each
from storage.place import open_trees
from storage.trees import TreeNotFound, TreeStore

log = logging.getLogger(__name__)

DATASETS = "datasets"  # first word of the keys: datasets/ID/TIME-RANDOM, datasets/ID/NAME of images
CHANGE_TIMEOUT = 300.0  # seconds to wait for another process that changes the same dataset
FETCH_TIMEOUT = 600.0  # seconds to wait for another process here that downloads the same dataset
ATTEMPTS = 5  # to download a dataset, which others may change meanwhile
MIN_AGE = 86_400.0  # seconds; a younger object may belong to an upload that goes on


@dataclass
class _Copy:
    """What is known of the copy on this machine.

    Attributes:
        number: As in the row when it was made; 0: there is none.
        parts: Key of a part → its `inside`.
        files: The files that are in a part.
    """

    number: int = 0
    parts: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class LostObject:
    """An object that no row refers to; `small`: it is an image's file, not a tree."""

    key: str
    small: bool = False


class SharedDatasets:
    """The datasets of all machines; safe to share between threads and processes.

    All methods block: call them off the event loop. Those that read or write objects raise
    StoreUnavailable or StoreRefused, after retries of about ten seconds.
    """

    def __init__(self, database: Database, trees: TreeStore) -> None:
        self._database = database
        self._trees = trees
        self._folder = database.settings.paths.datasets
        self._temporary = database.settings.paths.uploads

    # --- rows

    def list(self) -> list[dict[str, Any]]:
        """The cards of all datasets, in no order."""
        with self._database.read() as session:
            return list(session.scalars(select(SharedDataset.card)))

    def ids(self) -> frozenset[str]:
        """The ids of all datasets."""
        with self._database.read() as session:
            return frozenset(session.scalars(select(SharedDataset.id)))

    def card(self, dataset_id: str) -> dict[str, Any] | None:
        """The card of a dataset; None if there is no such dataset."""
        row = self._row(dataset_id)
        return None if row is None else row.card

    def first_card(self, dataset_id: str) -> dict[str, Any] | None:
        """The card with which it was uploaded, if another has replaced it."""
        row = self._row(dataset_id)
        return None if row is None else row.first_card

    def revisions(self, dataset_id: str) -> Sequence[Revision]:
        """The revisions of a dataset, newest first."""
        row = self._row(dataset_id)
        found = row.revisions if row is not None else []
        return [one for values in found if (one := revision_from(values)) is not None]

    def all_revisions(self) -> Iterator[tuple[str, Sequence[Revision]]]:
        """The id and the revisions, newest first, of each dataset."""
        with self._database.read() as session:
            rows = list(session.execute(select(SharedDataset.id, SharedDataset.revisions)))
        for dataset_id, found in rows:
            yield dataset_id, [one for row in found if (one := revision_from(row)) is not None]

    def _row(self, dataset_id: str) -> SharedDataset | None:
        with self._database.read() as session:
            return session.get(SharedDataset, dataset_id)

    # --- copies

    def local(self, dataset_id: str) -> Path:
        """The dataset's folder on this machine, complete and as new as its row.

        It is downloaded first if need be, once for all who wait. The copy of a dataset that was
        deleted is deleted.

        Raises:
            BackendUnavailable: Another process has been downloading it for too long.
            StoreDamaged: What is stored is not what was put.
            InsufficientStorage: The disk is full.
        """
        folder = self._folder / dataset_id
        query = select(SharedDataset.number).where(SharedDataset.id == dataset_id)
        with self._database.read() as session:
            number = session.scalar(query)
        if self._copy_number(dataset_id) != (number or 0):
            try:
                with FileLock(self._beside(dataset_id, "fetch.lock"), timeout=FETCH_TIMEOUT):
                    self._renew(dataset_id)
            except Timeout:
                raise BackendUnavailable(
                    f"'{dataset_id}' is being downloaded from the object store. Try again later."
                ) from None
            except OSError as error:
                if is_disk_full(error):
                    raise InsufficientStorage(NO_ROOM) from error
                raise
        return folder

    def _renew(self, dataset_id: str) -> None:
        folder = self._folder / dataset_id
        for attempt in range(ATTEMPTS):
            copy, row = self._copy(dataset_id), self._row(dataset_id)
            if row is None:
                if copy.number:
                    self._drop(dataset_id)
                return
            if copy.number == row.number:
                return
            folder.mkdir(parents=True, exist_ok=True)
            wanted = [Part(*values) for values in row.parts]
            try:
                for part in wanted:
                    if part.key not in copy.parts:
                        parts.fetch(part, folder, self._trees, self._temporary)
            except TreeNotFound:  # replaced or deleted meanwhile: the row has changed
                if attempt + 1 == ATTEMPTS:
                    raise
                time.sleep(0.1 * (attempt + 1))
                continue
            kept = {part.key for part in wanted}
            for key, inside in copy.parts.items():
                if key not in kept and inside:
                    shutil.rmtree(folder / inside, ignore_errors=True)
            parts.write_json(folder / CARD, row.card)
            inside_of = {part.key: part.inside for part in wanted}
            self._note(dataset_id, _Copy(row.number, inside_of, set(parts.files_in(folder))))
            log.info("The dataset %s was downloaded: change %d.", dataset_id, row.number)
            return

    def _drop(self, dataset_id: str) -> None:
        """Delete the copy of a dataset."""
        self._beside(dataset_id, "shared").unlink(missing_ok=True)
        folder = self._folder / dataset_id
        with contextlib.suppress(OSError, ValueError, KeyError):
            described = json.loads((folder / CARD).read_bytes())["description"]
            image_scan.forget((folder / described).parent)
        shutil.rmtree(folder, ignore_errors=True)
        index = self._database.settings.paths.image_index / dataset_id
        shutil.rmtree(index, ignore_errors=True)

    # --- changes

    @contextmanager
    def changing(self, dataset_id: str, timeout: float = CHANGE_TIMEOUT) -> Iterator[Path]:
        """Context in which nobody else on any machine changes a dataset; its folder, up to date.

        Raises:
            filelock.Timeout: Others have been changing it for `timeout` seconds.
        """
        with self._lock(dataset_id, timeout):
            yield self.local(dataset_id)

    def _lock(self, dataset_id: str, timeout: float) -> Exclusive:
        return self._database.exclusive(f"dataset-{dataset_id}", timeout, across_homes=True)

    def publish(self, dataset_id: str, card: Mapping[str, Any]) -> None:
        """Upload what the folder here has anew, then say so in the row, with a new card.

        Call it in `changing`, or for a new dataset. If it raises, the row is as it was.

        Raises:
            BackendUnavailable: The dataset has been changed or deleted meanwhile.
        """
        folder = self._folder / dataset_id
        copy = self._copy(dataset_id)
        found = parts.files_in(folder)
        row = self._row(dataset_id)
        if (row.number if row else 0) != copy.number:
            raise _changed(dataset_id)
        before = [Part(*values) for values in row.parts] if row else []
        stays = [p for p in before if not p.inside or (folder / p.inside).is_dir()]
        added: list[Part] = []
        try:
            new_key = partial(_new_key, dataset_id)
            added.extend(parts.store(folder, found, copy.files, self._trees, new_key))
            number = copy.number + 1
            kept = {part.key: part.inside for part in (*stays, *added)}
            if not copy.number:  # so that it is no copy of its own if the row is not written
                self._note(dataset_id, _Copy(number, kept, set(found)))
            self._write_row(dataset_id, copy.number, card, [*stays, *added])
        except BaseException:
            if not copy.number:
                self._beside(dataset_id, "shared").unlink(missing_ok=True)
            self._delete_objects(part.key for part in added)
            raise
        self._note(dataset_id, _Copy(number, kept, set(found)))
        self._delete_objects(part.key for part in before if part.key not in kept)
        fresh = [name for name in found.keys() - copy.files if name.startswith(f"{IMAGES}/")]
        self._delete_images(dataset_id, fresh)

    def _write_row(
        self, dataset_id: str, before: int, card: Mapping[str, Any], all_parts: Iterable[Part]
    ) -> None:
        folder = self._folder / dataset_id
        first: dict[str, Any] | None = None
        with contextlib.suppress(OSError, ValueError):
            first = json.loads((folder / FIRST_CARD).read_bytes())
        revisions = [asdict(revision) for revision in list_revisions(folder)]
        with self._database.write() as session:
            row = session.get(SharedDataset, dataset_id)
            if (row.number if row else 0) != before:
                raise _changed(dataset_id)
            session.merge(
                SharedDataset(
                    id=dataset_id,
                    number=before + 1,
                    card=dict(card),
                    first_card=first,
                    revisions=revisions,
                    parts=[list(astuple(part)) for part in all_parts],
                    updated_at=now(),
                )
            )

    def delete(self, dataset_id: str) -> bool:
        """Delete a dataset everywhere; returns whether there was one.

        Other machines delete their copies when they look next.

        Raises:
            Conflict: It is being changed.
        """
        try:
            with self._lock(dataset_id, 10.0):
                with self._database.write() as session:
                    rows = delete(SharedDataset).where(SharedDataset.id == dataset_id)
                    found = session.execute(rows.returning(SharedDataset.id)).first() is not None
                self._drop(dataset_id)
        except Timeout:
            raise Conflict(f"'{dataset_id}' is being changed. Try again later.") from None
        try:
            self._delete_all_objects(dataset_id)
        except VisionLoopError as error:  # `lost` finds them later
            log.warning("The deleted dataset %s is still stored: %s %s", dataset_id, error, LATER)
        return found

    # --- images that no part has yet

    def keep_image(self, dataset_id: str, name: str, data: bytes) -> None:
        """Store an image's file before a row refers to it; `publish` puts it into a part.

        Args:
            dataset_id: Id of the dataset, which may have no row yet.
            name: The file's name in the folder of images: the SHA-256 and the suffix.
            data: Its content.
        """
        self._trees.put_bytes(f"{DATASETS}/{dataset_id}/{name}", data)

    def have_images(self, dataset_id: str, files: Iterable[Path]) -> None:
        """Download those images' files of a dataset that are not on this machine.

        Images that are nowhere stay missing.
        """
        missing = [file for file in files if not file.is_file()]
        if not missing:
            return
        self.local(dataset_id)
        lost = [file for file in missing if not (file.is_file() or self._have(dataset_id, file))]
        if lost and self._copy_number(dataset_id):
            # Deleted here, or put into a part this moment: all parts are looked through.
            with FileLock(self._beside(dataset_id, "fetch.lock"), timeout=FETCH_TIMEOUT):
                self._beside(dataset_id, "shared").unlink(missing_ok=True)
                self._renew(dataset_id)

    def _have(self, dataset_id: str, file: Path) -> bool:
        try:
            data = self._trees.get_bytes(f"{DATASETS}/{dataset_id}/{file.name}")
        except TreeNotFound:
            return False
        atomic_write(file, data)
        return True

    # --- objects

    def lost(self, known: Iterable[str], min_age: float = MIN_AGE) -> Sequence[LostObject]:
        """Objects that no row refers to: of uploads that were killed, of deleted datasets.

        Args:
            known: Ids of the datasets whose annotations are stored, with a row here or without.
            min_age: Age in seconds from which an unfinished upload counts as killed, and an image
                as one that no annotation will name.
        """
        # A younger image may be one whose annotation is written this moment.
        trees, images = self._trees.list(DATASETS), self._trees.list_bytes(DATASETS, min_age)
        with self._database.read() as session:  # after the objects: what is newer is not listed
            rows = session.execute(select(SharedDataset.id, SharedDataset.parts))
            used = {dataset_id: {values[0] for values in found} for dataset_id, found in rows}
        keys = {key for found in used.values() for key in found}
        owners = {*known, *used}
        return [
            *(LostObject(key) for key in trees if key not in keys and _age(key) > min_age),
            *(LostObject(key, True) for key in images if key.split("/")[1] not in owners),
        ]

    def delete_lost(self, found: LostObject) -> None:
        """Delete one of `lost`. No row can refer to it later: keys are never used again."""
        if found.small:
            self._trees.delete_bytes(found.key)
        else:
            self._trees.delete(found.key)

    def _delete_objects(self, keys: Iterable[str]) -> None:
        try:
            delete_each(keys, self._trees.delete)
        except VisionLoopError as error:  # `lost` finds them later
            log.warning("Old parts of a dataset are still stored: %s %s", error, LATER)

    def _delete_images(self, dataset_id: str, names: Iterable[str]) -> None:
        found = {f"{DATASETS}/{dataset_id}/{Path(name).name}" for name in names}
        try:
            stored = found.intersection(self._trees.list_bytes(f"{DATASETS}/{dataset_id}"))
            delete_each(stored, self._trees.delete_bytes)
        except VisionLoopError as error:
            log.warning("Old images of the dataset %s are still stored: %s", dataset_id, error)

    def _delete_all_objects(self, dataset_id: str) -> None:
        prefix = f"{DATASETS}/{dataset_id}"
        trees, images = self._trees.list(prefix), self._trees.list_bytes(prefix)
        found = [*map(LostObject, trees), *(LostObject(key, True) for key in images)]
        delete_each(found, self.delete_lost)

    # --- what is known of the copy here

    def _beside(self, dataset_id: str, what: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f".{dataset_id}.{what}"

    def _copy_number(self, dataset_id: str) -> int:
        try:
            with self._beside(dataset_id, "shared").open(encoding="utf-8") as lines:
                return int(json.loads(next(lines))["number"])
        except (OSError, ValueError, KeyError, StopIteration):
            return 0

    def _copy(self, dataset_id: str) -> _Copy:
        try:
            with self._beside(dataset_id, "shared").open(encoding="utf-8") as lines:
                head = json.loads(next(lines))
                return _Copy(head["number"], head["parts"], set(map(json.loads, lines)))
        except (OSError, ValueError, KeyError, StopIteration):
            return _Copy()

    def _note(self, dataset_id: str, copy: _Copy) -> None:
        head = json.dumps({"number": copy.number, "parts": copy.parts})
        lines = [head, *map(json.dumps, sorted(copy.files))]
        atomic_write(self._beside(dataset_id, "shared"), "\n".join(lines) + "\n")


def shared_datasets(database: Database) -> SharedDatasets | None:
    """The datasets of all machines; None if there is no object store."""
    trees = open_trees(database.settings)
    return SharedDatasets(database, trees) if trees.shared else None


def _changed(dataset_id: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"'{dataset_id}' was changed or deleted on another machine meanwhile. Nothing was changed. "
        "Try again."
    )


def _new_key(dataset_id: str) -> str:
    return f"{DATASETS}/{dataset_id}/{int(time.time()):x}-{secrets.token_hex(6)}"


def _age(key: str) -> float:
    """Seconds since a key was made; 0 if it does not say so."""
    with contextlib.suppress(ValueError):
        return time.time() - int(key.rpartition("/")[2].partition("-")[0], 16)
    return 0.0
