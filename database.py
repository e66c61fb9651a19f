"""The database: one engine a process, one declarative base.

Every table of the project is declared on `Base`. Tables are made and changed by the migrations
(Alembic) alone, at the next start; see `migrations`.
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

HEAD = "0002"  # the newest of `migrations/versions`
BEFORE_ALEMBIC = 3  # schema number from which the versions before Alembic keep away
BUSY_TIMEOUT = 30  # seconds that a SQLite writer waits for another


def now() -> str:
    """The time as it is stored and shown: ISO 8601, UTC, sortable as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012


class State(Base):
    """Named numbers and texts: `schema`, `generation`, `active`, `seeded:NAME`."""

    __tablename__ = "state"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, default=0)
    text: Mapped[str | None] = mapped_column(String(200), default=None)


class Database:
    """Engine and sessions of one database; safe to share between threads.

    A process opens one and hands it to its stores: each has a pool of connections.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = _engine(settings)
        with _schema_lock(settings):
            self._ensure_schema()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits at the end; it waits for other writers."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            session.connection(execution_options={"visionloop_write": True})
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view; never blocked by writers."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()

    def _ensure_schema(self) -> None:
        """Bring the tables up to date, in one transaction.

        Raises:
            VisionLoopError: A newer VisionLoop has changed them.
        """
        with self.engine.connect() as connection:
            if _revision(connection) == HEAD:
                return
            sqlite = connection.dialect.name == "sqlite"
            connection = connection.execution_options(visionloop_write=True)
            connection.rollback()
            if sqlite:  # a table is altered by copying it; dropping the old one must not cascade
                _pragma(connection, "foreign_keys=OFF")
            try:
                with connection.begin():
                    _migrate(connection)
            finally:
                if sqlite:
                    _pragma(connection, "foreign_keys=ON")


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for the migrations of this project, on a connection."""
    from alembic.config import Config  # slow to import, and needed only where something changes

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
            f"The database has the schema {current}, this program knows {HEAD}: it was used by a "
            "newer VisionLoop. Use that one, or another VISIONLOOP_HOME."
        ) from None
    command.upgrade(config, "head")
    with Session(connection) as session:
        session.merge(State(key="schema", number=BEFORE_ALEMBIC))
        if session.get(State, "generation") is None:
            session.add(State(key="generation", number=1))
        session.flush()


def _revision(connection: Connection) -> str | None:
    """The last migration that was applied; None before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _pragma(connection: Connection, setting: str) -> None:
    """Outside a transaction, where SQLite obeys it."""
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
        # The driver's own transactions begin too late (SQLAlchemy: "SQLite transactions").
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: upgrading a reader's fails when another wrote.
        write = connection.get_execution_options().get("visionloop_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def _schema_lock(settings: Settings) -> Iterator[None]:
    if settings.sqlalchemy_url.get_backend_name() != "sqlite":
        yield
        return
    settings.home.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.paths.schema_lock, timeout=BUSY_TIMEOUT):
        yield
