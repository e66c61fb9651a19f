"""The database that a migration fills. Until it is complete, nothing else opens it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, delete, inspect, select, text
from sqlalchemy.orm import Session

from database import HEAD, MIGRATING, Database, State, client_errors, revision
from errors import Conflict
from settings import Settings
from upkeep.database_use import connection_to, named
from upkeep.migration.rows import MARKER, used


@contextmanager
def target(settings: Settings, identity: str) -> Iterator[Database]:
    """The database of a migration, empty or as an interrupted one left it.

    While the block runs, and if it does not end with `finish`, `alembic_version` names no revision,
    so that neither a server nor a command opens the database.

    Args:
        settings: Name it.
        identity: What is migrated into what, in up to 150 characters.

    Raises:
        Conflict: It holds something else.
    """
    check_target(settings, identity, begin=True)
    database = Database(settings)
    try:
        with client_errors(), database.engine.begin() as connection:
            _set_revision(connection, MIGRATING)
            with Session(connection) as session:
                session.merge(State(key=MARKER, number=0, text=f"{HEAD} {identity}"))
                session.flush()
        yield database
    finally:
        database.close()


def check_target(settings: Settings, identity: str, begin: bool = False) -> bool:
    """Refuse a database that is not empty, unless it is that of this migration.

    Args:
        settings, identity: As in `target`.
        begin: Make it one that `Database` opens.

    Returns:
        Whether the migration was begun before.
    """
    if not _exists(settings):
        return False
    with client_errors(), connection_to(settings) as connection, connection.begin():
        if not inspect(connection).has_table("alembic_version"):
            if found := inspect(connection).get_table_names():
                raise Conflict(_not_empty(settings, found))
            return False
        if revision(connection) != MIGRATING:
            if found := used(connection):
                raise Conflict(_not_empty(settings, found))
            return False
        before = connection.scalar(select(State.text).where(State.key == MARKER))
        begun, _, whose = str(before).partition(" ")
        if whose != identity:
            raise Conflict(
                f"{named(settings)} is the target of another migration, which did not end "
                f"({whose}). End that one, or empty the database."
            )
        if begin:
            _set_revision(connection, begun)
    return True


def finish(connection: Connection) -> None:
    """Make the database one that is complete, at the end of its last transaction."""
    connection.execute(delete(State).where(State.key == MARKER))
    _set_revision(connection, HEAD)


def _exists(settings: Settings) -> bool:
    return bool(settings.database_url) or settings.paths.database.exists()


def _not_empty(settings: Settings, found: list[str]) -> str:
    return (
        f"{named(settings)} is not empty: {', '.join(found[:5])}. A migration does not merge. Give "
        "it an empty database."
    )


def _set_revision(connection: Connection, value: str) -> None:
    table = text("UPDATE alembic_version SET version_num = :value")
    connection.execute(table, {"value": value})
