"""Writes a backup of a home and its models, while a server runs.

SQLite copies its database consistently. The files that the copy refers to are read afterwards, and
then the database itself is compared with the copy: if nothing that has files was deleted meanwhile,
copy and files fit each other. Otherwise the database is copied again; files that were read already
are not read anew, so that each pass is shorter than the one before.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine

from database import client_errors, now
from disk_space import MIB, free_bytes, is_disk_full
from errors import (
    Conflict,
    DatabaseBusy,
    DatabaseDamaged,
    Forbidden,
    InsufficientStorage,
    ValidationFailed,
)
from home_paths import unfinished_restore
from models_store.store import ModelStore
from settings import Settings
from shell import size
from source_tree import VERSION
from upkeep.collect import Collected, Collector, measured
from upkeep.identity import identity_of, names_of
from upkeep.manifest import DATABASE, FORMAT, Entry, Header, Manifest
from upkeep.state import State, read_state
from upkeep.storage import (
    FolderWriter,
    check_target,
    no_progress,
    opened,
    verify,
    writer,
    written_in,
)

PASSES = 50  # copies of the database, each made because something was deleted since the last one
BUSY_TIMEOUT = 30.0  # seconds to wait for a process that locks the SQLite file
LISTED = 5  # examples in a note

Stage = Callable[[str, int], Callable[[int], None]]
"""Called at the beginning of a stage with its name and its bytes; returns a progress function."""


def quiet(name: str, total: int) -> Callable[[int], None]:
    """A `Stage` that shows nothing."""
    return no_progress


@dataclass(frozen=True)
class Result:
    """What a backup holds.

    Attributes:
        path: Where it is.
        header: The header of its manifest.
        linked: Bytes that it shares with an earlier backup.
        passes: Number of copies of the database that were made.
    """

    path: Path
    header: Header
    linked: int
    passes: int


def backup(
    settings: Settings,
    target: Path,
    onto: Path | None = None,
    stage: Stage = quiet,
    store: ModelStore | None = None,
) -> Result:
    """Write a backup, and read it again.

    Args:
        settings: Name the home and the database.
        target: A new folder, or a new file with the suffix `.zip`.
        onto: An earlier backup in a folder, whose equal files are hard-linked.
        stage: Shows the progress.
        store: The model store; default: that of BENTOML_HOME.

    Raises:
        Conflict: The target exists, lies inside what is copied, or things are deleted faster than
            they are copied.
        NotFound: There is no home.
        InsufficientStorage: The target's disk has too little room.
        DatabaseDamaged: The database is damaged.
    """
    store = store or ModelStore()
    target = Path(os.path.abspath(target))
    _check_places(settings, store, target)
    check_target(target, onto)
    with _live(settings) as connection:
        state = read_state(connection)
    expected = measured(settings.paths, store, state)
    _check_room(target, expected, onto)
    with _full_disk_named(target), writer(target, onto, stage("copying", expected)) as made:
        manifest, passes = _passes(settings, store, made)
        made.finish(manifest)
        verify(written_in(made, target), stage("verifying", manifest.header.bytes))
    return Result(target, manifest.header, made.linked, passes)


def _passes(settings: Settings, store: ModelStore, made: FolderWriter) -> tuple[Manifest, int]:
    collector = Collector(settings.paths, store, made)
    missing: list[str] | None = None
    for number in range(1, PASSES + 1):
        created_at = now()
        entry, state = _database(settings, made)
        found = collector.collect(state)
        with _locked(settings) as connection:
            lost = state.lost_in(read_state(connection))
        # What is missing in two passes was missing before: the home itself lacks it.
        if not lost and (not found.missing or found.missing == missing):
            return _manifest(settings, store, created_at, state, entry, found), number
        missing = found.missing if not lost else None
    raise Conflict(
        f"Models, jobs or datasets are deleted faster than they can be copied: after {PASSES} "
        f"passes these had gone again: {', '.join((lost or found.missing)[:LISTED])}. Try again at "
        "a quieter time."
    )


# --- the database


def _database(settings: Settings, made: FolderWriter) -> tuple[Entry | None, State]:
    """Copy the database into the backup. Returns its entry and state; no entry if not SQLite."""
    source = sqlite_file(settings)
    if source is None:
        with _live(settings) as connection:
            return None, read_state(connection)
    copy = made.folder / "database.copy"
    copy_sqlite(source, copy)
    try:
        with closing_engine(copy) as connection:
            state = read_state(connection)
        with copy.open("rb") as file:
            sha256, size = made.add(file, copy.stat().st_size)
    finally:
        copy.unlink()
    return Entry(DATABASE, sha256, size), state


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a SQLite database consistently while others write to it, and check the copy.

    Raises:
        DatabaseBusy: Another process locks it.
        DatabaseDamaged: A page of it is damaged.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(source, timeout=BUSY_TIMEOUT)) as origin,
            closing(sqlite3.connect(target)) as copy,
        ):
            origin.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise DatabaseBusy(f"The database cannot be copied: {error}. Try again.") from error
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise DatabaseDamaged(
            f"The database is damaged ({found}), and a backup of it would be too. Restore an "
            "earlier backup (docs/how-to/back-up.md); copy the two folders by hand before you do."
        )


def sqlite_file(settings: Settings) -> Path | None:
    """The database's file; None if it is another database than SQLite."""
    url = settings.sqlalchemy_url
    if url.get_backend_name() != "sqlite":
        return None
    return Path(str(url.database))


@contextmanager
def closing_engine(url: Path | URL) -> Iterator[Connection]:
    """A connection to a database, or to a SQLite file, which is not migrated by it."""
    options = {}
    if isinstance(url, Path):
        url, options = URL.create("sqlite", database=str(url)), {"timeout": BUSY_TIMEOUT}
    engine = create_engine(url, connect_args=options)
    try:
        with client_errors(), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _live(settings: Settings) -> Iterator[Connection]:
    """A connection to the database in use; it is not migrated."""
    with closing_engine(sqlite_file(settings) or settings.sqlalchemy_url) as connection:
        yield connection


@contextmanager
def _locked(settings: Settings) -> Iterator[Connection]:
    """As `_live`, after every write transaction that has begun: files are deleted in some."""
    with _live(settings) as connection:
        if connection.dialect.name == "sqlite":
            driver = connection.connection.dbapi_connection
            assert driver is not None
            driver.cursor().execute("BEGIN IMMEDIATE")
        yield connection


# --- the manifest


def _manifest(
    settings: Settings,
    store: ModelStore,
    created_at: str,
    state: State,
    database: Entry | None,
    found: Collected,
) -> Manifest:
    entries = tuple(found.entries.values())
    if database is not None:
        entries = (database, *entries)
    header = Header(
        format=FORMAT,
        visionloop=VERSION,
        schema=state.schema,
        created_at=created_at,
        home=names_of(settings.home),
        models_home=names_of(store.home),
        database=settings.sqlalchemy_url.get_backend_name(),
        counts={
            "models": len(state.models),
            "datasets": found.datasets,
            "jobs": len(state.jobs),
            "evaluations": len(state.evaluations),
            "drafts": state.drafts,
        },
        notes=tuple(_notes(settings, found)),
        files=sum(entry.sha256 is not None for entry in entries),
        home_id=identity_of(settings.home),
    )
    made = Manifest(header, entries)
    return replace(made, header=replace(header, bytes=sum(made.objects().values())))


def _notes(settings: Settings, found: Collected) -> Iterator[str]:
    if sqlite_file(settings) is None:
        yield dump_sentence(settings)
    for missing in found.missing:
        yield f"The home itself lacks {missing}."
    if found.links:
        more = f" and {len(found.links) - LISTED} more" if len(found.links) > LISTED else ""
        yield (
            f"{len(found.links)} symbolic links, special files or overlong paths were not copied: "
            f"{', '.join(found.links[:LISTED])}{more}."
        )
    if settings.data_roots:
        folders = ", ".join(map(str, settings.data_roots))
        yield f"Data outside VISIONLOOP_HOME is not part of a backup: {folders}."


def dump_sentence(settings: Settings) -> str:
    """What to do for a database that is not SQLite."""
    url = settings.sqlalchemy_url
    shown = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
    if url.get_backend_name() == "postgresql":
        command = f"pg_dump --format=custom --file=visionloop.dump '{shown}'"
        return (
            "The database is not part of this backup. Dump it just before the files are copied, "
            f"and delete nothing in between: {command}"
        )
    return (
        f"The database ({shown}) is not part of this backup: dump it with its own tool just before "
        "the files are copied, and delete nothing in between."
    )


# --- checks before anything is written


def _check_places(settings: Settings, store: ModelStore, target: Path) -> None:
    if sentence := unfinished_restore(settings.home):
        raise Conflict(sentence)
    file = sqlite_file(settings)
    if file is not None and not file.is_file():
        raise ValidationFailed(
            f"There is no VisionLoop in {settings.home}: it has no {file.name}. Set "
            "VISIONLOOP_HOME to the server's."
        )
    if file is not None and not all(
        os.access(path, os.R_OK | os.W_OK) for path in (file, file.parent)
    ):
        raise Forbidden(
            f"{file} cannot be read and written by this user. Run the backup as the user who runs "
            "the server, or as root."
        )
    real = target.parent.resolve() / target.name
    for folder, variable in ((settings.home, "VISIONLOOP_HOME"), (store.home, "BENTOML_HOME")):
        if real.is_relative_to(folder.resolve()):
            raise Conflict(
                f"{target} lies inside {variable}, and would be lost with it. Name a folder "
                "outside, best on another disk."
            )


def _check_room(target: Path, size: int, onto: Path | None) -> None:
    """Refuse a backup that does not fit. Contents of an earlier one are not written again."""
    needed = size
    parent = next(folder for folder in target.parents if folder.exists())
    if onto is not None and onto.stat().st_dev == parent.stat().st_dev:  # else nothing is shared
        known = sum(opened(onto).manifest().objects().values())
        needed = max(0, size - known)
    if needed > (free := free_bytes(target.parent)):
        raise InsufficientStorage(
            f"The backup needs about {needed / MIB:,.0f} MiB, and the disk of {target.parent} has "
            f"{free / MIB:,.0f} MiB free. Name a place on another disk; `visionloop prune` frees "
            "what nobody needs."
        )


@contextmanager
def _full_disk_named(target: Path) -> Iterator[None]:
    """A context that names the disk of a backup if it is full."""
    try:
        yield
    except (OSError, DatabaseBusy) as error:
        if not is_disk_full(error):
            raise
        raise InsufficientStorage(
            f"The disk of {target.parent} is full; nothing was left there. Name a place on another "
            "disk for the backup."
        ) from error


def summary(result: Result) -> str:
    """A sentence on a backup."""
    header = result.header
    parts = ", ".join(f"{count:,} {name}" for name, count in header.counts.items())
    shared = f", {size(result.linked)} of them shared" if result.linked else ""
    return (
        f"{result.path}: {parts}; {header.files:,} files, {size(header.bytes)}{shared}; "
        "read again and verified."
    )


def to_json(result: Result) -> dict[str, Any]:
    """A backup as JSON."""
    return {"path": str(result.path), "linked_bytes": result.linked} | result.header.to_json()
