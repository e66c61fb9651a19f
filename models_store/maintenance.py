"""Changes of rows and folders together: their lock, and repair after a crash or a lost database."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from filelock import Timeout
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from database import Database, now
from errors import BackendUnavailable, StoreDamaged
from models_store.description import ModelDescription
from models_store.shared.model_trees import ModelTrees
from models_store.shared.repair import published, shared_row, sweep_shared
from models_store.store import LOCK_TIMEOUT, MANIFEST, UNPUBLISHED, ModelStore, StoredModel
from models_store.tables import Promotion, PublishedModel, raise_generation

log = logging.getLogger(__name__)


def sweep(trees: ModelTrees, database: Database) -> list[str]:
    """Finish or undo interrupted changes; returns a sentence for each. Requires the store lock."""
    store, done = trees.store, []
    if count := store.clear_staging():
        done.append(f"Removed {count} unfinished folder(s).")
    for model in store.scan()[0]:
        if not model.unpublished:
            continue
        with database.read() as session:
            row = session.get(PublishedModel, (model.name, model.version))
        if row is not None:
            store.mark_published(model.name, model.version)
            done.append(f"Finished publishing {model.name}:{model.version}.")
        else:
            store.remove(model.name, model.version)
            done.append(
                f"Removed {model.name}:{model.version}, which was never published, or was deleted."
            )
    done += sweep_shared(trees, database)
    with database.read() as session:
        promoted = {row.name: row.version for row in session.scalars(select(Promotion))}
    for name, version in sorted(promoted.items()):
        there = trees.shared or store.folder(name, version).is_dir()
        if there and trees.read_promoted(name) != version:
            trees.write_promoted(name, version)
            done.append(f"Noted in the model store that {name}:{version} is promoted.")
    return done


def reindex(trees: ModelTrees, database: Database) -> list[str]:
    """Rebuild the rows from the store's folders, or the object store. Requires the store's lock.

    Rows without a folder are deleted, folders without a row get one, and promotions that the
    database lacks are read from the store.
    """
    done = sweep(trees, database)
    found: dict[tuple[str, str], Callable[[], PublishedModel]]
    if trees.shared:
        found = {key: partial(shared_row, trees, key) for key in published(trees)}
    else:
        stored, problems = trees.store.scan()
        done += [f"Skipped: {problem}" for problem in problems]
        found = {(model.name, model.version): partial(_row, model) for model in stored}
    with database.write() as session:
        rows = {(row.name, row.version): row for row in session.scalars(select(PublishedModel))}
        for key in sorted(rows.keys() - found.keys()):
            session.delete(rows[key])
            done.append(f"Removed the row of {key[0]}:{key[1]}: its folder is missing.")
        for key in sorted(found.keys() - rows.keys()):
            try:
                session.add(found[key]())
                done.append(f"Added {key[0]}:{key[1]}.")
            except (ValidationError, KeyError, StoreDamaged) as error:
                done.append(f"Skipped: {key[0]}:{key[1]} is unusable: {error}")
        session.flush()
        done += _reindex_promotions(trees, session)
        raise_generation(session)
    return done


def _reindex_promotions(trees: ModelTrees, session: Session) -> list[str]:
    done = []
    keys = {(row.name, row.version) for row in session.scalars(select(PublishedModel))}
    promotions = {row.name: row for row in session.scalars(select(Promotion))}
    for name, row in promotions.items():
        if (name, row.version) not in keys:
            session.delete(row)
            done.append(f"Removed the promotion of {name}:{row.version}, which does not exist.")
    for name in sorted({name for name, _ in keys} - promotions.keys()):
        version = trees.read_promoted(name)
        if version and (name, version) in keys:
            set_promoted(session, name, version)
            done.append(f"Promoted {name}:{version}, as recorded in the model store.")
    return done


def _row(model: StoredModel) -> PublishedModel:
    return as_row(model, ModelDescription.load(model.path))


def present(store: ModelStore, database: Database) -> set[str]:
    """Every `name:version` that has a row or a folder, usable or not."""
    with database.read() as session:
        rows = session.execute(select(PublishedModel.name, PublishedModel.version))
        found = {f"{name}:{version}" for name, version in rows}
    folders = (path for path in store.models.glob("*/*") if path.is_dir())
    return found | {f"{path.parent.name}:{path.name}" for path in folders}


def delete_stray_files(store: ModelStore, database: Database) -> list[str]:
    """Delete exports and engines of versions that are gone; returns a sentence for each version.

    One is left if its version was deleted while it was made.
    """
    known, done = present(store, database), []
    paths = database.settings.paths
    for what, root in (("exports", paths.exports), ("engines", paths.engines)):
        for folder in root.glob("*/*/"):
            model_id = f"{folder.parent.name}:{folder.name}"
            if model_id not in known:
                shutil.rmtree(folder, ignore_errors=True)
                done.append(f"Removed the {what} of {model_id}, which does not exist.")
    return done


@contextmanager
def writing(database: Database, store: ModelStore) -> Iterator[None]:
    """The lock of all who write models, on whatever machine, then the one of this store.

    Raises:
        BackendUnavailable: Another process held one of them for longer than LOCK_TIMEOUT.
    """
    lock = database.exclusive("models")
    try:
        lock.acquire(LOCK_TIMEOUT)
    except Timeout as error:
        raise BackendUnavailable("The model store is busy; try again.", 10) from error
    try:
        with store.lock():
            yield
    finally:
        lock.release()


@contextmanager
def repaired_later() -> Iterator[None]:
    """A context that writes to the store what the database has committed already.

    If that fails, as on a full disk, the change is valid all the same; `sweep` repeats the writes.
    """
    try:
        yield
    except (OSError, BackendUnavailable) as error:
        log.warning("The model store is written at the next start: %s", error)


def as_row(model: StoredModel, description: ModelDescription) -> PublishedModel:
    """The row of a version, from its folder and metadata."""
    return PublishedModel(
        name=model.name,
        version=model.version,
        created_at=model.metadata["created_at"],
        size_bytes=_size(model.path),
        description=description.model_dump_json(),
        source=model.metadata["source"],
        metrics=model.metadata["metrics"],
        content=model.metadata["content"],
    )


def set_promoted(session: Session, name: str, version: str) -> None:
    """Set the promoted version of a name."""
    row = session.get(Promotion, name)
    if row is None:
        session.add(Promotion(name=name, version=version))
    else:
        row.version, row.promoted_at = version, now()


def _size(folder: Path) -> int:
    """Bytes of a version's files, without BentoML's manifest and the unpublished mark."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if file.name not in (MANIFEST, UNPUBLISHED))
