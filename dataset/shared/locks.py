"""Locks across machines: of each name, one holder among all processes that use the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from database import Database


@contextmanager
def held(database: Database, name: str, timeout: float) -> Iterator[None]:
    """A context that holds a lock: `Database.exclusive`, or a file beside the SQLite file, which
    servers with homes of their own may share.

    Args:
        database: The database.
        name: Of letters, digits, `.`, `_` and `-`.
        timeout: Seconds to wait.

    Raises:
        filelock.Timeout: Others have held it for `timeout` seconds.
        DatabaseBusy: The database cannot be reached.
    """
    url = database.settings.sqlalchemy_url
    if url.get_backend_name() == "sqlite":
        with FileLock(Path(str(url.database)).with_name(f".{name}.lock"), timeout=timeout):
            yield
    else:
        with database.exclusive(name, timeout):
            yield
