"""Locks by name among all processes that share a database: `Database.exclusive`."""

from __future__ import annotations

import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from filelock import Timeout
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from database_errors import FAILURES, client_errors, sqlstate
from files import HomeLock
from postgres import LOCK_ANSWER, advisory_key, limit_answers

log = logging.getLogger("visionloop")

LOCK_CHECK = 2.0  # seconds between two questions whether a lock for life is still held
LOCKED = "55P03"  # PostgreSQL's code: the time to wait for a lock is over


class Exclusive(Protocol):
    """A lock that one holder at a time has; as a context, it is held while the block runs.

    It is free again when its process ends, however that happens. Any thread may release it; a
    holder does not acquire it twice.
    """

    def acquire(self, timeout: float | None = None) -> None:
        """Wait until it is free.

        Args:
            timeout: Maximum number of seconds to wait; 0: do not wait; None: as long as it takes.

        Raises:
            filelock.Timeout: Another holder kept it for so long.
            DatabaseBusy: The database cannot be reached.
            OSError: The file system of the home has no locks; the message names the folder.
        """
        ...

    def release(self) -> None:
        """Let others have it; without effect if it is not held."""
        ...

    def is_held(self) -> bool:
        """Whether it is still held, as the database says now.

        On PostgreSQL, it is lost with the connection that holds it: the server was restarted, or
        could not be reached for about ten seconds. Who holds a lock for long asks from time to
        time, and stops what the lock permits once the answer is no.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class _Context(ABC):
    """The methods of a context, for both kinds of lock."""

    _timeout: float | None

    @abstractmethod
    def acquire(self, timeout: float | None = None) -> None: ...

    @abstractmethod
    def release(self) -> None: ...

    def __enter__(self) -> Self:
        self.acquire(self._timeout)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class FileExclusive(_Context):
    """A file lock: for a database that is a SQLite file of this machine.

    Args:
        path: The lock's file.
        timeout: Seconds that the context waits; None: as long as it takes.
    """

    def __init__(self, path: Path, timeout: float | None) -> None:
        self._timeout = timeout
        self._path = path
        self._lock = HomeLock(path)

    def acquire(self, timeout: float | None = None) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire(timeout=-1 if timeout is None else timeout)

    def release(self) -> None:
        self._lock.release()

    def is_held(self) -> bool:
        return self._lock.is_locked


class AdvisoryExclusive(_Context):
    """A session advisory lock on a connection of its own: for PostgreSQL.

    It needs a session of the server for itself. A pooler between us and the server must therefore
    pool sessions: behind pgbouncer in transaction mode, another client may be given the session
    that holds the lock.

    Args:
        connect: Opens the connection, in autocommit mode.
        name: The lock's name.
        timeout: Seconds that the context waits; None: as long as it takes.
        shared: Any number of others who ask for it as shared may hold it at the same time.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        name: str,
        timeout: float | None,
        shared: bool = False,
    ) -> None:
        self._timeout = timeout
        self._suffix = "_shared" if shared else ""
        self._connect = connect
        self._name = name
        self._key = advisory_key(f"exclusive {name}")
        self._connection: Connection | None = None
        self._mutex = threading.Lock()  # of the connection, which one thread at a time may use

    def acquire(self, timeout: float | None = None) -> None:
        with client_errors():
            connection = self._connect()
            try:
                acquired = self._ask(connection, timeout)
            except BaseException:
                connection.invalidate()
                connection.close()
                raise
        if not acquired:
            connection.close()
            raise Timeout(self._name)
        with self._mutex:
            self._connection = connection

    def _ask(self, connection: Connection, timeout: float | None) -> bool:
        key = {"key": self._key}
        limit_answers(connection, LOCK_ANSWER)
        if timeout == 0:
            query = f"SELECT pg_try_advisory_lock{self._suffix}(:key)"
            return bool(connection.scalar(text(query), key))
        # 0 would be for ever
        wait = 0 if timeout is None else max(1, round(1000 * timeout))
        connection.execute(text(f"SET lock_timeout = {wait}; SET statement_timeout = 0"))
        limit_answers(connection, None if timeout is None else timeout + LOCK_ANSWER)
        try:
            connection.execute(text(f"SELECT pg_advisory_lock{self._suffix}(:key)"), key)
            limit_answers(connection, LOCK_ANSWER)
        except SQLAlchemyError as error:
            if sqlstate(error) == LOCKED:
                return False
            raise
        return True

    def release(self) -> None:
        with self._mutex:
            connection, self._connection = self._connection, None
            if connection is not None:
                _end(connection)  # and the lock with its session

    def is_held(self) -> bool:
        query = (
            "SELECT EXISTS (SELECT FROM pg_locks "
            "WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid())"
        )
        with self._mutex:
            if self._connection is None:
                return False
            with contextlib.suppress(SQLAlchemyError):
                if self._connection.scalar(text(query)):
                    return True
            _end(self._connection)
            self._connection = None
            return False


def _end(connection: Connection) -> None:
    """Close a connection that may be broken."""
    with contextlib.suppress(SQLAlchemyError):
        connection.close()


class HeldForLife:
    """A lock that this process has until it ends, and takes again when it was lost.

    Args:
        lock: Acquired already.
        taken: Logged as an error, once, if another holder has it when it is to be taken again.
        pause: Seconds between two questions whether it is still held.
    """

    def __init__(self, lock: Exclusive, taken: str, pause: float = LOCK_CHECK) -> None:
        self._lock = lock
        self._taken = taken
        self._pause = pause
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lock-for-life", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let others have it, before the process ends."""
        self._stopping.set()
        self._thread.join()
        self._lock.release()

    def _keep(self) -> None:
        said = False
        while not self._stopping.wait(self._pause):
            if self._lock.is_held():
                continue
            try:
                self._lock.acquire(0)
                said = False
            except Timeout:
                if not said:
                    log.error("%s", self._taken)
                said = True
            except FAILURES:  # the next question finds whether the database is back
                continue
