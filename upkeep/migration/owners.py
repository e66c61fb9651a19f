"""The kinds of trees that a home has, each stored and fetched by the code that owns it."""

from __future__ import annotations

import contextlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from database import Database
from dataset.revisions import CARD, IMAGES
from dataset.shared import uploads
from dataset.shared.datasets import DATASETS, SharedDatasets
from engines.store import RECORD
from errors import Conflict
from evaluation.store import EvaluationRow, EvaluationStore
from files import atomic_write, temporary_folder
from home_paths import HomePaths
from jobs.job import Job
from jobs.logs.shared_logs import Chunk, SharedLogs, delete_log
from jobs.lost_jobs import JOBS
from jobs.shared_folders import JobFolders, kept_key, resumed_from, state_key
from jobs.states import FINAL
from models_store.names import split_tag
from models_store.shared.model_trees import MODELS, PROMOTED, UNPUBLISHED, ModelTrees
from models_store.shared.repair import card_of
from models_store.store import COPY, REQUIRED
from models_store.tables import Promotion, PublishedModel
from monitoring import kept_images
from storage.trees import TreeStore
from upkeep.migration.kinds import Kind, Place, content
from upkeep.migration.migrate import Sides

EXPORTS = "exports"  # first word of the keys of exported files
EVALUATIONS = "evaluations"
LOG = "log"  # file in a job's folder
PIECE = 2**18  # bytes of a log in a row
ALL = "all"  # the only key of a kind that is one folder


def kinds(found: Sides, source: Database, target: Database) -> Sequence[Kind]:
    """Every kind of tree of a migration.

    Args:
        found: Both sides.
        source, target: Their databases.
    """
    trees = found.trees
    return [
        Models(trees, source),
        Datasets(trees, source, target),
        Jobs(trees, source, target),
        Uploads(found, source),
        Evaluations(found, source),
        Exports(trees, found.home.paths, source),
        Kept(trees, found.home.paths),
    ]


class Whole(ABC):
    """A kind of which all files are the same on both sides."""

    @abstractmethod
    def folder(self, key: str, place: Place) -> Path:
        """The folder of the tree with this key."""

    def content(self, key: str, place: Place) -> tuple[str, int]:
        return content(self.folder(key, place))


@dataclass(frozen=True)
class Models(Whole):
    """Published versions of models."""

    trees: TreeStore
    source: Database
    name: str = "models"
    prefixes: tuple[str, ...] = (MODELS, UNPUBLISHED, PROMOTED)

    def keys(self) -> list[str]:
        with self.source.read() as session:
            rows = session.execute(select(PublishedModel.name, PublishedModel.version))
            return sorted(f"{name}:{version}" for name, version in rows)

    def folder(self, key: str, place: Place) -> Path:
        return place.models.folder(*_name_and_version(key))

    def upload(self, key: str, place: Place) -> None:
        name, version = _name_and_version(key)
        folder = self.folder(key, place)
        if missing := [file for file in REQUIRED if not (folder / file).is_file()]:
            raise Conflict(
                f"The model {key} lacks {', '.join(missing)} in {folder}. Restore it from a "
                "backup, or delete it, and run the migration again."
            )
        shared = ModelTrees(self.trees, place.models)
        shared.upload(folder, name, version)
        with self.source.read() as session:
            shared.write_card(
                name, version, card_of(session.get_one(PublishedModel, (name, version)))
            )
        if self._promoted(name) == version:
            shared.write_promoted(name, version)

    def download(self, key: str, place: Place) -> None:
        name, version = _name_and_version(key)
        ModelTrees(self.trees, place.models).fetch(name, version)
        (self.folder(key, place) / COPY).unlink(missing_ok=True)  # without a store it is no copy
        place.models.write_promoted(name, self._promoted(name))

    def _promoted(self, name: str) -> str | None:
        with self.source.read() as session:
            return session.scalar(select(Promotion.version).where(Promotion.name == name))


@dataclass(frozen=True)
class Datasets(Whole):
    """Datasets with their revisions, and images of annotated ones that are in none yet."""

    trees: TreeStore
    source: Database
    target: Database
    name: str = "datasets"
    prefixes: tuple[str, ...] = (DATASETS,)

    def keys(self) -> list[str]:
        if self.source.settings.store_url is None:
            top = self.source.settings.paths.datasets
            found = top.iterdir() if top.is_dir() else ()
            return sorted(path.name for path in found if path.name[:1] != "." and path.is_dir())
        images = {key.split("/")[1] for key in self.trees.list_bytes(DATASETS)}
        return sorted(images | SharedDatasets(self.source, self.trees).ids())

    def folder(self, key: str, place: Place) -> Path:
        return place.home.datasets / key

    def upload(self, key: str, place: Place) -> None:
        folder = self.folder(key, place)
        shared = self._shared(place)
        with temporary_folder(place.home.root) as scratch:  # so that nothing is deleted here
            if shared.card(key) is not None:
                self._shared(Place(HomePaths(scratch), place.models)).delete(key)
        _note(folder).unlink(missing_ok=True)
        try:
            card = json.loads((folder / CARD).read_bytes())
        except FileNotFoundError:
            for image in sorted((folder / IMAGES).glob("*")):
                shared.keep_image(key, image.name, image.read_bytes())
        else:
            shared.publish(key, card)
            _note(folder).unlink(missing_ok=True)

    def download(self, key: str, place: Place) -> None:
        folder = self.folder(key, place)
        shared = self._shared(place)
        if shared.card(key) is not None:
            shared.local(key)
            _note(folder).unlink(missing_ok=True)
        for image in self.trees.list_bytes(f"{DATASETS}/{key}"):
            file = folder / IMAGES / image.rpartition("/")[2]
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(file, self.trees.get_bytes(image))

    def _shared(self, place: Place) -> SharedDatasets:
        """The rows of the cluster's datasets, and their copies in a home."""
        cluster = self.source if self.source.settings.store_url else self.target
        return SharedDatasets(_in_home(cluster, place), self.trees)


def _note(folder: Path) -> Path:
    """What `SharedDatasets` knows of a copy."""
    return folder.with_name(f".{folder.name}.shared")


@dataclass(frozen=True)
class Jobs:
    """What jobs resume from, what is kept of those that have ended, and logs."""

    trees: TreeStore
    source: Database
    target: Database
    name: str = "jobs"
    prefixes: tuple[str, ...] = (JOBS,)

    def keys(self) -> list[str]:
        with self.source.read() as session:
            return sorted(session.scalars(select(Job.id)))

    def folder(self, key: str, place: Place) -> Path:
        return place.home.jobs / key

    def content(self, key: str, place: Place) -> tuple[str, int]:
        folder = self.folder(key, place)
        log = folder / LOG
        written = [LOG] if log.is_file() and log.stat().st_size else []
        return content(folder, [*resumed_from(folder), *written])

    def upload(self, key: str, place: Place) -> None:
        folder = self.folder(key, place)
        with self.source.read() as session:
            job = session.scalars(select(Job).where(Job.id == key)).one()
        if files := list(resumed_from(folder)):
            tree = kept_key(key) if job.is_final else state_key(key, job.attempts)
            self.trees.put(folder, tree, files)
        with self.target.write() as session:
            delete_log(session, key)  # of an interrupted upload
        if (folder / LOG).is_file():
            with (folder / LOG).open("rb") as log:
                while piece := log.read(PIECE):
                    SharedLogs(self.target).append(key, [Chunk(piece)])

    def download(self, key: str, place: Place) -> None:
        folder = self.folder(key, place)
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted download left
        folder.mkdir(mode=0o700, parents=True)
        there = _in_home(self.source if self.source.settings.store_url else self.target, place)
        JobFolders(there.settings).have_kept(key)
        SharedLogs(there).copy(key, folder / LOG)
        (folder / f".{LOG}.lock").unlink(missing_ok=True)


@dataclass(frozen=True)
class Uploads(Whole):
    """Files that clients uploaded for jobs which have not ended."""

    found: Sides
    source: Database
    name: str = "uploads"
    prefixes: tuple[str, ...] = (uploads.UPLOADS,)

    def keys(self) -> list[str]:
        top = self.found.home.paths.uploads.resolve()
        with self.source.read() as session:
            recipes = session.scalars(select(Job).where(Job.status.not_in(FINAL)))
            paths = [Path(text).resolve() for job in recipes for text in _paths(job.recipe)]
        inside = [path.relative_to(top) for path in paths if path.is_relative_to(top)]
        return sorted({path.parts[0] for path in inside if path.parts})

    def folder(self, key: str, place: Place) -> Path:
        return place.home.uploads / key

    def upload(self, key: str, place: Place) -> None:
        uploads.share(self.folder(key, place), self.found.cluster)

    def download(self, key: str, place: Place) -> None:
        uploads.have(self.folder(key, place), self.found.cluster)


@dataclass(frozen=True)
class Evaluations(Whole):
    """Reports of evaluations, with plots, predictions and the worst images."""

    found: Sides
    source: Database
    name: str = "evaluations"
    prefixes: tuple[str, ...] = (EVALUATIONS,)

    def keys(self) -> list[str]:
        with self.source.read() as session:
            return sorted(session.scalars(select(EvaluationRow.id)))

    def folder(self, key: str, place: Place) -> Path:
        return place.home.evaluations / key

    def upload(self, key: str, place: Place) -> None:
        self._store(place).share(self._row(key))

    def download(self, key: str, place: Place) -> None:
        self._store(place).files(self._row(key))

    def _store(self, place: Place) -> EvaluationStore:
        shared = copy(self.source)
        shared.settings = self.found.cluster
        return EvaluationStore(_in_home(shared, place))

    def _row(self, key: str) -> EvaluationRow:
        with self.source.read() as session:
            return session.scalars(select(EvaluationRow).where(EvaluationRow.id == key)).one()


@dataclass(frozen=True)
class Exports(Whole):
    """Exported files of models."""

    trees: TreeStore
    home: HomePaths
    source: Database
    name: str = "exports"
    prefixes: tuple[str, ...] = (EXPORTS,)

    def keys(self) -> list[str]:
        if self.source.settings.store_url is not None:
            return [key.partition("/")[2] for key in self.trees.list_bytes(EXPORTS)]
        records = self.home.exports.glob(f"*/*/*/{RECORD}")
        return sorted(file.parent.relative_to(self.home.exports).as_posix() for file in records)

    def folder(self, key: str, place: Place) -> Path:
        return place.home.exports / key

    def upload(self, key: str, place: Place) -> None:
        folder = self.folder(key, place)
        self.trees.put(folder, f"{EXPORTS}/{key}")
        self.trees.put_bytes(f"{EXPORTS}/{key}", (folder / RECORD).read_bytes())

    def download(self, key: str, place: Place) -> None:
        self.trees.get(f"{EXPORTS}/{key}", self.folder(key, place))


@dataclass(frozen=True)
class Kept(Whole):
    """Images that were kept from live traffic: one folder of the home."""

    trees: TreeStore
    home: HomePaths
    name: str = "kept images"
    prefixes: tuple[str, ...] = (kept_images.IMAGES, kept_images.CARDS)

    def keys(self) -> list[str]:
        return [ALL]

    def folder(self, key: str, place: Place) -> Path:
        return place.home.kept_images

    def upload(self, key: str, place: Place) -> None:
        folder = self.folder(key, place)
        for card in sorted(folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):
                image = card.with_suffix(".image").read_bytes()
                self.trees.put_bytes(f"{kept_images.IMAGES}/{card.stem}", image)
                self.trees.put_bytes(f"{kept_images.CARDS}/{card.stem}", card.read_bytes())

    def download(self, key: str, place: Place) -> None:
        folder = self.folder(key, place)
        for card in self.trees.list_bytes(kept_images.CARDS):
            name = card.rpartition("/")[2]
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            image = self.trees.get_bytes(f"{kept_images.IMAGES}/{name}")
            atomic_write(folder / f"{name}.image", image)
            atomic_write(folder / f"{name}.json", self.trees.get_bytes(card))


def _paths(value: Any) -> Iterator[str]:
    """The absolute paths in a recipe."""
    if isinstance(value, str) and value.startswith("/"):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _paths(part)


def _in_home(database: Database, place: Place) -> Database:
    """The same rows, beside other folders."""
    there = copy(database)
    there.settings = database.settings.model_copy(update={"home": place.home.root})
    return there


def _name_and_version(key: str) -> tuple[str, str]:
    name, version = split_tag(key)
    assert version is not None
    return name, version
