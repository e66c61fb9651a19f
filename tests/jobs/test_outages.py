"""A worker that cannot reach the database or the object store: its job goes on later."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from errors import DatabaseBusy, StoreRefused, StoreUnavailable
from jobs import worker
from jobs.claims import CLAIM_ENV, HOST
from jobs.failures import LONGEST_OUTAGE, LONGEST_PAUSE, TRY_AGAIN, UNTRIED, ago, pause_left, spoken
from jobs.job import Job
from jobs.shared_folders import JobFolders
from jobs.store import JobStore
from jobs.worker import WorkerJob, run
from models_store.registry import Registry
from tests.support.dispatching import CLAIM, begin, dispatching, log_of, story, submit
from tests.support.patience import PATIENCE, until
from tests.support.serving import ROOT


@pytest.fixture
def row(store: JobStore) -> Job:
    """A job that runs in this process."""
    job = submit(store)
    begin(store, job.id)
    return store.get(job.id)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has a method of the job's objects raise errors, one a call, before it succeeds."""

    def make(method: str, *errors: Exception) -> None:
        left, succeeds = list(errors), getattr(JobFolders, method)

        def called(*arguments: Any) -> Any:
            if left:
                raise left.pop(0)
            return succeeds(*arguments)

        monkeypatch.setattr(JobFolders, method, called)
        monkeypatch.setattr("jobs.worker.STORE_POLL", 0.0)

    return make


def test_a_worker_without_a_database_says_that_it_is_to_be_tried_again(tmp_path: Path) -> None:
    variables = os.environ | {
        "VISIONLOOP_HOME": str(tmp_path),
        "VISIONLOOP_DATABASE_URL": "postgresql+psycopg://me@127.0.0.1:1/none",
        CLAIM_ENV: CLAIM,
    }
    command = [sys.executable, "-m", "worker", "0" * 32]
    ended = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (ended.returncode, ended.stderr) == (TRY_AGAIN, "")
    assert "The job cannot be read: The database cannot be reached" in ended.stdout


def test_a_worker_whose_server_died_before_it_said_so_is_no_crash(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row stays queued with its claim; the next server finds how the worker ended."""
    job = submit(store)
    assert store.claim(job.id, CLAIM)
    monkeypatch.setattr(worker.process_log, "configure_job", lambda _: None)
    monkeypatch.setattr(worker.claimed, "__defaults__", (0.1,))
    monkeypatch.setattr(worker, "set_up_process", lambda _: None)
    monkeypatch.setattr(worker, "get_settings", lambda: store.database.settings)
    monkeypatch.setenv(CLAIM_ENV, CLAIM)
    monkeypatch.setattr(sys, "argv", ["worker", job.id])
    assert worker.main(lambda *_: {}) == TRY_AGAIN


@pytest.mark.parametrize(("untried", "counts"), [(30.0, True), (UNTRIED + 30, False)])
def test_time_in_which_nothing_was_tried_is_no_outage(
    store: JobStore, untried: float, counts: bool
) -> None:
    """A server that was off for the weekend, or a long queue: the first failure is the first."""
    job = submit(store)
    began = ago(LONGEST_OUTAGE + 3600)
    with store.database.write() as session:
        values = {"outage_since": began, "updated_at": ago(untried)}
        session.execute(update(Job).where(Job.id == job.id).values(values))
    assert store.claim(job.id, CLAIM)
    assert store.get(job.id).outage_since == (began if counts else None)


def test_it_is_tried_again_more_often_than_it_may_crash(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.failures.SHORTEST_PAUSE", 0.0)

    async def body() -> None:
        job = submit(store)
        async with dispatching(store, f"exit {TRY_AGAIN}", settings={"train_attempts": 1}):
            await until(lambda: store.get(job.id).attempts > 3)
            found = store.get(job.id)
            assert (found.crashes, found.is_final) == (0, False)
            view = found.to_json()
            assert view["outage_since"] is not None
            assert view["interruption"]["reason"] == (
                "The worker could not reach the database or the object store."
            )
        assert "The job resumes from the beginning shortly." in log_of(store, job)

    story(store, body)


def test_it_fails_once_that_has_lasted_too_long(store: JobStore) -> None:
    async def body() -> None:
        job = submit(store)
        with store.database.write() as session:
            session.execute(
                update(Job).values(
                    outage_since=ago(LONGEST_OUTAGE + 60), updated_at=ago(LONGEST_PAUSE)
                )
            )
        async with dispatching(store, f"exit {TRY_AGAIN}") as dispatcher:
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.attempts) == ("failed", 1)
        assert "This lasts for 24 hours now. Check that its machine reaches" in (ended.error or "")
        assert ended.outage_since is None

    story(store, body)


def test_others_run_during_the_pause(store: JobStore) -> None:
    async def body() -> None:
        paused = submit(store)
        begin(store, paused.id)
        store.requeue(paused.id, False, CLAIM, "It was away.", outage=True)
        other = submit(store)
        async with dispatching(store, "sleep 9999"):
            await until(lambda: store.get(other.id).status == "running")
            assert store.get(other.id).to_json()["runs_on"] == HOST
            assert store.get(paused.id).status == "queued"

    story(store, body)


@pytest.mark.parametrize(
    ("outage", "ended", "pause"),
    [(None, 0, 0), (0, 0, 5), (0, 4, 1), (0, 6, -1), (100, 0, 25), (100, 4, 20), (9999, 0, 60)],
)
def test_pauses_grow_with_the_outage(outage: float | None, ended: float, pause: float) -> None:
    since = None if outage is None else ago(outage)
    assert pause_left(since, ago(ended)) == pytest.approx(pause, abs=0.5 + 0.25)


def test_a_clock_that_is_set_prolongs_no_pause() -> None:
    assert pause_left(ago(100), ago(-3600)) == 0.0, "set back by an hour after the attempt"
    assert pause_left(ago(-7200), ago(-3600)) == 0.0
    assert pause_left(ago(100), ago(-1)) <= LONGEST_PAUSE + 1, "the clock of another machine"
    assert pause_left(ago(7300), ago(7200)) < 0, "set forward"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 seconds"),
        (1.2, "1 second"),
        (40.4, "40 seconds"),
        (60, "1 minute"),
        (185, "3 minutes"),
        (7200, "2 hours"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_a_job_that_waits_for_the_store_says_since_when(
    store: JobStore,
    row: Job,
    failing: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []
    check = WorkerJob.check

    def checked(job: WorkerJob) -> None:
        seen.append(store.get(row.id).outage_since is not None)
        check(job)

    monkeypatch.setattr(WorkerJob, "check", checked)
    failing("begin", *[StoreUnavailable("no", 1.0)] * 3)
    assert run(WorkerJob(store, row), row, Registry(store.database), lambda *_: {}) == 0
    assert seen[:3] == [True] * 3
    assert store.get(row.id).outage_since is None
    assert re.fullmatch(
        r"The object store cannot be reached\. The job waits for it\.\n"
        r"The object store answers again, after \d+ seconds?\.\n",
        capsys.readouterr().out,
    )


def test_a_worker_whose_reports_are_refused_gives_signs_of_life(
    store: JobStore, row: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dispatcher ends a worker of which it hears nothing."""

    def refuse(*_: Any, **__: Any) -> None:
        raise DatabaseBusy("It is away.", 1.0)

    job = WorkerJob(store, row)
    with monkeypatch.context() as away:
        away.setattr(store, "note", refuse)
        away.setattr(store, "add_epoch", refuse)
        for epoch in (1, 2):
            job.finished_epoch(epoch, {})
        assert capsys.readouterr().err == "An epoch's metrics could not be written: It is away.\n"
        away.setattr(worker, "OUTAGE_LOG", 0.0)
        job.finished_epoch(3, {})
        assert capsys.readouterr().err.count("could not be written") == 1
    job.finished_epoch(4, {})
    said = capsys.readouterr().out
    assert re.fullmatch(r"The database takes reports again, after \d+ seconds?\.\n", said)


def test_a_store_that_stays_away_gives_the_place_to_others(
    store: JobStore, row: Job, failing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.worker.LONGEST_OUTAGE", 0.0)
    failing("begin", *[StoreUnavailable("no", 1.0)] * 9)
    assert run(WorkerJob(store, row), row, Registry(store.database), lambda *_: {}) == TRY_AGAIN


def test_an_outage_ends_with_a_checkpoint(store: JobStore, row: Job) -> None:
    with store.database.write() as session:
        session.execute(update(Job).values(outage_since=ago(60)))
    again = store.get(row.id)
    job = WorkerJob(store, again)
    job.report(fraction=0.1, epoch=1, epochs=2)
    assert store.get(row.id).outage_since is not None
    job.checkpointed(1)
    assert store.get(row.id).outage_since is None


def test_a_store_that_refuses_a_checkpoint_fails_the_job_with_the_remedy(
    store: JobStore, row: Job, failing: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = StoreRefused(
        "The object store refuses: the credentials have expired. Check VISIONLOOP_STORE_URL and "
        "the variables AWS_*.",
        1.0,
    )
    failing("save", refusal)

    def work(job: WorkerJob, *_: Any) -> dict[str, Any]:
        job.report(fraction=0.5, epoch=1, epochs=2)
        job.checkpointed(1)
        return {}

    assert run(WorkerJob(store, row), row, Registry(store.database), work) == 1
    found = store.get(row.id)
    assert found.outcome == "failed"
    assert (found.error or "").startswith("The checkpoint could not be stored. The object store")
    assert "AWS_*" in (found.error or "")
    assert "on the machine of the worker" in (found.error or "")
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
