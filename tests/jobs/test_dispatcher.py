"""The dispatcher, with small programs for workers: nothing is lost, stuck, or left behind."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from database import Database
from errors import InsufficientStorage
from jobs.dispatcher import Dispatcher
from jobs.execution.local_engine import Machine
from jobs.failures import DISK_FULL
from jobs.job import Job
from jobs.processes import is_alive, marked
from jobs.store import JobStore
from settings import Settings
from tests.support.dispatching import (
    SCATTERED,
    WAIT,
    dispatching,
    left,
    log_of,
    running,
    story,
    submit,
    until,
)
from tests.support.locked_database import locked

STUBBORN = (
    "trap '' TERM HUP; (trap '' TERM HUP; touch ready; sleep 9999) & "
    "while true; do sleep 0.05; done"
)


async def completed(store: JobStore, dispatcher: Dispatcher) -> Job:
    """Submit a job and let it complete; the job as it was while it ran."""
    job = submit(store)
    started = await running(store, job)
    assert started.claim is not None
    store.note(job.id, started.claim, outcome="completed")
    (store.folder(job.id) / "go").touch()
    await dispatcher.finished(job.id)
    return started


def test_jobs_run_one_after_the_other_in_the_order_they_came(store: JobStore) -> None:
    async def body() -> None:
        jobs = [submit(store) for _ in range(3)]
        async with dispatching(store, f"echo working; {WAIT}") as dispatcher:
            for job in jobs:
                started = await running(store, job)
                assert store.counts()["training", "running"] == 1
                assert started.claim is not None
                store.note(job.id, started.claim, outcome="completed", model_id=f"m:{job.number}")
                (store.folder(job.id) / "go").touch()
                ended = await dispatcher.finished(job.id)
                assert (ended.status, ended.progress) == ("completed", 100.0)
                assert ended.model_id == f"m:{job.number}"
                assert not is_alive(started.pid, started.pid_started)
        assert "] working\n" in log_of(store, jobs[0])
        assert f"] Completed: m:{jobs[0].number}.\n" in log_of(store, jobs[0])

    story(store, body)


def test_slots_bound_how_many_run_at_once(store: JobStore) -> None:
    async def body() -> None:
        jobs = [submit(store) for _ in range(4)]
        async with dispatching(store, "exec sleep 9999", slots=2):
            await running(store, jobs[1])
            await asyncio.sleep(0.7)
            statuses = [store.get(job.id).status for job in jobs]
            assert statuses == ["running", "running", "queued", "queued"]
        assert [store.get(job.id).status for job in jobs] == ["queued"] * 4

    story(store, body)


def test_a_fetch_does_not_wait_for_a_training_nor_take_its_slot(store: JobStore) -> None:
    async def body() -> None:
        async with dispatching(store, "exec sleep 9999"):
            first = submit(store)
            await running(store, first)
            fetches = [submit(store, "fetch") for _ in range(2)]
            await running(store, fetches[0])
            second = submit(store)
            store.request_cancel(first.id)
            await running(store, second)
            assert store.get(fetches[1].id).status == "queued"  # one at a time
            store.request_cancel(fetches[0].id)
            await running(store, fetches[1])
            for job in (second, fetches[1]):
                store.request_cancel(job.id)
            await until(lambda: all(job.is_final for job in store.list()))

    story(store, body)


def test_an_import_waits_neither_for_a_training_nor_for_a_fetch(store: JobStore) -> None:
    async def body() -> None:
        async with dispatching(store, "exec sleep 9999"):
            jobs = [submit(store, kind) for kind in ("training", "fetch", "import")]
            for job in jobs:
                await running(store, job)
            waiting = submit(store, "import")
            store.request_cancel(jobs[2].id)
            await running(store, waiting)
            for job in (*jobs[:2], waiting):
                store.request_cancel(job.id)
            await until(lambda: all(job.is_final for job in store.list()))

    story(store, body)


@pytest.mark.parametrize("script", ["touch ready; sleep 9999", STUBBORN, SCATTERED])
def test_cancel_leaves_no_process(store: JobStore, script: str) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, script) as dispatcher:
            await running(store, job)
            await until((store.folder(job.id) / "ready").exists)
            assert marked()[job.id]
            assert store.request_cancel(job.id).status == "stopping"
            assert (await dispatcher.finished(job.id)).status == "stopped"
            assert not left(store)
        assert log_of(store, job).endswith("] Ended on request.\n")

    story(store, body)


def test_a_job_that_is_cancelled_while_its_worker_starts(store: JobStore) -> None:
    class Cancelled(JobStore):
        def start(self, job_id: str, *arguments: Any) -> bool:
            self.request_cancel(job_id)
            return super().start(job_id, *arguments)

    async def body() -> None:
        job = submit(store)
        async with dispatching(Cancelled(store.database), "exec sleep 9999"):
            await until(lambda: "Ended on request, before it started" in log_of(store, job))
            assert store.get(job.id).status == "stopped"
            assert not left(store)

    story(store, body)


def test_a_killed_worker_is_started_again_but_not_for_ever(store: JobStore) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, "kill -9 $$") as dispatcher:
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.attempts) == ("failed", 3)
        assert ended.error == (
            "The worker was killed by SIGKILL. "
            "The job failed after 3 attempts without a new checkpoint."
        )
        assert "resumes from the beginning" in log_of(store, job)

    story(store, body)


def test_a_worker_that_gets_further_each_time_is_never_given_up(store: JobStore) -> None:
    async def body() -> None:
        job = submit(store)

        async def attempt(number: int) -> Job:
            await until(lambda: store.get(job.id).attempts == number)
            return await running(store, job)

        async with dispatching(store, f"{WAIT}; rm go; kill -9 $$") as dispatcher:
            for epoch in range(1, 6):
                started = await attempt(epoch)
                assert started.claim is not None
                store.note(job.id, started.claim, checkpoint=epoch, crashes=0)
                (store.folder(job.id) / "go").touch()
            assert (await attempt(6)).crashes == 1
            store.request_cancel(job.id)
            await dispatcher.finished(job.id)
        assert "resumes from the checkpoint of epoch 5" in log_of(store, job)

    story(store, body)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (DISK_FULL, "The disk is full."),
        (3, "exited with code 3 and without a result"),
        (0, "exited with code 0 and without a result"),
    ],
)
def test_a_worker_that_ends_without_a_word(store: JobStore, code: int, error: str) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, f"exit {code}") as dispatcher:
            ended = await dispatcher.finished(job.id)
        assert ended.status == "failed"
        assert error in (ended.error or "")

    story(store, body)


def test_a_worker_that_says_why_it_failed_is_not_started_again(store: JobStore) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, WAIT) as dispatcher:
            started = await running(store, job)
            assert started.claim is not None
            store.note(job.id, started.claim, outcome="failed", error="No pictures.")
            (store.folder(job.id) / "go").touch()
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.error, ended.attempts) == ("failed", "No pictures.", 1)

    story(store, body)


def test_want_of_memory_is_told_from_other_kills(store: JobStore) -> None:
    kills = iter(range(100))  # the kernel's count rises between start and end
    machine = Machine(memory_kills=lambda: next(kills))

    async def body() -> None:
        job = submit(store)
        more = {"train_attempts": 1}
        async with dispatching(store, "kill -9 $$", settings=more, machine=machine) as dispatcher:
            ended = await dispatcher.finished(job.id)
        assert "by the kernel: out of memory (SIGKILL). Use a smaller batch or imgsz." in (
            ended.error or ""
        )

    story(store, body)


def test_a_dispatcher_survives_a_database_that_does_not_answer(store: JobStore) -> None:
    class Broken(JobStore):
        calls = 0

        def finish(self, *arguments: Any, **values: Any) -> bool:
            self.calls += 1
            if self.calls < 4:
                raise OSError("database or disk is full")
            return super().finish(*arguments, **values)

    broken = Broken(store.database)

    async def body() -> None:
        job = submit(store)
        script = f"exit {DISK_FULL}"
        async with dispatching(broken, script, retry=0.05) as dispatcher:
            assert (await dispatcher.finished(job.id)).status == "failed"
        assert broken.calls == 4

    story(store, body)


@pytest.mark.parametrize("broken", ["process", "thread"])
def test_a_worker_that_the_system_does_not_start_is_started_later(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    left = 3

    def refused(*_: Any, **__: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            monkeypatch.undo()
        raise RuntimeError("can't start it")

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        nonlocal left
        if broken == "process" and left:
            left -= 1
            raise OSError("can't start it")
        return subprocess.Popen(*arguments, **options)

    async def body() -> None:
        async with dispatching(store, WAIT, machine=Machine(start=start)) as dispatcher:
            if broken == "thread":
                threads = SimpleNamespace(Lock=threading.Lock, Thread=refused)
                monkeypatch.setattr("jobs.logs.log_file.threading", threads)
            started = await completed(store, dispatcher)
        log = log_of(store, started)
        assert log.count("The worker cannot be started yet: can't start it.") == 1
        assert log.count(f"Process {started.pid} started") == 1

    story(store, body)


def test_a_job_waits_until_the_disk_has_room(store: JobStore) -> None:
    polls = 0

    def no_room(_: object) -> InsufficientStorage | None:
        nonlocal polls
        polls += 1
        return InsufficientStorage("Too little room.") if polls < 3 else None

    async def body() -> None:
        machine = Machine(lacking_room=no_room)
        async with dispatching(store, WAIT, machine=machine) as dispatcher:
            started = await completed(store, dispatcher)
        log = log_of(store, started)
        assert log.count("The worker cannot be started yet: Too little room.") == 1

    story(store, body)


def test_no_more_workers_are_tried_at_once_than_there_are_slots(store: JobStore) -> None:
    """Each attempt may take seconds, and nothing else is watched meanwhile."""
    attempts = 0

    def no_room(_: object) -> InsufficientStorage:
        nonlocal attempts
        attempts += 1
        return InsufficientStorage("Too little room.")

    async def body() -> None:
        first, *others = [submit(store) for _ in range(5)]
        async with dispatching(store, WAIT, machine=Machine(lacking_room=no_room)):
            await until(lambda: attempts >= 3)
        assert "cannot be started yet" in log_of(store, first)
        assert not any(log_of(store, job) for job in others)

    story(store, body)


@pytest.mark.sqlite
def test_a_locked_database_delays_the_end_of_a_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=tmp_path)
    store = JobStore(Database(settings, patience=0.1))

    async def body() -> None:
        async with dispatching(store, WAIT, retry=0.05) as dispatcher:
            job = submit(store)
            started = await running(store, job)
            assert started.claim is not None
            store.note(job.id, started.claim, outcome="completed")
            waiting = asyncio.create_task(dispatcher.finished(job.id))
            with locked(settings.paths.database):
                (store.folder(job.id) / "go").touch()
                await until(lambda: not is_alive(started.pid or 0, started.pid_started))
                await until(lambda: "could not be written; retrying" in caplog.text)
                assert store.get(job.id).status == "running"
            assert (await waiting).status == "completed"

    story(store, body)
    store.database.close()


def test_a_job_of_an_idle_kind_waits_for_all_others_and_makes_way(store: JobStore) -> None:
    async def body() -> None:
        training, trial = submit(store), submit(store, "engine")
        async with dispatching(store, WAIT, slots=2) as dispatcher:
            await completed_by_hand(store, dispatcher, training)
            assert store.get(trial.id).attempts == 0  # a slot was free, and it waited
            first = await running(store, trial)
            later = submit(store)
            dispatcher.wake()
            await running(store, later)
            await until(lambda: store.get(trial.id).status == "queued")
            assert not is_alive(first.pid, first.pid_started)
            assert "Another job is to run. This one resumes from the beginning" in log_of(
                store, trial
            )
            await completed_by_hand(store, dispatcher, later)
            again = await running(store, trial)
            assert (again.attempts, again.crashes) == (2, 0)
            await completed_by_hand(store, dispatcher, trial)

    story(store, body)


async def completed_by_hand(store: JobStore, dispatcher: Dispatcher, job: Job) -> None:
    started = await running(store, job)
    assert started.claim is not None
    store.note(job.id, started.claim, outcome="completed")
    (store.folder(job.id) / "go").touch()
    assert (await dispatcher.finished(job.id)).status == "completed"


def test_jobs_of_an_idle_kind_run_one_at_a_time(store: JobStore) -> None:
    async def body() -> None:
        first, second = submit(store, "engine"), submit(store, "engine")
        async with dispatching(store, WAIT, slots=3) as dispatcher:
            await running(store, first)
            dispatcher.wake()
            await completed_by_hand(store, dispatcher, first)
            assert store.get(first.id).attempts == 1
            await completed_by_hand(store, dispatcher, second)

    story(store, body)
