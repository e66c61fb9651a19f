"""A server on another machine takes over the jobs that run on the cluster, with their logs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from errors import DatabaseBusy
from jobs.dispatcher import Dispatcher
from jobs.execution.ray_engine import RayEngine, claim_of
from jobs.job import Job
from jobs.logs.shared_logs import SharedLogs
from jobs.store import JobStore
from tests.support.dispatching import at_work, log_of, story, submit
from tests.support.fake_ray import TOKEN, FakeRay, fake_ray
from tests.support.patience import until
from tests.support.two_machines import Stores

QUICK = 0.02  # seconds between two looks


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    with fake_ray() as found:
        yield found


@asynccontextmanager
async def leading(store: JobStore, ray: FakeRay) -> AsyncIterator[Dispatcher]:
    """The dispatcher of a machine. Each home has a lock of its own, so both may lead at once."""
    settings = store.database.settings.model_copy(update={"train_slots": 1})
    engine = RayEngine(settings, ray.url, SecretStr(TOKEN), QUICK)
    async with at_work(Dispatcher(store, settings, engine, retry=0.05)) as dispatcher:
        yield dispatcher


async def started(store: JobStore, ray: FakeRay, job: Job) -> str:
    """The claim of the job's worker, once the row says that it runs."""
    await until(lambda: store.get(job.id).status == "running")
    claim = claim_of(job)
    ray.run(claim)
    return claim


def lines(store: JobStore, job: Job) -> list[str]:
    return [line.partition("] ")[2] for line in log_of(store, job).splitlines()]


def test_a_log_goes_on_where_the_other_machine_was(two: Stores, ray: FakeRay) -> None:
    a, b = two

    async def body() -> None:
        job = submit(a)
        async with leading(a, ray):
            claim = await started(a, ray, job)
            ray.run(claim, "epoch 1\nepöch 2\nepo")
            await until(lambda: "epöch 2" in lines(b, job))
        ray.run(claim, "ch 3\n")
        async with leading(b, ray) as second:
            await until(lambda: "epoch 3" in lines(a, job))
            b.note(job.id, claim, outcome="completed")
            ray.run(claim, "the last word")
            ray.exit(claim, 0)
            await second.finished(job.id)
        said = [line for line in lines(b, job) if line.startswith(("ep", "the last"))]
        assert said == ["epoch 1", "epöch 2", "epoch 3", "the last word"]
        assert lines(a, job) == lines(b, job)

    story(a, body)


def test_two_machines_that_both_watch_a_worker_write_its_output_once(
    two: Stores, ray: FakeRay
) -> None:
    """One that has lost its lock watches on; the other has taken over."""
    a, b = two
    count = 60

    async def body() -> None:
        job = submit(a)
        async with leading(a, ray):
            claim = await started(a, ray, job)
            async with leading(b, ray) as second:
                for number in range(count):
                    ray.run(claim, f"line {number}\n")
                    await asyncio.sleep(0.05)
                await until(lambda: f"line {count - 1}" in lines(b, job))
                b.note(job.id, claim, outcome="completed")
                ray.run(claim, "the last word")
                ray.exit(claim, 0)
                await second.finished(job.id)
        said = [line for line in lines(b, job) if line.startswith(("line", "the last"))]
        assert said == [*(f"line {number}" for number in range(count)), "the last word"]

    story(a, body)


def test_a_new_attempt_of_a_job_writes_its_output_from_its_beginning(two: Stores) -> None:
    a, b = two
    a.log_writer("j").feed(b"epoch 1\n", mark=("attempt-1", 8), ended=True)
    again = b.log_writer("j")
    assert again.copied("attempt-1") == 8
    assert again.copied("attempt-2") == 0
    again.feed(b"epoch 1\n", mark=("attempt-2", 8), ended=True)
    assert (again.copied("attempt-1"), again.copied("attempt-2")) == (8, 8)
    assert b.log_to_read("j").read_bytes().count(b"epoch 1") == 2


def test_output_without_a_line_to_keep_breaks_no_chain(two: Stores) -> None:
    a, b = two
    writer = a.log_writer("j")
    writer.feed(b"one\n", mark=("c", 4))
    writer.feed(b"\n\n", mark=("c", 6))
    assert writer.copied("c") == 6
    writer.feed(b"two\n", mark=("c", 10), ended=True)
    assert b.log_writer("j").copied("c") == 10
    assert b.log_to_read("j").read_bytes().count(b"\n") == 2


def test_what_another_machine_has_written_already_is_refused_and_the_rest_is_asked_for(
    two: Stores,
) -> None:
    a, b = two
    here, there = a.log_writer("j"), b.log_writer("j")
    assert here.copied("c") == there.copied("c") == 0
    there.feed(b"one\ntwo\n", mark=("c", 8), ended=True)
    here.feed(b"one\n", mark=("c", 4))
    here.say("of the dispatcher")  # is written with what waits, and stays
    assert here.copied("c") == 8
    here.feed(b"three\n", mark=("c", 14), ended=True)
    found = [line.partition(b"] ")[2] for line in b.log_to_read("j").read_bytes().splitlines()]
    assert found == [b"one", b"two", b"of the dispatcher", b"three"]


def test_what_does_not_fit_while_the_database_is_away_is_read_again(
    two: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    monkeypatch.setattr("jobs.logs.shared_logs.MOST", 10)
    writer = a.log_writer("j")
    append, away = SharedLogs.append, threading.Event()
    away.set()

    def unreachable(logs: SharedLogs, *arguments: Any) -> Any:
        if away.is_set():
            raise DatabaseBusy("no", 1.0)
        return append(logs, *arguments)

    monkeypatch.setattr(SharedLogs, "append", unreachable)
    writer.feed(b"one\n", mark=("c", 4))
    writer.feed(b"two\n", mark=("c", 8))
    assert writer.copied("c") == 4  # the rest is not taken
    away.clear()
    writer.flush()
    writer.feed(b"two\n", mark=("c", 8), ended=True)
    assert b.log_writer("j").copied("c") == 8
    assert b.log_to_read("j").read_bytes().count(b"two") == 1
