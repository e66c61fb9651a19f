"""A server while PostgreSQL is away: it predicts, is ready, and its metrics say what it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from access.sessions import SessionStore, all_sessions
from api.routes import metrics
from database import Database, State
from errors import Conflict
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.seed import seed
from models_store.store import ModelStore
from serving.gateway import Gateway
from settings import Settings
from storage.agreement import agree_on_store
from tests.support.patience import wait_until
from tests.support.postgres import Postgres
from upkeep.restore import check_restored, end_restored_sessions

Create = Callable[[], str]


class StandInRunner:
    """A runner that is up."""

    up = started = True
    batchers = ()

    async def status(self) -> dict[str, Any]:
        return {"engines": {}}


@pytest.fixture
def settings(tmp_path: Path, new_postgres: Create) -> Settings:
    return Settings(home=tmp_path / "home", database_url=new_postgres(), disk_reserve=0)


@pytest.fixture
def gateway(settings: Settings, tmp_path: Path) -> Iterator[Gateway]:
    database = Database(settings, 0.5)
    registry = Registry(database, ModelStore(tmp_path / "bento"))
    seed(registry)
    runners: Any = {"detector": StandInRunner(), "annotator": StandInRunner()}
    made = Gateway(settings, registry, runners)
    made._tried.set()
    yield made
    made.access.stop()
    database.close()


def test_a_server_stays_ready_and_says_that_its_database_is_away(
    gateway: Gateway, postgres_server: Postgres
) -> None:
    def names() -> dict[str, float]:
        found = asyncio.run(metrics._gauges(gateway))
        return {one.name: one.samples[0].value for one in found if one.samples}

    asyncio.run(gateway.check_ready())
    wait_until(lambda: gateway.registry.database.answers)
    before = names()
    assert before["visionloop_database_up"] == 1
    assert "visionloop_jobs" in before
    postgres_server.kill()
    try:
        wait_until(lambda: not gateway.registry.database.answers)
        asyncio.run(gateway.check_ready())
        during = names()
        assert during["visionloop_database_up"] == 0
        assert during["visionloop_runner_up"] == 1
        assert "visionloop_jobs" not in during
    finally:
        postgres_server.start()
    wait_until(lambda: names()["visionloop_database_up"] == 1)


def test_a_database_has_one_store(settings: Settings, tmp_path: Path) -> None:
    def server(name: str, url: str | None) -> Database:
        more = {"home": tmp_path / name, "store_url": url}
        return Database(settings.model_copy(update=more))

    first, same = server("a", "s3://bucket/one"), server("b", "s3://bucket/one/")
    other, none = server("c", "s3://bucket/two"), server("d", None)
    for database in (none, first, same, first):
        agree_on_store(database)
    with pytest.raises(Conflict) as caught:
        agree_on_store(other)
    said = caught.value.message
    assert "VISIONLOOP_STORE_URL is s3://bucket/two" in said
    assert "the files of this database are in s3://bucket/one." in said
    for database in (first, same, other, none):
        database.close()


def test_long_addresses_of_stores_are_told_apart(settings: Settings) -> None:
    long = f"s3://bucket/{'x' * 300}"
    databases = [
        Database(settings.model_copy(update={"store_url": long + end})) for end in ("a", "a", "b")
    ]
    agree_on_store(databases[0])
    agree_on_store(databases[1])
    with pytest.raises(Conflict):
        agree_on_store(databases[2])
    for database in databases:
        database.close()


def test_a_sqlite_file_takes_any_store(tmp_path: Path) -> None:
    for url in ("s3://bucket/one", "s3://bucket/two"):
        database = Database(Settings(home=tmp_path, store_url=url))
        agree_on_store(database)
        database.close()


def test_a_restore_needs_the_restored_dump_and_no_program_on_it(settings: Settings) -> None:
    with pytest.raises(Conflict, match="is empty, and the backup holds files only"):
        check_restored(settings)
    database = Database(settings)
    JobStore(database).list()
    with pytest.raises(Conflict, match="is in use: "):
        check_restored(settings)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'migrating'"))
    with pytest.raises(Conflict, match="is the target of a `visionloop migrate`"):
        check_restored(settings)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0017'"))
        assert session.get(State, "generation") is not None
    database.close()
    wait_until(lambda: _accepted(settings))  # the server notices the end of a connection soon


def test_a_restored_dump_brings_back_no_session_of_a_browser(settings: Settings) -> None:
    end_restored_sessions(settings)  # a dump of before there were any
    database = Database(settings)
    SessionStore(database).open(None, b"digest")
    end_restored_sessions(settings)
    with database.read() as session:
        assert all_sessions(session) == ()
    database.close()


def _accepted(settings: Settings) -> bool:
    try:
        check_restored(settings)
    except Conflict:
        return False
    return True
