"""The database: one SQLAlchemy engine per process and the base class of all tables.

Only the migrations (Alembic) create and change tables, when a process opens the database; see
`migrations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    Integer,
    String,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import ConnectionPoolEntry

from disk_space import NO_ROOM, is_disk_full
from errors import Conflict, DatabaseBusy, DatabaseDamaged, InsufficientStorage, VisionLoopError
from files import change_of, signal_change
from home_paths import unfinished_restore
from settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0014"  # the newest revision in `migrations/versions`
BEFORE_ALEMBIC = 3  # versions without Alembic refuse a schema number from this one on
BUSY_TIMEOUT = 30.0  # seconds that a job or command waits while the SQLite file is locked
REQUEST_TIMEOUT = 3.0  # the same in the gateway, whose clients wait
BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")  # and extended codes that begin with them
FULL = ("SQLITE_FULL",)
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
RESTORE = (
    "Stop the server and restore VISIONLOOP_HOME from a backup (docs/how-to/back-up.md). Without "
    "one: move the file away, start the server, and run `visionloop models reindex`, which "
    "finds the models again; jobs, evaluations and annotations that are not in datasets are lost."
)
BUSY_STATES = ("08", "40", "53", "55P03", "57P")  # PostgreSQL's codes: lost, locked, overloaded
FULL_STATE = "53100"
CHANGED = "changed"  # in `Session.info`: whether what other processes hold in memory has changed
RETRY = 5.0  # seconds of `Retry-After`

FAILURES = (SQLAlchemyError, DatabaseBusy, DatabaseDamaged, InsufficientStorage)
"""What transactions raise if the database cannot be used."""


def now() -> str:
    """The current time as stored and shown: ISO 8601 in UTC with milliseconds, sortable as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Base(DeclarativeBase):
    """Declarative base of all tables."""

    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012


class State(Base):
    """Key-value table; keys are `schema`, `generation`, `active`, `tokens`, `closed`,
    `annotations` and `seeded:NAME`."""

    __tablename__ = "state"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, default=0)
    text: Mapped[str | None] = mapped_column(String(200), default=None)


class Database:
    """Engine and sessions of one database; thread-safe.

    A process opens one and passes it to all its stores, which thus share one connection pool.

    Args:
        settings: Provide the URL.
        patience: Seconds that a transaction waits while another process locks a SQLite file.

    Attributes:
        fence: Called at the beginning of every write transaction, which it refuses by raising. In
            the process of a job it checks that the job is still assigned to this process.

    Raises:
        Conflict: A restore into the home was killed: what is there is neither the old nor the new.
        DatabaseBusy: It is locked or cannot be reached.
        InsufficientStorage: The tables are to be migrated, and the disk is full.
    """

    def __init__(self, settings: Settings, patience: float = BUSY_TIMEOUT) -> None:
        if sentence := unfinished_restore(settings.home):
            raise Conflict(sentence)
        self.settings = settings
        self.fence: Callable[[Session], None] | None = None
        self.engine = _engine(settings, patience)
        with client_errors(), _schema_lock(settings, patience):
            self._ensure_schema()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A write transaction, committed at the end of the block; it waits for other writers.

        Raises:
            DatabaseBusy: The database is locked or cannot be reached; nothing was written.
            InsufficientStorage: The disk is full; nothing was written.
        """
        with (
            client_errors(),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            session.connection(execution_options={"visionloop_write": True})
            if self.fence is not None:
                self.fence(session)
            yield session
        if session.info.get(CHANGED):
            signal_change(self.settings.paths.changes)

    def change(self) -> int:
        """A number that is another one once a process has changed models or tokens.

        It is read without the database, so that every request can follow such changes at once.
        """
        return change_of(self.settings.paths.changes)

    @contextmanager
    def read(self, patience: float | None = None) -> Iterator[Session]:
        """A read transaction with a consistent snapshot; writers never block it.

        Args:
            patience: Seconds to wait for a process that locks the SQLite file against readers too;
                None: as for other transactions.

        Raises:
            DatabaseBusy: The database is locked or cannot be reached.
        """
        with client_errors(), Session(self.engine, expire_on_commit=False) as session:
            if patience is not None:
                session.connection(execution_options={"visionloop_patience": patience})
            yield session

    def check(self) -> None:
        """Read the whole SQLite file; takes about a second per 500 MB.

        Raises:
            DatabaseDamaged: A page of it is damaged.
        """
        if self.engine.dialect.name != "sqlite":
            return
        with self.read() as session:
            found = session.scalar(text("PRAGMA quick_check(1)"))
        if found != "ok":
            raise DatabaseDamaged(f"The database is damaged ({found}). {RESTORE}")

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def _ensure_schema(self) -> None:
        """Migrate the tables to the newest revision, in one transaction.

        Raises:
            VisionLoopError: The tables are those of a newer VisionLoop.
        """
        with self.engine.connect() as connection:
            if revision(connection) == HEAD:
                return
            sqlite = connection.dialect.name == "sqlite"
            connection = connection.execution_options(visionloop_write=True)
            connection.rollback()
            if sqlite:  # tables are altered by copying them; dropping the old one must not cascade
                _pragma(connection, "foreign_keys=OFF")
            try:
                with connection.begin():
                    _migrate(connection)
            finally:
                if sqlite:
                    _pragma(connection, "foreign_keys=ON")


@contextmanager
def client_errors() -> Iterator[None]:
    """A context that replaces errors of a locked, unreachable or full database by our own."""
    try:
        yield
    except SQLAlchemyError as error:
        if (known := _known(error)) is not None:
            raise known from error
        raise


def _known(error: SQLAlchemyError) -> VisionLoopError | None:
    origin = getattr(error, "orig", None)
    name = str(getattr(origin, "sqlite_errorname", ""))
    state = str(getattr(origin, "sqlstate", "") or getattr(origin, "pgcode", "") or "")
    if name.startswith(FULL) or state == FULL_STATE or is_disk_full(error):
        return InsufficientStorage(NO_ROOM)
    if name.startswith(BUSY):
        return DatabaseBusy("Another process has locked the database. Try again.", RETRY)
    if name.startswith(DAMAGED):
        return DatabaseDamaged(f"The database is damaged ({origin}). {RESTORE}")
    lost = isinstance(error, OperationalError) and not name and not state  # no server answers
    if state.startswith(BUSY_STATES) or lost or isinstance(error, PoolTimeout):
        return DatabaseBusy("The database cannot be reached or is overloaded. Try again.", RETRY)
    return None


def alembic_config(connection: Connection | None = None) -> Config:
    """The Alembic configuration for this project's migrations, on a connection if one is given."""
    from alembic.config import Config  # slow to import; needed only for a migration

    import migrations

    config = Config()
    config.set_main_option(
        "script_location", str(Path(migrations.__file__).parent).replace("%", "%%")
    )
    config.attributes["connection"] = connection
    return config


def known_revisions() -> list[str]:
    """The revisions of the tables that this version can migrate, the newest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(alembic_config())
    return [script.revision for script in scripts.walk_revisions()]


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = alembic_config(connection)
    try:
        if current := revision(connection):
            ScriptDirectory.from_config(config).get_revision(current)
    except CommandError:
        raise VisionLoopError(
            f"The database has schema revision {current}, this version supports up to {HEAD}: a "
            "newer VisionLoop has migrated it. Run that version, or set another VISIONLOOP_HOME."
        ) from None
    command.upgrade(config, "head")
    with Session(connection) as session:
        session.merge(State(key="schema", number=BEFORE_ALEMBIC))
        if session.get(State, "generation") is None:
            session.add(State(key="generation", number=1))
        session.flush()


def revision(connection: Connection) -> str | None:
    """The last migration applied; None before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _pragma(connection: Connection, setting: str) -> None:
    """Execute a PRAGMA outside a transaction: SQLite ignores `foreign_keys` within one."""
    driver = connection.connection.dbapi_connection
    assert driver is not None
    driver.cursor().execute(f"PRAGMA {setting}")


def _engine(settings: Settings, patience: float) -> Engine:
    url = settings.sqlalchemy_url
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_timeout=patience)
    settings.paths.create()
    # No limit of connections: otherwise readers would have to wait for connections that are held by
    # writers, which wait for a lock.
    engine = create_engine(url, connect_args={"timeout": patience}, max_overflow=-1)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: ConnectionPoolEntry) -> None:
        # sqlite3 starts transactions too late; `_begin` starts them (SQLAlchemy docs, pysqlite).
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        seconds = options.get("visionloop_patience", patience)
        if connection.info.get("patience", patience) != seconds:
            connection.info["patience"] = seconds
            connection.exec_driver_sql(f"PRAGMA busy_timeout={int(1000 * seconds)}")
        # A writer locks at once: upgrading a read lock fails if another writer has committed.
        write = options.get("visionloop_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def _schema_lock(settings: Settings, patience: float) -> Iterator[None]:
    """Lock that lets one process at a time migrate a SQLite file."""
    if settings.sqlalchemy_url.get_backend_name() != "sqlite":
        yield
        return
    settings.paths.create()
    lock = FileLock(settings.paths.schema_lock)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise DatabaseBusy("Another process migrates the database. Try again.", RETRY) from None
    try:
        yield
    finally:
        lock.release()
