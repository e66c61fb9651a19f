"""The database: SQLite or PostgreSQL; one engine per process, and the base class of all tables.

Only the migrations (Alembic) create and change tables, when a process opens the database; see
`migrations`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from filelock import Timeout
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
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import ConnectionPoolEntry

import postgres
from database_errors import FAILURES as FAILURES  # for those who use a Database
from database_errors import RESTORE, RETRY, client_errors, refuse_long_text, refuse_nul
from errors import Conflict, DatabaseBusy, DatabaseDamaged, VisionLoopError
from exclusive import AdvisoryExclusive, Exclusive, FileExclusive
from files import HomeLock, change_of, signal_change
from home_paths import unfinished_restore
from postgres import (
    SCHEMA,
    WRITERS,
    limit_answers,
    limit_statements,
    lock_transaction,
    locked_writer,
)
from settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0020"  # the newest revision in `migrations/versions`
MIGRATING = "migrating"  # in place of a revision, while `visionloop migrate` fills the database
BEFORE_ALEMBIC = 3  # versions without Alembic refuse a schema number from this one on
BUSY_TIMEOUT = 30.0  # seconds that a job or command waits while the SQLite file is locked
ANSWER = 10.0  # seconds more that PostgreSQL may take for each statement
QUICK_ANSWER = 1.0  # the same where an event loop waits
REQUEST_TIMEOUT = 3.0  # the same in the gateway, whose clients wait
COUNTERS = {"models": ("generation", "tokens"), "annotations": ("annotations",)}
"""What may change → the keys in `State` whose number is raised then."""

BLOCK = 500
"""Values in the conditions of a statement. SQLite takes 1,000 alternatives and 32,766 values,
PostgreSQL 65,535 values."""

HOME = "home"  # in `Session.info`: the home of this process, which rows may refer to
CHANGED = "changed"  # in `Session.info`: whether what other processes hold in memory has changed


Changing = Literal["models", "annotations"]
Value = TypeVar("Value")


def now() -> str:
    """The current time as stored and shown: ISO 8601 in UTC with milliseconds, sortable as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Base(DeclarativeBase):
    """Declarative base of all tables."""

    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012


class State(Base):
    """Key-value table; keys are `schema`, `generation`, `active`, `tokens`, `closed`,
    `annotations`, `backup` and `seeded:NAME`."""

    __tablename__ = "state"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, default=0)
    text: Mapped[str | None] = mapped_column(String(200), default=None)


class Database:
    """Engine and sessions of one database; thread-safe.

    A process opens one and passes it to all its stores, which thus share one connection pool.

    Args:
        settings: Provide the URL.
        patience: Seconds that a transaction waits while another writer has the database.

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
        self._info = {HOME: settings.home}
        self.fence: Callable[[Session], None] | None = None
        self._patience = patience
        self._closed = False
        url = settings.sqlalchemy_url
        self._server = None if url.get_backend_name() == "sqlite" else postgres.server_of(url)
        self.engine = self._server.engine if self._server else _engine(settings, patience)
        if not event.contains(self.engine, "before_cursor_execute", refuse_nul):
            event.listen(self.engine, "before_cursor_execute", refuse_nul)
        try:
            with client_errors(), _schema_lock(settings, patience):
                self._ensure_schema()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A write transaction, committed at the end of the block; it waits for other writers.

        What it has read stays true until then, because it is the only one: SQLite locks the file,
        and on PostgreSQL it holds an advisory lock. Those who read never wait for it.

        Raises:
            DatabaseBusy: The database is locked or cannot be reached; nothing was written.
            InsufficientStorage: The disk is full; nothing was written.
            ValidationFailed: A value does not fit its column, or holds a NUL character.
        """
        if self._server is None:
            with self._transaction() as session:
                yield session
            return
        began = time.monotonic()
        with locked_writer(self._server, self._patience):
            left = self._patience - (time.monotonic() - began)
            with self._transaction(left) as session:
                yield session

    @contextmanager
    def write_rows(self) -> Iterator[Session]:
        """A write transaction that does not wait for those of `write`, but for rows they change.

        It is for single statements, such as the progress of a job, and for what locks the rows that
        it has read (`with_for_update`). On SQLite, it is the same as `write`.

        Raises:
            DatabaseBusy, InsufficientStorage, ValidationFailed: As for `write`.
        """
        with self._transaction() as session:
            yield session

    @contextmanager
    def _transaction(self, patience: float | None = None) -> Iterator[Session]:
        """A write transaction; with a patience, one that holds PostgreSQL's writers' lock."""
        with (
            client_errors(),
            Session(self.engine, expire_on_commit=False, info=self._info) as session,
            session.begin(),
        ):
            event.listen(session, "before_flush", refuse_long_text)
            connection = session.connection(execution_options={"visionloop_write": True})
            self._limit(connection)
            if patience is not None:
                lock_transaction(connection, WRITERS, patience)
            if self.fence is not None:  # it locks a row: after the writers' lock, as others do
                self.fence(session)
            yield session
        if session.info.get(CHANGED):
            self.signal_change()

    def change(self, what: Changing = "models") -> int:
        """A number that is another one once a process has changed models or tokens.

        It is in memory, so that every request can follow such changes: at once if the database is a
        SQLite file, and within postgres.POLL seconds if it is PostgreSQL.

        Args:
            what: `annotations`: another one once annotations arrived.
        """
        if self._server is None:
            return change_of(self._signal_file(what))
        return self._server.changes().number(COUNTERS[what])

    def signal_change(self, what: Changing = "models") -> None:
        """Have `change` return another number in all processes; `write` does so for models.

        On PostgreSQL, the others see that the transaction has raised a counter of `COUNTERS`.
        """
        if self._server is None:
            signal_change(self._signal_file(what))
        else:
            self._server.changes().note()

    def _signal_file(self, what: Changing) -> Path:
        paths = self.settings.paths
        return paths.changes if what == "models" else paths.inbox_signal

    @property
    def answers(self) -> bool:
        """Whether a read would be answered at once, as far as is known; a SQLite file always is.

        Where requests are answered, what is not known is no reason to wait for a PostgreSQL that
        hangs.
        """
        return self._server is None or self._server.changes().answers

    @property
    def is_shared(self) -> bool:
        """Whether servers on other machines may use it."""
        return self._server is not None

    def exclusive(
        self,
        name: str,
        timeout: float | None = None,
        *,
        shared: bool = False,
        across_homes: bool = False,
    ) -> Exclusive:
        """A lock by name among all processes that use this database, on whatever machine.

        On SQLite, it is a lock file in VISIONLOOP_HOME. On PostgreSQL, it is an advisory lock of a
        session, which needs a connection of its own: it does not hold behind pgbouncer in
        transaction mode.

        Args:
            name: Of letters, digits, `.`, `_` and `-`.
            timeout: Seconds that the lock waits as a context; None: as long as it takes.
            shared: Others who ask for it as shared may have it at the same time; PostgreSQL only.
            across_homes: Also among processes with other homes that use the same SQLite file, for
                what is in an object store: the lock file is then beside that file.
        """
        if self._server is None:
            assert not shared
            file = self.settings.paths.lock(name)
            if across_homes:
                file = Path(str(self.engine.url.database)).with_name(f".{name}.lock")
            return FileExclusive(file, timeout)
        return AdvisoryExclusive(self._server.connect_alone, name, timeout, shared)

    @contextmanager
    def read(self, patience: float | None = None) -> Iterator[Session]:
        """A read transaction with a consistent snapshot; writers never block it.

        Args:
            patience: Seconds to wait for a process that locks a SQLite file against readers too,
                or for a PostgreSQL that hangs; None: as for other transactions.

        Raises:
            DatabaseBusy: The database is locked or cannot be reached.
        """
        options: dict[str, Any] = {}
        if self._server is not None:  # SQLite's transactions are like this
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        elif patience is not None:
            options = {"visionloop_patience": patience}
        with (
            client_errors(),
            Session(self.engine, expire_on_commit=False, info=self._info) as session,
        ):
            if options:
                connection = session.connection(execution_options=options)
                if patience is None:
                    self._limit(connection)
                elif self._server is not None:
                    limit_answers(connection, patience + QUICK_ANSWER)
            yield session

    def _limit(self, connection: Connection) -> None:
        """Do not wait for ever for an answer of PostgreSQL."""
        if self._server is not None:
            limit_statements(connection, self._patience + ANSWER)

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
        if self._server is None:
            self.engine.dispose()
        elif not self._closed:
            postgres.leave(self._server)
        self._closed = True

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
                    if not sqlite:  # a migration takes as long as it takes
                        limit_answers(connection, None)
                        connection.execute(text("SET LOCAL statement_timeout = 0"))
                        lock_transaction(connection, SCHEMA, self._patience)
                    _migrate(connection)
            finally:
                if sqlite:
                    _pragma(connection, "foreign_keys=ON")


def blocks(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """The values, at most BLOCK at a time: for the conditions of a statement."""
    for first in range(0, len(values), BLOCK):
        yield values[first : first + BLOCK]


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
        if current == MIGRATING:
            raise Conflict(
                "This database is the target of a `visionloop migrate` that did not end. Run it "
                "again: it goes on where it was."
            ) from None
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
    """The engine of a SQLite file."""
    url = settings.sqlalchemy_url
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
    lock = HomeLock(settings.paths.schema_lock)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise DatabaseBusy("Another process migrates the database. Try again.", RETRY) from None
    try:
        yield
    finally:
        lock.release()
