"""What is peculiar to PostgreSQL: connections, advisory locks, and changes by other processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from database_errors import RETRY
from errors import DatabaseBusy

if TYPE_CHECKING:
    from postgres_connection import GuardedConnection

POOL = 3  # connections of a process that stay open
MORE = 5  # and that are opened when these are in use
POOL_TIMEOUT = 3.0  # seconds that a transaction waits for one of them
LOCK_ANSWER = 10.0  # seconds to answer on the connection of a lock, beyond those it may wait
CHANGES_ANSWER = 5.0  # seconds to answer what has changed
FRESH = 1.5  # seconds since such an answer for which the server is known to answer

# A host that is gone is noticed within about ten seconds, by both sides: libpq's parameters here,
# the server's own settings there. A transaction that nobody ends does not lock the others out.
# What the URL says about them holds: postgresql+psycopg://HOST/NAME?connect_timeout=10
PARAMETERS = {
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# A timeout that the URL's `options`, the role or the database have set stays.
STATEMENTS = (
    "SELECT set_config('statement_timeout', '{}s', false) "
    "WHERE current_setting('statement_timeout') = '0'"
)
LIMIT = "SELECT setting::float / 1000 FROM pg_settings WHERE name = 'statement_timeout'"
SESSION = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 10000; SET idle_in_transaction_session_timeout = 60000"
)

POLL = 0.3  # seconds between two looks for changes of other processes


def advisory_key(name: str) -> int:
    """The number of an advisory lock, by name: 64 bits with a sign."""
    digest = hashlib.sha256(f"visionloop {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class Server:
    """The connections of this process to one database; all its `Database` objects share them.

    Attributes:
        engine: Their pool.
        writer: Held by the thread of this process that has, or waits for, the writers' lock of the
            database. The others wait here, so that they need no connection.
    """

    def __init__(self, url: URL) -> None:
        arguments = {name: value for name, value in PARAMETERS.items() if name not in url.query}
        self.engine = create_engine(
            url,
            connect_args=arguments,
            pool_size=POOL,
            max_overflow=MORE,
            pool_timeout=POOL_TIMEOUT,
            pool_pre_ping=True,  # a server that was restarted is found at the next transaction
        )
        self._own = create_engine(
            url, connect_args=arguments, poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        for engine in (self.engine, self._own):
            event.listen(engine, "do_connect", _guarded)
            event.listen(engine, "connect", _connected)
        event.listen(self.engine, "connect", _limited)
        event.listen(self.engine, "checkout", _usual)
        event.listen(self.engine, "checkin", _pinged_next)
        self.writer = threading.Lock()
        self.users = 0
        self._changes: ChangeReader | None = None

    def connect_alone(self) -> Connection:
        """A connection outside the pool, in autocommit mode."""
        return self._own.connect()

    def changes(self) -> ChangeReader:
        """The reader of changes, which the first call starts."""
        if self._changes is None:
            with _registry:
                self._changes = self._changes or ChangeReader(self.engine)
        return self._changes

    def forget(self) -> None:
        """Have a forked process open its own connections: those of its parent are not closed."""
        self.engine.dispose(close=False)
        self._own.dispose(close=False)
        self.writer = threading.Lock()
        self._changes = None  # the thread is the parent's

    def close(self) -> None:
        if self._changes is not None:
            self._changes.stop()
        self.engine.dispose()
        self._own.dispose()


_registry = threading.Lock()
_servers: dict[str, Server] = {}  # by URL


def _forked() -> None:
    global _registry
    _registry = threading.Lock()  # a thread of the parent may hold the other
    for server in _servers.values():
        server.forget()


os.register_at_fork(after_in_child=_forked)


def server_of(url: URL) -> Server:
    """The connections to a database; `leave` them when they are no longer needed."""
    key = url.render_as_string(hide_password=False)
    with _registry:
        server = _servers.get(key) or _servers.setdefault(key, Server(url))
        server.users += 1
        return server


def leave(server: Server) -> None:
    """Close the connections once nobody uses them any more."""
    with _registry:
        server.users -= 1
        if server.users:
            return
        for key in [key for key, found in _servers.items() if found is server]:
            del _servers[key]
    server.close()


class ChangeReader:
    """Follows the counters of the table `state` by a thread of its own, never in a request.

    Args:
        engine: Of the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found: dict[str, int] = {}  # key → number, which only grows
        self._ours = 0
        self._read_at = -FRESH
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="database-changes", daemon=True)
        self._thread.start()

    def number(self, keys: Iterable[str]) -> int:
        """Another number after each change of a counter; of other processes, within POLL."""
        found = self._found
        return (sum(found.get(key, 0) for key in keys) << 32) + self._ours

    @property
    def answers(self) -> bool:
        """Whether the server has answered just now."""
        return time.monotonic() - self._read_at < FRESH

    def note(self) -> None:
        """This process has changed something."""
        self._ours += 1

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            self._read()
            self._stopping.wait(POLL)

    def _read(self) -> None:
        with (
            contextlib.suppress(SQLAlchemyError),  # meanwhile, what was read before is served
            self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            limit_answers(connection, CHANGES_ANSWER)
            rows = connection.execute(text("SELECT key, number FROM state")).all()
            self._found = {row.key: row.number for row in rows}
            self._read_at = time.monotonic()


@contextmanager
def locked_writer(server: Server, patience: float) -> Iterator[None]:
    """While the block runs, no other thread of this process has the writers' lock.

    Raises:
        DatabaseBusy: Another one has it for `patience` seconds.
    """
    if not server.writer.acquire(timeout=patience):
        raise DatabaseBusy("Another transaction has locked the database. Try again.", RETRY)
    try:
        yield
    finally:
        server.writer.release()


WRITERS = advisory_key("writers")
SCHEMA = advisory_key("schema")


def lock_transaction(connection: Connection, key: int, patience: float) -> None:
    """Wait for an advisory lock, which the end of the transaction releases."""
    wait = {"wait": f"{max(1, round(1000 * patience))}ms", "key": key}
    query = "SELECT set_config('lock_timeout', :wait, true), pg_advisory_xact_lock(:key)"
    connection.execute(text(query), wait)


def limit_answers(connection: Connection, seconds: float | None) -> None:
    """Close a connection when the server takes longer to answer one of the next statements.

    Args:
        connection: Of a `Server`; the limit holds until it is given back.
        seconds: None: there is no limit.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.answer_within = seconds


def limit_statements(connection: Connection, seconds: float) -> None:
    """As `limit_answers`, unless the operator has chosen how long a statement may take."""
    driver: Any = connection.connection.dbapi_connection
    driver.answer_within = driver.chosen or seconds


def _guarded(_: Any, __: Any, arguments: Any, parameters: dict[str, Any]) -> Any:
    from postgres_connection import GuardedConnection  # late: only with PostgreSQL

    return GuardedConnection.connect(*arguments, **parameters)


def _limited(connection: GuardedConnection, _: ConnectionPoolEntry) -> None:
    from postgres_connection import GRACE, STATEMENT_TIMEOUT

    autocommit, connection.autocommit = connection.autocommit, True
    ours = connection.execute(STATEMENTS.format(STATEMENT_TIMEOUT)).fetchone()
    found = connection.execute(LIMIT).fetchone()
    connection.autocommit = autocommit
    connection.usual = found[0] + GRACE if found and found[0] else None
    connection.chosen = None if ours else connection.usual


def _usual(connection: GuardedConnection, *_: Any) -> None:
    connection.answer_within = connection.usual


def _pinged_next(connection: GuardedConnection | None, _: ConnectionPoolEntry) -> None:
    from postgres_connection import PING

    if connection is not None:  # None: it was found broken
        connection.answer_within = PING


def _connected(connection: Any, _: ConnectionPoolEntry) -> None:
    autocommit, connection.autocommit = connection.autocommit, True
    connection.execute(SESSION)
    connection.autocommit = autocommit
