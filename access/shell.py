"""Entries of the audit trail for shell commands."""

from __future__ import annotations

import contextlib
import getpass
import sys
from contextlib import closing

from access.audit import AuditLog
from access.entry import Entry
from database import FAILURES, Database
from settings import Settings


def shell_user() -> str:
    """Who runs this command, in stored records: `command line, USER`."""
    with contextlib.suppress(KeyError, OSError):
        return f"command line, {getpass.getuser()}"
    return "command line"


def record(database: Database, command: str, target: str | None, what: str) -> None:
    """Add an entry for a command that has changed something.

    If that fails, the change is not undone: a warning says so.

    Args:
        database: The database of the command.
        command: Package and name of the command, such as `models_store promote`.
        target: Id or name of what it changed.
        what: A few words.
    """
    try:
        AuditLog(database).add([Entry(shell_user(), command, what, target)])
    except FAILURES as error:
        _warn(error)


def record_in(settings: Settings, command: str, what: str) -> None:
    """As `record`, for a command that has no open database."""
    try:
        with closing(Database(settings)) as database:
            record(database, command, None, what)
    except FAILURES as error:
        _warn(error)


def _warn(error: Exception) -> None:
    print(f"warning: it is done, but not in the audit trail: {error}", file=sys.stderr)
