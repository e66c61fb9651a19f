"""Moves a home into Postgres and S3, and back: the trees first, then all rows in one transaction.

The source is only read. Until the last transaction is committed, the target's database is one that
nothing else opens (`target`), so that a migration which is killed leaves no half of a VisionLoop.
Run again, it skips the trees that it has verified (`progress`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from database import HEAD, Database, client_errors, revision
from errors import Conflict, StoreDamaged, ValidationFailed
from files import temporary_folder
from home_paths import HomePaths
from jobs.home_references import referring, resolved
from models_store.store import ModelStore
from settings import Settings
from storage.place import open_trees
from storage.trees import TreeStore
from upkeep.backup import Stage, quiet
from upkeep.database_use import connection_to, named, others
from upkeep.migration.kinds import Kind, Place
from upkeep.migration.progress import Done, Log
from upkeep.migration.rows import copy_rows, counts
from upkeep.migration.target import check_target, finish, target
from upkeep.restore import content_of, models_in, no_server

Direction = Literal["to-cluster", "to-home"]


@dataclass(frozen=True)
class Sides:
    """The two places of a VisionLoop.

    Attributes:
        home: Settings of SQLite and folders.
        cluster: Settings of Postgres and S3; their home is the same folder.
        models: The model store of the home.
        trees: The object store.
    """

    home: Settings
    cluster: Settings
    models: ModelStore
    trees: TreeStore

    @property
    def identity(self) -> str:
        """What tells this pair of places from others, without a secret."""
        url = self.cluster.sqlalchemy_url
        there = (url.host, url.port, url.database, self.cluster.store_url)
        here = (str(self.home.home.resolve()), str(self.models.home.resolve()))
        return hashlib.sha256(repr((there, here)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Line:
    """A kind of tree, or a table, with its numbers on both sides."""

    name: str
    source: int
    target: int
    bytes: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Report:
    """What was migrated, or would be.

    Attributes:
        source, target: The places, without passwords.
        resumed: Whether an interrupted migration went on.
        trees, tables: A line for each kind and table.
    """

    source: str
    target: str
    resumed: bool
    trees: tuple[Line, ...]
    tables: tuple[Line, ...]


def sides(settings: Settings, models: ModelStore | None = None) -> Sides:
    """Both sides, from the settings of the cluster's servers.

    Raises:
        ValidationFailed: VISIONLOOP_DATABASE_URL or VISIONLOOP_STORE_URL names none.
    """
    if settings.sqlalchemy_url.get_backend_name() != "postgresql":
        raise ValidationFailed(
            "Set VISIONLOOP_DATABASE_URL to the Postgres database of the servers, such as "
            "postgresql+psycopg://USER:PASSWORD@HOST/NAME."
        )
    if not settings.store_url:
        raise ValidationFailed(
            "Set VISIONLOOP_STORE_URL to the bucket of the servers, such as s3://BUCKET/PREFIX, "
            "and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the like."
        )
    home = settings.model_copy(update={"database_url": None, "store_url": None})
    return Sides(home, settings, models or ModelStore(), open_trees(settings))


def moved(direction: Direction, here: Mapping[Path, str]) -> dict[str, str]:
    """Folder in the source's rows → folder in the target's.

    Args:
        direction: Which side is the target.
        here: Folder of the home → that of the servers.
    """
    if direction == "to-home":
        return {there: str(folder.resolve()) for folder, there in here.items()}
    forms = ((str(form), there) for folder, there in here.items() for form in _forms(folder))
    return dict(forms)


def _forms(folder: Path) -> tuple[Path, Path]:
    """A folder as it is named, and without links."""
    return folder.absolute(), folder.resolve()


Kinds = Callable[[Sides, Database, Database], Sequence[Kind]]
"""Makes the kinds of trees of a migration, from the source's database and the target's."""


def migrate(
    direction: Direction,
    found: Sides,
    kinds: Kinds,
    folders: Mapping[str, str] | None = None,
    stage: Stage = quiet,
) -> Report:
    """Copy everything from one side to the other, and compare it.

    Args:
        direction: Which side is the target.
        found: Both sides.
        kinds: The kinds of trees.
        folders: Folder in the source's rows → folder in the target's.
        stage: Shows the progress.

    Raises:
        Conflict: A server runs on either side, or the target holds something else.
        StoreDamaged: A tree is not the same on both sides; the migration is not complete.
        StoreUnavailable, StoreRefused, DatabaseBusy: A side cannot be reached. Run it again.
        InsufficientStorage: The disk is full.
    """
    place = Place(found.home.paths, found.models)
    origin, aim = _ordered(direction, found)
    with ExitStack() as stack:
        resumed = _guarded(direction, found, stack)
        source = Database(origin)
        stack.callback(source.close)
        with target(aim, found.identity) as database:
            made = kinds(found, source, database)
            if not resumed and direction == "to-cluster":
                _refuse_objects(found.trees, made)
            log = Log(place.home.migration_log, found.identity, resumed)
            trees = [_copied(direction, kind, place, log, stage) for kind in made]
            tables = _rows(direction, found, source, database, folders or {}, stage)
        log.remove()
    return Report(*_names(direction, found), resumed, tuple(trees), tuple(tables))


def planned(direction: Direction, found: Sides, kinds: Kinds) -> Report:
    """What `migrate` would do; nothing is written, and the source is not migrated.

    Raises:
        Conflict: As `migrate`.
        ValidationFailed: The source is of an older version: its tables are not all there yet.
    """
    place = Place(found.home.paths, found.models)
    origin, _ = _ordered(direction, found)
    with ExitStack() as stack:
        resumed = _guarded(direction, found, stack)
        with client_errors(), connection_to(origin) as connection:
            if revision(connection) != HEAD:
                raise ValidationFailed(
                    f"{named(origin)} is of another version of VisionLoop. Start a server of this "
                    "one on it, or migrate without --dry-run: either brings it up to date."
                )
            rows = counts(connection)
        source = Database(origin)
        stack.callback(source.close)
        made = kinds(found, source, source)
        if not resumed and direction == "to-cluster":
            _refuse_objects(found.trees, made)
        trees = []
        for kind in made:
            keys = kind.keys()
            sizes = [0] if direction == "to-home" else [_bytes(kind, key, place) for key in keys]
            trees.append(Line(kind.name, len(keys), 0, sum(sizes)))
    tables = [Line(name, number, 0) for name, number in rows.items() if number]
    return Report(*_names(direction, found), resumed, tuple(trees), tuple(tables))


# --- checks


def _ordered(direction: Direction, found: Sides) -> tuple[Settings, Settings]:
    """The settings of source and target."""
    return (found.home, found.cluster) if direction == "to-cluster" else (found.cluster, found.home)


def _guarded(direction: Direction, found: Sides, stack: ExitStack) -> bool:
    """Keep servers out of the home, refuse those of the cluster, and look at the target.

    Returns whether the migration was begun before.
    """
    _, aim = _ordered(direction, found)
    if direction == "to-cluster" and not found.home.paths.database.exists():
        raise ValidationFailed(
            f"There is no VisionLoop in {found.home.home}. Set VISIONLOOP_HOME to the one that is "
            "to be migrated."
        )
    for folder, variable in (
        (found.home.home, "VISIONLOOP_HOME"),
        (found.models.home, "BENTOML_HOME"),
    ):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(no_server(folder, variable))
    if programs := others(found.cluster):
        raise Conflict(
            f"{named(found.cluster)} is in use: {', '.join(sorted(set(programs))[:5])}. Stop all "
            "servers and jobs, and close other connections to it."
        )
    found.trees.check()
    resumed = check_target(aim, found.identity)
    if direction == "to-home" and not resumed:
        _refuse_files(found)
    return resumed


def _refuse_files(found: Sides) -> None:
    """Refuse a home that holds anything but the database of a migration that was just begun."""
    database = found.home.paths.database.name
    ours = {"run", *(f"{database}{suffix}" for suffix in ("", "-wal", "-shm"))}
    held = [path for path in content_of(found.home.home, found.models) if path.name not in ours]
    held += [path for path in models_in(found.models) if path.is_dir()]
    if held:
        raise Conflict(
            f"Not empty: {held[0]}. A migration does not merge. Set VISIONLOOP_HOME and "
            "BENTOML_HOME to empty folders."
        )


def _refuse_objects(trees: TreeStore, kinds: Sequence[Kind]) -> None:
    """Refuse a place in the store that holds trees of another VisionLoop."""
    for prefix in sorted({prefix for kind in kinds for prefix in kind.prefixes}):
        if keys := [*trees.list(prefix), *trees.list_bytes(prefix)]:
            raise Conflict(
                f"The store is not empty: it has {keys[0]}. A migration does not merge. Give "
                "VISIONLOOP_STORE_URL another prefix, or empty this one."
            )


# --- trees and rows


def _copied(direction: Direction, kind: Kind, place: Place, log: Log, stage: Stage) -> Line:
    """Copy all trees of a kind, and compare each."""
    keys = kind.keys()
    left = [key for key in keys if (kind.name, key) not in log.done]
    known = direction == "to-cluster"
    progress = stage(kind.name, sum(_bytes(kind, key, place) for key in left) if known else 0)
    for key in left:
        if known:
            digest, size = kind.content(key, place)
            kind.upload(key, place)
            with temporary_folder(place.home.root) as scratch:
                copy = Place(HomePaths(scratch / "home"), ModelStore(scratch / "models"))
                kind.download(key, copy)
                if kind.content(key, copy) != (digest, size):
                    raise StoreDamaged(
                        f"{kind.name} {key}: the copy in the store has other files than "
                        f"{kind.folder(key, place)}. Does a program change them? Run it again."
                    )
        else:
            kind.download(key, place)
            digest, size = kind.content(key, place)
        log.add(Done(kind.name, key, digest, size))
        progress(size)
    done = [log.done[kind.name, key] for key in keys]
    whole = hashlib.sha256("".join(one.digest for one in done).encode()).hexdigest()
    return Line(kind.name, len(keys), len(done), sum(one.bytes for one in done), whole)


def _bytes(kind: Kind, key: str, place: Place) -> int:
    return sum(file.stat().st_size for file in kind.folder(key, place).rglob("*") if file.is_file())


def _rows(
    direction: Direction,
    found: Sides,
    source: Database,
    database: Database,
    folders: Mapping[str, str],
    stage: Stage,
) -> list[Line]:
    """Copy all rows, and open the database to others, in one transaction."""
    with client_errors(), source.engine.connect() as read:
        if read.dialect.name == "postgresql":
            read = read.execution_options(isolation_level="REPEATABLE READ")
        before = counts(read)
        write = database.engine.connect().execution_options(visionloop_write=True)
        with write, write.begin():
            recipes = partial(
                referring if direction == "to-cluster" else resolved, home=found.home.home
            )
            copy_rows(read, write, folders, recipes, stage("rows", sum(before.values())))
            after = counts(write)
            if after != before:
                wrong = [name for name in before if after[name] != before[name]]
                raise StoreDamaged(f"Not all rows were copied: {', '.join(wrong)}. Run it again.")
            finish(write)
    return [Line(name, number, after[name]) for name, number in before.items()]


def _names(direction: Direction, found: Sides) -> tuple[str, str]:
    here = f"{found.home.home} and {found.models.home}"
    there = f"{named(found.cluster)} and {found.cluster.store_url}"
    return (here, there) if direction == "to-cluster" else (there, here)
