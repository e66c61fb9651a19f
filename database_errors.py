"""Errors of the database as our own: locked, unreachable, full, damaged, or a value it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import String, inspect
from sqlalchemy.exc import DataError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from disk_space import NO_ROOM, is_disk_full
from errors import (
    DatabaseBusy,
    DatabaseDamaged,
    InsufficientStorage,
    ValidationFailed,
    VisionLoopError,
)

BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")  # and extended codes that begin with them
FULL = ("SQLITE_FULL",)
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
RESTORE = (
    "Stop the server and restore VISIONLOOP_HOME from a backup (docs/how-to/back-up.md). Without "
    "one: move the file away, start the server, and run `visionloop models reindex`, which "
    "finds the models again; jobs, evaluations and annotations that are not in datasets are lost."
)
# PostgreSQL's codes (SQLSTATE): the connection was lost, a conflict with another transaction,
# overloaded, locked, shut down; 25P03: we left a transaction open for too long; 57014: a statement
# took longer than `statement_timeout`
BUSY_STATES = ("08", "25P03", "40", "53", "55P03", "57P", "57014")
FULL_STATE = "53100"
VALUE_STATE = "22"  # a value that does not fit its column
RETRY = 5.0  # seconds of `Retry-After`

FAILURES = (SQLAlchemyError, DatabaseBusy, DatabaseDamaged, InsufficientStorage)
"""What transactions raise if the database cannot be used."""


@contextmanager
def client_errors() -> Iterator[None]:
    """A context that replaces errors of a locked, unreachable or full database by our own."""
    try:
        yield
    except SQLAlchemyError as error:
        if (known := _known(error)) is not None:
            raise known from error
        raise


def refuse_nul(_: Any, __: Any, ___: str, parameters: Any, *____: Any) -> None:
    """Refuse text with a NUL character, which PostgreSQL does not store, in any statement.

    Raises:
        ValidationFailed: A value has one.
    """
    rows = parameters if isinstance(parameters, list) else [parameters]
    for row in rows:
        for value in row.values() if isinstance(row, dict) else row:
            if isinstance(value, str) and "\0" in value:
                raise ValidationFailed("Text must not hold the NUL character (U+0000).")


def refuse_long_text(session: Session, *_: Any) -> None:
    """Refuse text that is longer than its column, which SQLite would store and PostgreSQL not.

    Raises:
        ValidationFailed: A value of a new or changed row is too long.
    """
    for row in (*session.new, *session.dirty):
        for name, column in inspect(type(row)).columns.items():
            longest = column.type.length if isinstance(column.type, String) else None
            value = row.__dict__.get(name)
            if longest and isinstance(value, str) and len(value) > longest:
                raise ValidationFailed(
                    f"{name!r} has {len(value):,} characters; {longest:,} are stored at most."
                )


def sqlstate(error: SQLAlchemyError) -> str:
    """PostgreSQL's code of an error; empty for SQLite, and if no server answered."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")


def _known(error: SQLAlchemyError) -> VisionLoopError | None:
    origin = getattr(error, "orig", None)
    name = str(getattr(origin, "sqlite_errorname", ""))
    state = sqlstate(error)
    if name.startswith(FULL) or state == FULL_STATE or is_disk_full(error):
        return InsufficientStorage(NO_ROOM)
    if name.startswith(BUSY):
        return DatabaseBusy("Another process has locked the database. Try again.", RETRY)
    if name.startswith(DAMAGED):
        return DatabaseDamaged(f"The database is damaged ({origin}). {RESTORE}")
    if state.startswith(VALUE_STATE) and isinstance(error, DataError):
        return ValidationFailed(f"The database cannot store a value: {_reason(origin)}.")
    silent = isinstance(error, OperationalError | InterfaceError) and not name and not state
    if state.startswith(BUSY_STATES) or silent or isinstance(error, PoolTimeout):
        return DatabaseBusy("The database cannot be reached or is overloaded. Try again.", RETRY)
    return None


def _reason(origin: BaseException | None) -> str:
    diagnosis = getattr(origin, "diag", None)
    return str(getattr(diagnosis, "message_primary", None) or "it does not fit its column")
