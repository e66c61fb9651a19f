"""The database on a real PostgreSQL: schema, locks, a server that is killed and comes back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from filelock import Timeout
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

import database as database_module
from access.generation import raise_generation
from access.live_tokens import LiveTokens
from access.sessions import COOKIE_LENGTH
from access.tokens import TokenStore
from database import HEAD, Database, State
from database_errors import client_errors, sqlstate
from errors import DatabaseBusy, InsufficientStorage, ModelNotFound, ValidationFailed
from jobs.store import JobStore
from migrations.tables import METADATA
from models_store.registry import Registry
from models_store.store import ModelStore
from postgres import lock_transaction
from settings import Settings
from tests.support.frozen_server import way_to
from tests.support.patience import PATIENCE, wait_until
from tests.support.postgres import Postgres

ROOT = Path(__file__).parents[1]
Create = Callable[[], str]


def home(folder: Path, url: str) -> Settings:
    return Settings(home=folder, database_url=url, disk_reserve=0)


@pytest.fixture
def settings(tmp_path: Path, new_postgres: Create) -> Settings:
    return home(tmp_path / "home", new_postgres())


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """Two objects on one database; on PostgreSQL with two homes."""
    if request.param == "postgres":
        url = request.getfixturevalue("new_postgres")()
        made = [Database(home(tmp_path / name, url), 0.5) for name in ("one", "two")]
    else:
        url = f"sqlite:///{tmp_path}/one/visionloop.db"
        made = [Database(home(tmp_path / "one", url), 0.5) for _ in range(2)]
    yield made[0], made[1]
    for database in made:
        database.close()


def test_eight_processes_open_a_new_database_at_once(settings: Settings) -> None:
    code = (
        "import sys; from pathlib import Path; from database import Database; "
        "from settings import Settings; "
        "Database(Settings(home=Path(sys.argv[1]), database_url=sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(settings.home), str(settings.database_url)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(8)
    ]
    assert [process.communicate()[1] for process in started] == [""] * 8
    assert [process.returncode for process in started] == [0] * 8


def test_the_migrations_make_the_tables_that_the_code_declares(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
        found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    assert found == HEAD


def test_all_stores_of_a_process_share_few_connections(settings: Settings) -> None:
    opened = [Database(settings) for _ in range(5)]
    assert len({id(database.engine) for database in opened}) == 1
    for database in opened[1:]:
        database.close()
        database.close()  # closing twice does not close it for the others
    assert JobStore(opened[0]).list() == []
    opened[0].close()
    again = Database(settings)
    assert again.engine is not opened[0].engine
    again.close()


def test_a_lock_has_one_holder(pair: tuple[Database, Database]) -> None:
    here, there = (database.exclusive("seed") for database in pair)
    here.acquire(0)
    assert here.is_held()
    with pytest.raises(Timeout):
        there.acquire(0)
    with pytest.raises(Timeout):
        there.acquire(0.05)
    assert not there.is_held()
    with pair[1].exclusive("adopt-x", timeout=0):  # another name is another lock
        pass
    thread = threading.Thread(target=here.release)  # another one than acquired it
    thread.start()
    thread.join()
    assert not here.is_held()
    here.release()  # without effect
    there.acquire(PATIENCE)
    there.release()


def test_who_waits_for_a_lock_gets_it_once_it_is_free(pair: tuple[Database, Database]) -> None:
    here, there = (database.exclusive("seed", PATIENCE) for database in pair)
    events: list[str] = []

    def wait() -> None:
        with there:
            events.append("there")

    with here:
        thread = threading.Thread(target=wait)
        thread.start()
        events.append("here")
    thread.join(PATIENCE)
    assert events == ["here", "there"]


def test_read_modify_write_loses_nothing(pair: tuple[Database, Database]) -> None:
    with pair[0].write() as session:
        session.add(State(key="count", number=0))
    failed: list[Exception] = []

    def count(database: Database) -> None:
        for _ in range(20):
            while True:
                try:
                    with database.write() as session:
                        row = session.get(State, "count")
                        assert row is not None
                        row.number += 1
                    break
                except DatabaseBusy:
                    continue
                except Exception as error:
                    failed.append(error)
                    return

    threads = [threading.Thread(target=count, args=(database,)) for database in pair * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failed == []
    with pair[1].read() as session:
        assert session.get_one(State, "count").number == 80


def test_a_writer_elsewhere_is_waited_for_as_long_as_one_has_patience(
    settings: Settings, database: Database, postgres_server: Postgres
) -> None:
    from postgres import WRITERS, Server

    hurried = Database(settings, patience=0.1)
    other = Server(settings.sqlalchemy_url)
    jobs = JobStore(hurried)
    made = jobs.create("training", config={}, recipe={})
    with other.engine.begin() as connection:
        lock_transaction(connection, WRITERS, PATIENCE)
        with pytest.raises(DatabaseBusy) as caught:
            jobs.create("training", config={}, recipe={})
        assert caught.value.retry_after
        assert [job.id for job in jobs.list()] == [made.id]  # readers go on
        assert jobs.claim(made.id, "a claim")  # and moves of one row
    jobs.create("training", config={}, recipe={})
    hurried.close()
    other.close()


def test_a_change_elsewhere_is_seen(pair: tuple[Database, Database]) -> None:
    here, there = pair
    before = there.change()
    wait_until(lambda: there.change() == there.change())
    with here.write() as session:
        raise_generation(session)
    assert here.change() != before
    seen = there.change()
    wait_until(lambda: there.change() != before or there.change() != seen)


def test_a_server_that_returns_is_used_again_without_a_restart(
    tmp_path: Path, postgres_server: Postgres, new_postgres: Create
) -> None:
    database = Database(home(tmp_path, new_postgres()), 0.5)
    jobs, lock = JobStore(database), database.exclusive("dispatcher")
    lock.acquire(0)
    made = jobs.create("training", config={}, recipe={})
    before = database.change()
    postgres_server.kill()
    try:
        assert not lock.is_held()
        with pytest.raises(DatabaseBusy) as caught:
            jobs.list()
        assert caught.value.retry_after
        with pytest.raises(DatabaseBusy):
            jobs.create("training", config={}, recipe={})
        with pytest.raises(DatabaseBusy):
            lock.acquire(0)
        database.change()  # needs no database
    finally:
        postgres_server.start()
    assert [job.id for job in jobs.list()] == [made.id]
    lock.acquire(0)
    assert lock.is_held()
    lock.release()
    with database.write() as session:
        raise_generation(session)
    assert database.change() != before
    database.close()


def test_requests_do_not_wait_for_a_server_that_hangs(
    tmp_path: Path, postgres_server: Postgres, new_postgres: Create
) -> None:
    """The event loop reads models and tokens for each request."""
    with way_to(postgres_server.port) as way:
        url = new_postgres().replace(f":{postgres_server.port}/", f":{way.port}/")
        database = Database(home(tmp_path, url))
        registry = Registry(database, ModelStore(tmp_path / "bento"), refresh_seconds=0)
        tokens = LiveTokens(TokenStore(database), lambda _: None, refresh_seconds=0)
        wait_until(lambda: database.change() > 0)  # it has read
        read = (registry.list(), tokens.closed)
        way.open.clear()
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append((registry.list(), tokens.closed)))
        thread.start()
        thread.join(PATIENCE)
        assert answers == [read]
        way.open.set()
        thread.join(PATIENCE)
        database.close()


def test_what_is_not_known_is_not_asked_of_a_server_that_hangs(
    tmp_path: Path, postgres_server: Postgres, new_postgres: Create
) -> None:
    """Unknown models and tokens are looked up in the event loop, too."""
    unknown = f"vl_{'0' * 12}_{'0' * 43}"
    with way_to(postgres_server.port) as way:
        url = new_postgres().replace(f":{postgres_server.port}/", f":{way.port}/")
        database = Database(home(tmp_path, url))
        registry = Registry(database, ModelStore(tmp_path / "bento"), miss_seconds=0)
        tokens = LiveTokens(TokenStore(database), lambda _: None)
        wait_until(lambda: database.answers)
        assert (registry.list(), tokens.closed) == ([], False)
        way.open.clear()
        wait_until(lambda: not database.answers)
        began = time.monotonic()
        with pytest.raises(ModelNotFound):
            registry.get("unknown")
        assert tokens.find(unknown) is None
        assert tokens.session("0" * COOKIE_LENGTH) is None
        assert time.monotonic() - began < 0.5
        way.open.set()
        wait_until(lambda: database.answers)
        database.close()


@pytest.mark.parametrize("what", ["read", "write", "lock"])
def test_a_server_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path,
    postgres_server: Postgres,
    new_postgres: Create,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    monkeypatch.setattr("database.ANSWER", 0.3)
    monkeypatch.setattr("exclusive.LOCK_ANSWER", 0.3)
    monkeypatch.setattr("postgres_connection.PING", 0.3)
    with way_to(postgres_server.port) as way:
        url = new_postgres().replace(f":{postgres_server.port}/", f":{way.port}/")
        more = "?connect_timeout=2"  # libpq's shortest
        database = Database(home(tmp_path, url + more), patience=0.2)
        lock = database.exclusive("seed")
        lock.acquire(0)
        way.open.clear()
        if what == "lock":
            assert not lock.is_held()
        else:
            use = database.read if what == "read" else database.write
            with pytest.raises(DatabaseBusy), use() as session:
                session.get(State, "generation")
        way.open.set()
        with database.read() as session:
            assert session.get(State, "generation") is not None
        lock.release()
        database.close()


def test_a_read_that_hangs_half_way_ends(
    tmp_path: Path,
    postgres_server: Postgres,
    new_postgres: Create,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("database.ANSWER", 0.3)
    with way_to(postgres_server.port) as way:
        url = new_postgres().replace(f":{postgres_server.port}/", f":{way.port}/")
        database = Database(home(tmp_path, url), patience=0.2)

        def two_reads() -> None:
            with database.read() as session:
                session.get(State, "generation")
                way.open.clear()
                session.get(State, "schema")

        with pytest.raises(DatabaseBusy):
            two_reads()
        way.open.set()
        database.close()


@pytest.mark.parametrize(
    ("options", "found"), [("", "1min"), ("?options=-c%20statement_timeout%3D1500", "1500ms")]
)
def test_a_statement_has_a_time_that_the_url_may_say(
    tmp_path: Path, new_postgres: Create, options: str, found: str
) -> None:
    database = Database(home(tmp_path, new_postgres() + options))
    with database.read() as session:
        assert session.scalar(text("SHOW statement_timeout")) == found
    if options:
        with pytest.raises(DatabaseBusy), database.read() as session:
            session.execute(text("SELECT pg_sleep(9)"))
    database.close()


def test_a_longer_time_of_the_url_holds_for_reads_and_writes(
    tmp_path: Path, new_postgres: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "ANSWER", 0.2)
    url, slow = new_postgres(), text("SELECT pg_sleep(1)")
    ours = Database(home(tmp_path, url), patience=0.1)
    chosen = Database(home(tmp_path, url + "?options=-c%20statement_timeout%3D30s"), patience=0.1)
    for transaction in (ours.read, ours.write, ours.write_rows):
        with pytest.raises(DatabaseBusy), transaction() as session:
            session.execute(slow)
    for transaction in (chosen.read, chosen.write, chosen.write_rows):
        with transaction() as session:
            session.execute(slow)
    monkeypatch.setattr(database_module, "QUICK_ANSWER", 0.2)
    with pytest.raises(DatabaseBusy), chosen.read(patience=0.1) as session:  # an event loop waits
        session.execute(slow)
    for database in (ours, chosen):
        database.close()


def test_parameters_of_the_url_hold(tmp_path: Path, new_postgres: Create) -> None:
    more = "?connect_timeout=9&keepalives_idle=7"
    database = Database(home(tmp_path, new_postgres() + more))
    with database.engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        used = driver.info.get_parameters()
    assert (used["connect_timeout"], used["keepalives_idle"]) == ("9", "7")
    assert used["tcp_user_timeout"] == "10000"
    database.close()


def test_a_full_disk_of_the_server_is_said(database: Database) -> None:
    """The server itself raises the error, with the code of a full disk."""
    raised = "DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"
    with pytest.raises(InsufficientStorage), database.write() as session:
        session.execute(text(raised))


def test_a_lost_connection_has_a_code(database: Database) -> None:
    with database.engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        with database.engine.connect() as other:
            other.execute(text(f"SELECT pg_terminate_backend({pid})"))
        with pytest.raises(DatabaseBusy), client_errors():
            connection.execute(text("SELECT 1"))


def test_orderings_are_those_of_bytes(database: Database) -> None:
    with database.write() as session:
        for key in ("b", "A", "a", "B", "_", "Z"):
            session.add(State(key=key, number=0))
    with database.read() as session:
        rows = session.scalars(text("SELECT key FROM state WHERE length(key) = 1 ORDER BY key"))
        assert list(rows) == ["A", "B", "Z", "_", "a", "b"]


def test_text_that_one_database_would_not_store_is_refused_on_both(
    pair: tuple[Database, Database],
) -> None:
    with pytest.raises(ValidationFailed, match="NUL"), pair[0].write() as session:
        session.add(State(key="a", text="a\0b"))
    with pytest.raises(ValidationFailed, match="NUL"), pair[0].read() as session:
        session.scalar(select(State.number).where(State.key == "a\0b"))
    refused = pytest.raises(ValidationFailed, match="'text' has 201 characters; 200")
    with refused, pair[0].write() as session:
        session.add(State(key="b", text="x" * 201))
    with pair[0].write() as session:
        session.add(State(key="c", text="ü" * 200))  # characters, not bytes
    with pair[1].read() as session:
        found = session.scalars(select(State.key).where(State.key.in_(["a", "b", "c"])))
        assert list(found) == ["c"]


def test_sqlite_errors_have_no_state() -> None:
    assert sqlstate(SQLAlchemyError("x")) == ""
