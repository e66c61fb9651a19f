"""The database: one SQLAlchemy engine per process and the base class of all tables.

Only the migrations (Alembic) create and change tables, when a process opens the database; see
`migrations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
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

from errors import VisionLoopError
from settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0002"  # the newest revision in `migrations/versions`
BEFORE_ALEMBIC = 3  # versions without Alembic refuse a schema number from this one on
BUSY_TIMEOUT = 30  # seconds a SQLite writer waits for another one


def now() -> str:
    """The current time as stored and shown: ISO 8601 in UTC with milliseconds, sortable as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Base(DeclarativeBase):
    """Declarative base of all tables."""

    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012


class State(Base):
    """Key-value table; keys are `schema`, `generation`, `active` and `seeded:NAME`."""

    __tablename__ = "state"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, default=0)
    text: Mapped[str | None] = mapped_column(String(200), default=None)


class Database:
    """Engine and sessions of one database; thread-safe.

    A process opens one and passes it to all its stores, which thus share one connection pool.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = _engine(settings)
        with _schema_lock(settings):
            self._ensure_schema()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A write transaction, committed at the end of the block; it waits for other writers."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            session.connection(execution_options={"visionloop_write": True})
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read transaction with a consistent snapshot; writers never block it."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def _ensure_schema(self) -> None:
        """Migrate the tables to the newest revision, in one transaction.

        Raises:
            VisionLoopError: The tables are those of a newer VisionLoop.
        """
        with self.engine.connect() as connection:
            if _revision(connection) == HEAD:
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


def alembic_config(connection: Connection) -> Config:
    """The Alembic configuration for this project's migrations on a connection."""
    from alembic.config import Config  # slow to import; needed only for a migration

    import migrations

    config = Config()
    config.set_main_option(
        "script_location", str(Path(migrations.__file__).parent).replace("%", "%%")
    )
    config.attributes["connection"] = connection
    return config


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = alembic_config(connection)
    try:
        if current := _revision(connection):
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


def _revision(connection: Connection) -> str | None:
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


def _engine(settings: Settings) -> Engine:
    url = settings.sqlalchemy_url
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    settings.home.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT})

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: ConnectionPoolEntry) -> None:
        # sqlite3 starts transactions too late; `_begin` starts them (SQLAlchemy docs, pysqlite).
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer locks at once: upgrading a read lock fails if another writer has committed.
        write = connection.get_execution_options().get("visionloop_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def _schema_lock(settings: Settings) -> Iterator[None]:
    """Lock that lets one process at a time migrate a SQLite file."""
    if settings.sqlalchemy_url.get_backend_name() != "sqlite":
        yield
        return
    settings.home.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.paths.schema_lock, timeout=BUSY_TIMEOUT):
        yield
