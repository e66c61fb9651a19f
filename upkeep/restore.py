"""Puts a backup in place: checked as a whole before anything of it is, and never merged.

The files are unpacked into a temporary folder inside each home, and their hashes checked; the
database is relocated and migrated there. Then the former content is moved aside and the new one
moved in, by renames on one file system. A server cannot start meanwhile: it finds the lock, or,
if this process is killed, the file UNFINISHED_RESTORE.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import Timeout
from sqlalchemy import delete, inspect

from access.sessions import SessionStore
from access.tables import AccessSession
from database import MIGRATING, Database, client_errors, known_revisions, revision
from disk_space import MIB, free_bytes
from errors import Conflict, DatabaseDamaged, Forbidden, InsufficientStorage, ValidationFailed
from files import (
    PARTIAL,
    HomeLock,
    atomic_path,
    atomic_write,
    delete_if_abandoned,
    link_or_copy,
    temporary_folder,
)
from home_paths import (
    IDENTITY,
    SERVER_LOCK,
    UNFINISHED_RESTORE,
    HomePaths,
    database_lock,
    unfinished_restore,
)
from jobs.finalizer import JobFinalizer, published_in
from jobs.states import LIVE
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from upkeep.backup import Stage, closing_engine, quiet, sqlite_file
from upkeep.database_use import connection_to, named, others
from upkeep.manifest import DATABASE, HOME, MODELS, BackupDamaged, Header, Manifest
from upkeep.relocation import relocate
from upkeep.storage import Backup, Progress, chunks, opened

ASIDE = ".before-restore-"
"""Prefix of the folder that the former content of a home is moved to."""

HARMLESS = (SERVER_LOCK, UNFINISHED_RESTORE, IDENTITY, "visionloop-models.lock")
"""Files of an empty home, besides its locks; they stay where they are."""

BENTOML = ("bentos", "tmp")
"""Folders of BENTOML_HOME that are BentoML's own, beside its models."""


@dataclass(frozen=True)
class Restored:
    """What `restore` did.

    Attributes:
        header: The header of the backup's manifest.
        home, models: Where its files are now.
        aside: Folders and files with the former content, also of restores before this one that were
            killed.
        relocated: Number of values in the database whose folder was replaced.
    """

    header: Header
    home: Path
    models: Path
    aside: tuple[Path, ...]
    relocated: int


def restore(
    settings: Settings,
    path: Path,
    force: bool = False,
    stage: Stage = quiet,
    store: ModelStore | None = None,
) -> Restored:
    """Restore a backup into VISIONLOOP_HOME and the models of BENTOML_HOME.

    Args:
        settings: Name the home and the database.
        path: The backup.
        force: If a home is not empty, move its content aside.
        stage: Shows the progress.
        store: The model store; default: that of BENTOML_HOME.

    Raises:
        BackupDamaged: A file of the backup is missing or damaged; nothing was changed.
        Conflict: A server runs on a home, or a home is not empty.
        ValidationFailed: The backup is of a newer version.
        InsufficientStorage: There is too little room.
    """
    store = store or ModelStore()
    backup = opened(path)
    manifest = backup.manifest()
    _check_version(manifest.header)
    database = _database_target(settings, manifest)
    if database is None:
        check_restored(settings)
    homes = (settings.home, store.home)
    _check_outside(path, homes)
    for folder in homes:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        variables = {store.home: "BENTOML_HOME", settings.home: "VISIONLOOP_HOME"}  # may be one
        for folder, variable in variables.items():
            stack.enter_context(no_server(folder, variable))
            for partial in folder.glob(f"{PARTIAL}*"):  # left by a restore that was killed
                delete_if_abandoned(partial)
        held = {folder.resolve() / SERVER_LOCK for folder in homes}
        if database is not None and (lock := database_lock(database)) not in held:
            stack.enter_context(no_server(database, "VISIONLOOP_DATABASE_URL", lock))
        if not force:
            _refuse_content(settings, store, database, _names_in(manifest))
        _check_room(manifest, homes)
        staged = stack.enter_context(temporary_folder(settings.home))
        models = stack.enter_context(temporary_folder(store.home))
        places = {DATABASE: staged / settings.paths.database.name, HOME: staged, MODELS: models}
        unpack(backup, manifest, places, stage("restoring and verifying", manifest.header.bytes))
        relocated = 0
        if database is not None:
            relocated = _prepared(settings, store, staged, manifest.header)
        aside = _exchange(settings, store, staged, models, database)
        if database is None:
            end_restored_sessions(settings)
    return Restored(manifest.header, settings.home, store.models, aside, relocated)


# --- checks


def _check_version(header: Header) -> None:
    known = known_revisions()
    if header.schema is not None and header.schema not in known:
        raise ValidationFailed(
            f"The backup is of VisionLoop {header.visionloop}, whose database has schema revision "
            f"{header.schema}; this version supports up to {known[0]}. Restore it with that "
            "version or a newer one."
        )


def _database_target(settings: Settings, manifest: Manifest) -> Path | None:
    """The file that the backup's database becomes; None if it has none.

    Raises:
        ValidationFailed: The backup and the settings name different kinds of database.
    """
    has_one = any(entry.path == DATABASE for entry in manifest.entries)
    file = sqlite_file(settings)
    if has_one and file is None:
        raise ValidationFailed(
            "The backup holds a SQLite database, and VISIONLOOP_DATABASE_URL names another one. "
            "Unset it, restore, and then move the tables."
        )
    if not has_one and file is not None:
        raise ValidationFailed(
            f"The backup holds no database: it was made beside {manifest.header.database}. Restore "
            "the dump of that database, and set VISIONLOOP_DATABASE_URL to it."
        )
    return file if has_one else None


def check_restored(settings: Settings) -> None:
    """Refuse a PostgreSQL database that is not the restored dump, or that somebody uses.

    Raises:
        Conflict: It is empty, or the target of a migration; or a server or another program uses it.
        ValidationFailed: It is of a newer version.
        DatabaseBusy: It cannot be reached.
    """
    with client_errors(), connection_to(settings) as connection:
        found = revision(connection)
    if found is None:
        raise Conflict(
            f"{named(settings)} is empty, and the backup holds files only. Restore the dump of its "
            "database first: pg_restore --no-owner --dbname=… visionloop.dump"
        )
    if found == MIGRATING:
        raise Conflict(
            f"{named(settings)} is the target of a `visionloop migrate` that did not end. Give "
            "the restore a database of its own."
        )
    if found not in (known := known_revisions()):
        raise ValidationFailed(
            f"{named(settings)} has schema revision {found}; this version supports up to "
            f"{known[0]}. Restore with the version that wrote it, or a newer one."
        )
    if programs := others(settings):
        raise Conflict(
            f"{named(settings)} is in use: {', '.join(sorted(set(programs))[:5])}. Stop all "
            "servers and jobs, and close other connections to it."
        )


def end_restored_sessions(settings: Settings) -> None:
    """End every session of a PostgreSQL database that no server uses: some were ended since."""
    with client_errors(), connection_to(settings) as connection, connection.begin():
        if inspect(connection).has_table(AccessSession.__tablename__):
            connection.execute(delete(AccessSession))


def _check_outside(path: Path, homes: tuple[Path, ...]) -> None:
    real = path.resolve()
    for folder in homes:
        if real.is_relative_to(folder.resolve()):
            raise Conflict(f"The backup {path} lies inside {folder}. Move it out of there first.")


@contextmanager
def no_server(place: Path, variable: str, file: Path | None = None) -> Iterator[None]:
    """The server's lock of a folder, so that none starts meanwhile; `file`: that of a database."""
    lock = HomeLock(file or place / SERVER_LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise Conflict(
            f"A VisionLoop server is using {place}. Stop it, or set {variable} to another "
            f"{'file' if file else 'folder'}."
        ) from None
    except OSError as error:
        raise Forbidden(f"{variable} cannot be used: {error.strerror}: {place}") from error
    try:
        yield
    finally:
        lock.release()


def _refuse_content(
    settings: Settings, store: ModelStore, database: Path | None, names: set[str]
) -> None:
    """Refuse homes that hold anything: a restore does not merge."""
    used = [str(settings.home)] if content_of(settings.home, store) else []
    if models_in(store, names):
        used.append(str(store.models))
    if database is not None and database.exists() and not used:
        used.append(str(database))
    if used:
        raise Conflict(
            f"Not empty: {', '.join(used)}. A restore does not merge. Set VISIONLOOP_HOME and "
            "BENTOML_HOME to empty folders, or add --force, which moves the former content aside."
        )


def content_of(home: Path, store: ModelStore) -> list[Path]:
    """What a home holds, without locks, what earlier restores moved aside, and the models, whose
    folder may lie in it."""
    left = HARMLESS + BENTOML if home == store.home else HARMLESS
    return [
        path
        for path in sorted(home.iterdir())
        if path.name not in left
        and path.suffix != ".lock"
        and not path.name.startswith((ASIDE, PARTIAL))
        and not store.models.is_relative_to(path)
    ]


def models_in(store: ModelStore, names: Collection[str] = ()) -> list[Path]:
    """What the folder of the models holds; other programs' stay, unless their name is wanted."""
    if not store.models.is_dir():
        return []
    others = store.names_of_others() - set(names)
    return [path for path in sorted(store.models.iterdir()) if path.name not in others]


def _names_in(manifest: Manifest) -> set[str]:
    """The names of the models in a backup."""
    paths = (entry.path for entry in manifest.entries)
    return {path.split("/")[1] for path in paths if path.startswith(f"{MODELS}/")}


def _check_room(manifest: Manifest, homes: tuple[Path, ...]) -> None:
    needed = dict.fromkeys(homes, 0)
    linked: set[int] = set()
    for entry in manifest.entries:
        if entry.link not in linked:
            needed[homes[entry.path.startswith(f"{MODELS}/")]] += entry.size
        linked |= {entry.link} - {0}
    by_disk: dict[int, int] = {}
    for home, size in needed.items():
        disk = os.stat(home).st_dev
        by_disk[disk] = by_disk.get(disk, 0) + size
        if by_disk[disk] > (free := free_bytes(home)):
            raise InsufficientStorage(
                f"The backup needs {by_disk[disk] / MIB:,.0f} MiB, and the disk of {home} has "
                f"{free / MIB:,.0f} MiB free. Free space on it, or name homes on another disk."
            )


# --- unpacking


def unpack(
    backup: Backup, manifest: Manifest, places: Mapping[str, Path], progress: Progress
) -> None:
    """Write every file below the temporary folders, and check its hash."""
    linked: dict[int, Path] = {}
    for entry in manifest.entries:
        first, _, rest = entry.path.partition("/")
        target = places[first] / rest if rest else places[first]
        if entry.sha256 is None:
            _private_folder(target)
            continue
        _private_folder(target.parent)
        if entry.link and (other := linked.get(entry.link)) is not None:
            link_or_copy(other, target)
            continue
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for block in chunks(backup, entry.sha256, entry.size, entry.path):
                file.write(block)
                progress(len(block))
        os.utime(target, ns=(entry.mtime, entry.mtime))
        if entry.link:
            linked[entry.link] = target


def _private_folder(folder: Path) -> None:
    """Create a folder and its parents, each for its owner only."""
    if not folder.is_dir():
        _private_folder(folder.parent)
        folder.mkdir(mode=0o700)


def _prepared(settings: Settings, store: ModelStore, staged: Path, header: Header) -> int:
    """Migrate the database, replace its folders, end sessions, and requeue jobs that were running.

    Returns the number of values whose folder was replaced.
    """
    file = staged / settings.paths.database.name
    _refuse_code(file)
    new = (str(settings.home.resolve()), str(store.home.resolve()))
    folders = dict.fromkeys(header.home, new[0]) | dict.fromkeys(header.models_home, new[1])
    with closing_engine(file) as connection, connection.begin():
        relocated = relocate(connection, folders)
    there = settings.model_copy(update={"home": staged, "database_url": None})
    database = Database(there)
    try:
        SessionStore(database).end_all()
        jobs = JobStore(database)
        registry = Registry(database, store)
        finalizer = JobFinalizer(jobs, settings.train_attempts, published_in(registry))
        for job in jobs.list(None, *LIVE):
            finalizer.finalize(job.id, f"Restored from a backup of {header.created_at}.")
    finally:
        database.close()
    with closing(sqlite3.connect(file)) as driver:  # one file, without a log beside it
        driver.execute("PRAGMA journal_mode=DELETE")
    return relocated


def _refuse_code(file: Path) -> None:
    """Refuse a database that is damaged, or that would run other statements than ours."""
    try:
        found, code = _checked(file)
    except sqlite3.DatabaseError as error:
        raise DatabaseDamaged(f"The database in the backup cannot be read: {error}.") from error
    if code:  # some, and perhaps only those of our migrations
        with temporary_folder(file.parent) as folder:
            Database(Settings(home=folder, database_url=None)).close()
            code -= _checked(HomePaths(folder).database)[1]
    if code:
        raise BackupDamaged(
            f"The database in the backup has a trigger or view ({min(code)[0]!r:.60}), which "
            "VisionLoop never makes. Nothing was restored."
        )
    if found != "ok":
        raise DatabaseDamaged(f"The database in the backup is damaged ({found}).")


def _checked(file: Path) -> tuple[str, set[tuple[str, str]]]:
    """What SQLite's check finds, and the names and texts of triggers and views."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        query = "SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'view')"
        code = {(str(name), str(text)) for name, text in connection.execute(query)}
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0]), code


# --- exchange


def _exchange(
    settings: Settings, store: ModelStore, staged: Path, models: Path, database: Path | None
) -> tuple[Path, ...]:
    """Move the former content aside, and the new one in. Undone if a rename fails.

    Returns the folders and files with the former content.
    """
    home, file = settings.home, settings.paths.database
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = [home / f"{ASIDE}{stamp}", store.home / f"{ASIDE}{stamp}"]
    marker = home / UNFINISHED_RESTORE
    before = [Path(line) for line in (unfinished_restore(home) or "").splitlines()[1:]]
    with ExitStack() as stack:
        moves = [(path, aside[0] / path.name) for path in content_of(home, store)]
        names = {path.name for path in models.iterdir()}
        moves += [(path, aside[1] / "models" / path.name) for path in models_in(store, names)]
        if database is not None and database.resolve() != file.resolve():  # perhaps another disk
            partial = stack.enter_context(atomic_path(database))
            shutil.copyfile(staged / file.name, partial)
            partial.chmod(0o600)
            (staged / file.name).unlink()
            for suffix in ("", "-wal", "-shm"):
                part = database.with_name(database.name + suffix)
                if part.exists():
                    moves.append((part, part.with_name(f"{part.name}{ASIDE}{stamp}")))
                    aside.append(moves[-1][1])
        moves += [(path, home / path.name) for path in sorted(staged.iterdir())]
        moves += [(path, store.models / path.name) for path in sorted(models.iterdir())]
        former = [*before, *aside]
        begun: list[tuple[Path, Path]] = []
        try:
            _mark(marker, former)
            os.sync()
            for source, target in moves:
                _private_folder(target.parent)
                begun.append((source, target))  # before: Ctrl-C may come right after the rename
                source.rename(target)
        except BaseException:
            for source, target in reversed(begun):
                if os.path.lexists(target) and not os.path.lexists(source):
                    target.rename(source)
            if before:
                _mark(marker, before)
            else:
                marker.unlink(missing_ok=True)
            raise
    os.sync()
    marker.unlink()
    return tuple(path for path in dict.fromkeys(former) if path.exists())


def _mark(marker: Path, former: Sequence[Path]) -> None:
    """Write what a server and the shell commands say if the restore is killed."""
    sentence = (
        f"A restore into {marker.parent} was killed while it put files in place. Run `visionloop "
        "restore BACKUP --force` again. What was there before is in"
    )
    atomic_write(marker, "\n".join([f"{sentence}:", *map(str, former)]) + "\n")
