"""The dispatcher, with small programs for workers: nothing is lost, stuck, or left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from settings import Settings
from training.dispatcher import DISK_FULL, Dispatcher, death
from training.jobs import Job, JobStore
from training.processes import is_alive, marked

WAIT = "while [ ! -e go ]; do sleep 0.05; done"
STUBBORN = "trap '' TERM; (trap '' TERM; sleep 100) & while true; do sleep 0.05; done"
SCATTERED = "setsid sleep 100 & sleep 100 & echo ready; sleep 100"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(Settings(home=tmp_path))
    yield store
    store.close()


def submit(store: JobStore) -> Job:
    return store.create("training", config={}, recipe={})


@asynccontextmanager
async def dispatching(
    store: JobStore, script: str, slots: int = 1, **more: Any
) -> AsyncIterator[Dispatcher]:
    """A dispatcher whose workers run a shell script in their job's folder."""

    def command(job: Job) -> list[str]:
        return ["sh", "-c", f"cd {store.folder(job.id)}; {script}"]

    home = store.folder("x").parent.parent
    settings = Settings(home=home, train_slots=slots, device="cpu")
    dispatcher = Dispatcher(store, settings, command=command, **more)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        await asyncio.wait_for(dispatcher.stop(), 10)


async def until(found: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := found():
            return result
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen in time")


async def running(store: JobStore, job: Job) -> Job:
    """The job, once it runs, in a process that lives."""
    await until(lambda: store.get(job.id).status == "running")
    found = store.get(job.id)
    assert is_alive(found.pid, found.pid_started)
    return found


def log_of(store: JobStore, job: Job) -> str:
    path = store.log(job.id)
    return path.read_text() if path.exists() else ""


def left(store: JobStore) -> list[psutil.Process]:
    """The processes of this store's jobs."""
    found = marked()
    return [process for job in store.list() for process in found.get(job.id, [])]


def story(store: JobStore, body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(_awaited(body), 30))
    assert not left(store)


async def _awaited(body: Callable[[], Awaitable[None]]) -> None:
    await body()


def test_jobs_run_one_after_the_other_in_the_order_they_came(store: JobStore) -> None:
    async def body() -> None:
        jobs = [submit(store) for _ in range(3)]
        async with dispatching(store, f"echo working; {WAIT}") as dispatcher:
            for job in jobs:
                started = await running(store, job)
                assert store.counts()["training", "running"] == 1
                assert started.pid is not None
                store.note(job.id, started.pid, outcome="completed", model_id=f"m:{job.number}")
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
        async with dispatching(store, "exec sleep 100", slots=2):
            await running(store, jobs[1])
            await asyncio.sleep(0.7)
            statuses = [store.get(job.id).status for job in jobs]
            assert statuses == ["running", "running", "queued", "queued"]
        assert [store.get(job.id).status for job in jobs] == ["queued"] * 4

    story(store, body)


@pytest.mark.parametrize("script", ["sleep 100", STUBBORN, SCATTERED])
def test_cancel_leaves_no_process_within_five_seconds(store: JobStore, script: str) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, script) as dispatcher:
            await running(store, job)
            await asyncio.sleep(0.2)
            assert marked()[job.id]
            began = time.monotonic()
            assert store.request_cancel(job.id).status == "stopping"
            assert (await dispatcher.finished(job.id)).status == "stopped"
            assert time.monotonic() - began < 5
            assert not left(store)
        assert log_of(store, job).endswith("] Stopped, as asked for.\n")

    story(store, body)


def test_a_job_that_is_cancelled_while_its_worker_starts(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        job = submit(store)
        start = store.start

        def late(*arguments: Any) -> bool:
            store.request_cancel(job.id)
            return start(*arguments)

        monkeypatch.setattr(store, "start", late)
        async with dispatching(store, "exec sleep 100"):
            await until(lambda: "Stopped before it began" in log_of(store, job))
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
            "The worker was ended by SIGKILL. Given up after 3 attempts that got no further."
        )
        assert "goes on from zero" in log_of(store, job)

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
                assert started.pid is not None
                store.note(job.id, started.pid, checkpoint=epoch, crashes=0)
                (store.folder(job.id) / "go").touch()
            assert (await attempt(6)).crashes == 1
            store.request_cancel(job.id)
            await dispatcher.finished(job.id)
        assert "goes on from the checkpoint of epoch 5" in log_of(store, job)

    story(store, body)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (DISK_FULL, "The disk is full."),
        (3, "exit code 3 and no result"),
        (0, "exit code 0 and no result"),
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
            assert started.pid is not None
            store.note(job.id, started.pid, outcome="failed", error="No pictures.")
            (store.folder(job.id) / "go").touch()
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.error, ended.attempts) == ("failed", "No pictures.", 1)

    story(store, body)


def test_a_stop_of_the_service_sends_its_jobs_back_to_the_queue(store: JobStore) -> None:
    async def body() -> None:
        first, second = submit(store), submit(store)
        async with dispatching(store, SCATTERED, slots=2):
            await running(store, first)
            await running(store, second)
            store.request_cancel(second.id)
        interrupted = store.get(first.id)
        assert (interrupted.status, interrupted.crashes) == ("queued", 0)
        assert store.get(second.id).status == "stopped"
        assert "at its next start" in log_of(store, first)
        assert not left(store)
        async with dispatching(store, "exec sleep 100"):
            assert (await running(store, first)).attempts == 2

    story(store, body)


def test_what_an_earlier_life_left_is_taken_over(store: JobStore) -> None:
    async def body() -> None:
        stopping, running_, published, failed, done = (submit(store) for _ in range(5))
        for job in (stopping, running_, published, failed, done):
            store.start(job.id, 2**22 + 1, 1.0)
        store.request_cancel(stopping.id)
        store.note(failed.id, 2**22 + 1, outcome="failed", error="It broke.")
        store.note(done.id, 2**22 + 1, outcome="completed", model_id="m:2")
        subprocess.run(  # noqa: ASYNC221
            ["sh", "-c", "sleep 100 > /dev/null 2>&1 &"],
            env={**os.environ, "VISIONLOOP_JOB": running_.id},
            check=True,
        )
        (orphan,) = marked()[running_.id]

        def model_of(job_id: str) -> str | None:
            return "m:1" if job_id == published.id else None

        async with dispatching(store, "exec sleep 100", published=model_of):
            await until(lambda: store.get(running_.id).attempts == 2)
            await running(store, running_)
            assert orphan not in marked()[running_.id]
        ended = [store.get(job.id) for job in (stopping, published, failed, done)]
        assert [job.status for job in ended] == ["stopped", "completed", "failed", "completed"]
        assert [job.model_id for job in ended] == [None, "m:1", None, "m:2"]

    story(store, body)


def test_a_second_dispatcher_of_one_home_waits_for_the_first(store: JobStore) -> None:
    async def body() -> None:
        async with dispatching(store, "exec sleep 100"):
            await asyncio.sleep(0.1)
            async with dispatching(store, "exec sleep 100"):
                job = submit(store)
                await running(store, job)
                await asyncio.sleep(0.7)
                assert len(marked()[job.id]) == 1

    story(store, body)


def test_a_dispatcher_survives_a_database_that_does_not_answer(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.dispatcher.RETRY", 0.05)

    async def body() -> None:
        job = submit(store)
        calls = 0
        finish = store.finish

        def broken(*arguments: Any, **values: Any) -> bool:
            nonlocal calls
            calls += 1
            if calls < 4:
                raise OSError("database or disk is full")
            return finish(*arguments, **values)

        monkeypatch.setattr(store, "finish", broken)
        async with dispatching(store, f"exit {DISK_FULL}") as dispatcher:
            assert (await dispatcher.finished(job.id)).status == "failed"

    story(store, body)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_worker_dies_with_its_killed_dispatcher(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, os, time\n"
        "command = [sys.executable, '-c', 'import os, sys; sys.path.insert(0, os.getcwd());"
        "from training.worker import settle; settle(%d); print(1, flush=True);"
        "import time; time.sleep(100)' % os.getpid()]\n"
        "child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    assert worker.nice() == 10
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs([worker], timeout=5)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("code", "memory", "words"),
    [
        (-9, False, "SIGKILL"),
        (-9, True, "want of memory"),
        (-11, False, "SIGSEGV"),
        (-99, False, "signal 99"),
        (1, False, "exit code 1"),
    ],
)
def test_how_a_worker_ended_is_said_in_words(code: int, memory: bool, words: str) -> None:
    assert words in death(code, memory)
