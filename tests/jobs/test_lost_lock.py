"""The dispatcher on PostgreSQL: it loses its lock with its connection, and takes it again."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from database import Database, now
from jobs.claims import HOST
from jobs.finalizer import dispatcher_lock, leader
from jobs.store import JobStore
from settings import Settings
from tests.support.dispatching import dispatching, running, story, submit, until
from tests.support.patience import PATIENCE, wait_until

LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted = :granted"
END = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
    "AND pid <> pg_backend_pid()"
)


@pytest.fixture
def machines(tmp_path: Path, new_postgres: Callable[[], str]) -> Iterator[list[Database]]:
    """Two machines on one database."""
    url = new_postgres()
    made = [
        Database(Settings(home=tmp_path / name, database_url=url, disk_reserve=0))
        for name in ("here", "there")
    ]
    yield made
    for database in made:
        database.close()


def test_the_database_says_who_leads_and_since_when(machines: list[Database]) -> None:
    here, there = machines

    async def body() -> None:
        assert leader(there) is None
        before = now()
        async with dispatching(JobStore(here), "true"):
            await until(lambda: leader(there) is not None)
            found = leader(there)
            assert found is not None
            assert found["server"] == HOST
            assert before <= found["since"] <= now()
        assert leader(there) is None

    story(JobStore(here), body)


def locks(database: Database, granted: bool) -> int:
    with database.read() as session:
        found: int = session.scalars(text(LOCKS), {"granted": granted}).one()
    return found


def test_a_dispatcher_that_lost_its_lock_starts_no_job_until_it_has_it_again(
    machines: list[Database], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines
    store, other = JobStore(here), dispatcher_lock(there)
    taking = threading.Thread(target=other.acquire, args=(PATIENCE,))

    told: list[bool] = []

    async def body() -> None:
        async with dispatching(store, "exec sleep 9999", slots=2) as dispatcher:
            dispatcher.on_lead = told.append
            first = submit(store)
            began = await running(store, first)
            assert dispatcher.leads
            taking.start()
            await asyncio.to_thread(wait_until, lambda: locks(there, granted=False) == 1)
            asked = 0
            acquire = dispatcher._lock.acquire

            def counted(timeout: float | None = None) -> None:
                nonlocal asked
                asked += 1
                acquire(timeout)

            monkeypatch.setattr(dispatcher._lock, "acquire", counted)
            with there.engine.connect() as connection:
                connection.execute(text(END))  # as if its machine could not be reached
            await until(
                lambda: other.is_held() and "lock of the dispatcher was lost" in caplog.text
            )
            second = submit(store)
            dispatcher.wake()
            before = asked
            await until(lambda: asked > before + 2)
            assert not dispatcher.leads
            assert store.get(second.id).status == "queued"
            assert told == [True, False]
            assert store.get(first.id).status == "running"
            other.release()
            await running(store, second)
            found = store.get(first.id)  # nobody else has taken it over: it was never ended
            assert (found.status, found.pid, found.attempts) == (
                "running",
                began.pid,
                began.attempts,
            )
            assert locks(there, granted=True) == 1
            assert told == [True, False, True]
        assert told == [True, False, True, False]

    with caplog.at_level(logging.WARNING, "visionloop"):
        try:
            story(store, body)
        finally:
            taking.join()
            other.release()
