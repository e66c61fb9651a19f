"""The job table: who may change what, and that what has ended stays as it ended."""

from __future__ import annotations

import contextvars
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from database import Base, Database
from errors import Conflict, JobNotFound, RateLimited, ValidationFailed
from jobs.caller import CALLER
from jobs.job import Job
from jobs.states import FINAL, STATUSES, Status
from jobs.store import JobStore
from settings import Settings
from tests.support.dispatching import CLAIM, begin
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[JobStore]:
    store = JobStore(Database(settings))
    yield store
    store.database.close()


def submit(store: JobStore, **values: Any) -> Job:
    return store.create("training", config={"epochs": 3}, recipe={}, **values)


def bring(store: JobStore, status: Status) -> Job:
    """A job in this status."""
    job = submit(store)
    if status != "queued":
        begin(store, job.id)
    if status in FINAL:
        store.finish(job.id, status, "because" if status == "failed" else None)
    elif status == "stopping":
        store.request_cancel(job.id)
    found = store.get(job.id)
    assert found.status == status
    return found


def test_jobs_wait_in_the_order_they_came(store: JobStore) -> None:
    ids = [submit(store).id for _ in range(5)]
    store.request_cancel(ids[1])
    assert [job.id for job in store.queued(3)] == [ids[0], ids[2], ids[3]]
    assert [job.id for job in store.list("training")] == ids[::-1]
    assert store.list("evaluation") == []
    assert store.counts() == {("training", "queued"): 4, ("training", "stopped"): 1}


def test_a_job_that_was_interrupted_goes_before_those_behind_it(store: JobStore) -> None:
    first, second = submit(store), submit(store)
    begin(store, first.id)
    assert [job.id for job in store.queued(9)] == [second.id]
    store.requeue(first.id, crashed=True)
    assert [job.id for job in store.queued(9)] == [first.id, second.id]


@pytest.mark.parametrize(
    ("origin", "action", "result"),
    [
        ("queued", "start", "running"),
        ("running", "start", "running"),
        ("stopping", "start", "stopping"),
        ("running", "requeue", "queued"),
        ("stopping", "requeue", "stopping"),
        ("queued", "cancel", "stopped"),
        ("running", "cancel", "stopping"),
        ("stopping", "cancel", "stopping"),
        ("running", "complete", "completed"),
        ("stopping", "complete", "completed"),
        ("running", "fail", "failed"),
        *[
            (final, action, final)
            for final in FINAL
            for action in ("start", "requeue", "complete", "fail", "stop", "note")
        ],
    ],
)
def test_transitions(store: JobStore, origin: Status, action: str, result: str) -> None:
    job = bring(store, origin)
    match action:
        case "start":
            assert begin(store, job.id, 8, 2.0, "another worker") == (origin == "queued")
        case "requeue":
            assert store.requeue(job.id, crashed=True) == (origin == "running")
        case "cancel":
            assert store.request_cancel(job.id).status == result
        case "note":
            assert store.note(job.id, CLAIM, progress=1.0, model_id="x:1") is None
        case _:
            ending: dict[str, Status] = {
                "complete": "completed",
                "fail": "failed",
                "stop": "stopped",
            }
            assert store.finish(job.id, ending[action]) == (origin not in FINAL)
    after = store.get(job.id)
    assert after.status == result
    if origin in FINAL:
        columns = [column.key for column in inspect(Job).column_attrs]
        assert {c: getattr(after, c) for c in columns} == {c: getattr(job, c) for c in columns}


def test_a_checkpoint_within_the_first_epoch_keeps_the_progress(store: JobStore) -> None:
    job = bring(store, "running")
    store.note(job.id, CLAIM, progress=4.0, current_epoch=1, checkpoint_batch=3)
    store.requeue(job.id, crashed=False)
    found = store.get(job.id)
    assert found.resumable
    assert (found.progress, found.current_epoch) == (4.0, 1)


@pytest.mark.parametrize("final", FINAL)
def test_what_has_ended_cannot_be_cancelled(store: JobStore, final: Status) -> None:
    how = {"completed": "is completed", "failed": "has failed", "stopped": "was ended on request"}
    with pytest.raises(Conflict, match=how[final]):
        store.request_cancel(bring(store, final).id)


def test_an_unknown_job(store: JobStore) -> None:
    with pytest.raises(JobNotFound, match="No job 'x'"):
        store.get("x")
    with pytest.raises(JobNotFound):
        store.request_cancel("x")


def test_only_the_worker_that_runs_a_job_may_note_its_progress(store: JobStore) -> None:
    job = bring(store, "running")
    assert store.note(job.id, "another worker", progress=50.0) is None
    assert store.note(job.id, CLAIM, progress=10.0, metrics={"loss": 1.5}) == "running"
    store.request_cancel(job.id)
    assert store.note(job.id, CLAIM, progress=20.0) == "stopping"
    store.finish(job.id, "stopped")
    assert store.note(job.id, CLAIM, progress=30.0) is None
    found = store.get(job.id)
    assert (found.progress, found.metrics, found.pid) == (20.0, {"loss": 1.5}, None)


def test_a_new_checkpoint_forgives_crashes(store: JobStore) -> None:
    job = bring(store, "running")
    store.requeue(job.id, crashed=True)
    begin(store, job.id)
    assert store.get(job.id).crashes == 1
    store.note(job.id, CLAIM, checkpoint=1, crashes=0)
    store.requeue(job.id, crashed=False)
    found = store.get(job.id)
    assert (found.crashes, found.attempts, found.started_at is not None) == (0, 2, True)


RACE = """
import os, sys
from database import Database
from settings import Settings
from jobs.store import JobStore
store = JobStore(Database(Settings(home=sys.argv[1])))
mine = str(os.getpid())
started = 0
for job in reversed(store.queued(100)):
    started += store.claim(job.id, mine) and store.start(job.id, mine, 7, 1.0)
print(started)
"""


def test_two_processes_that_claim_at_once_never_get_the_same_job(
    store: JobStore, settings: Settings
) -> None:
    for _ in range(30):
        submit(store)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(settings.home)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    claimed = [int(process.communicate(timeout=PATIENCE)[0]) for process in processes]
    assert sum(claimed) == 30
    assert all(job.attempts == 1 for job in store.list())


def test_every_column_has_a_type_that_other_databases_take() -> None:
    from sqlalchemy.dialects import mysql, postgresql
    from sqlalchemy.schema import CreateTable

    for dialect in (postgresql.dialect(), mysql.dialect()):
        assert "jobs" in str(CreateTable(Base.metadata.tables["jobs"]).compile(dialect=dialect))


def test_jobs_are_listed_in_pages(store: JobStore) -> None:
    ids = [submit(store).id for _ in range(5)][::-1]
    assert [job.id for job in store.list(limit=2)] == ids[:2]
    assert [job.id for job in store.list(limit=2, before=ids[1])] == ids[2:4]
    assert [job.id for job in store.list(before=ids[3])] == ids[4:]
    with pytest.raises(JobNotFound):
        store.list(before="x")


@pytest.mark.parametrize("status", STATUSES)
def test_only_what_has_ended_can_be_deleted(store: JobStore, status: Status) -> None:
    job, other = bring(store, status), submit(store)
    (store.folder(job.id) / "log").touch()
    if status in FINAL:
        store.delete(job.id)
        assert not store.folder(job.id).exists()
        assert [found.id for found in store.list()] == [other.id]
        with pytest.raises(JobNotFound):
            store.delete(job.id)
    else:
        with pytest.raises(Conflict, match=f"is {status}"):
            store.delete(job.id)
        assert store.log(job.id).exists()


def test_weights_that_another_job_waits_for_stay(store: JobStore) -> None:
    failed = bring(store, "failed")
    waiting = store.create(
        "training", config={}, recipe={"base": {"kind": "job", "value": failed.id}}
    )
    with pytest.raises(Conflict, match=waiting.id):
        store.delete(failed.id)
    store.request_cancel(waiting.id)
    store.delete(failed.id)


def test_a_caller_has_so_many_jobs_that_wait_or_run(tmp_path: Path) -> None:
    store = JobStore(Database(Settings(home=tmp_path, jobs_per_token=2)))

    def create(caller: str | None) -> Job:
        def inside() -> Job:
            CALLER.set(caller)
            return store.create("training", config={}, recipe={})

        return contextvars.copy_context().run(inside)

    first, second = create("token a"), create("token a")
    with pytest.raises(RateLimited, match=f"POST /jobs/{second.id}/cancel") as caught:
        create("token a")
    assert caught.value.retry_after
    assert sorted(path.name for path in store.folder("x").parent.iterdir()) == sorted(
        [first.id, second.id]
    )
    create("token b")
    for _ in range(3):
        create(None)  # the service's own
    store.request_cancel(first.id)
    assert create("token a").caller == "token a"
    store.database.close()


def add(store: JobStore, job_id: str) -> str:
    """A job with a chosen id."""
    with store.database.write() as session:
        session.add(Job(id=job_id, kind="training", config={}, recipe={}))
    return job_id


def test_a_unique_beginning_of_an_id_names_the_job(store: JobStore) -> None:
    one, other = add(store, "3f6c" + "0" * 28), add(store, "3f6d" + "0" * 28)
    assert store.get("3f6c").id == one
    assert store.get("3F6D00").id == other
    assert store.get(one).id == one
    assert [job.id for job in store.list(before="3f6d")] == [one]
    assert store.request_cancel("3f6c").id == one
    folder = store.folder(one)
    folder.mkdir(parents=True)
    store.delete("3f6c")
    assert not folder.exists()
    assert [job.id for job in store.list()] == [other]


def test_an_ambiguous_beginning_is_refused_and_names_the_jobs(store: JobStore) -> None:
    first, second = (add(store, f"3f6c{end}" + "0" * 27) for end in "af")
    for call in (store.get, store.request_cancel, store.delete):
        with pytest.raises(ValidationFailed, match="2 jobs begin with '3f6c'") as refusal:
            call("3f6c")
        assert first in str(refusal.value)
        assert second in str(refusal.value)
    for number in range(10):
        add(store, f"3f6cb{number}" + "0" * 26)
    with pytest.raises(ValidationFailed, match=r"12 jobs begin .* and 4 more\. Give more char"):
        store.get("3f6c")


@pytest.mark.parametrize("text", ["3f6", "3f6e", "3f6c" + "0" * 29, "3f%", "____", "", "3f6g"])
def test_what_begins_no_id_or_is_too_short_is_not_found(store: JobStore, text: str) -> None:
    add(store, "3f6c" + "0" * 28)
    with pytest.raises(JobNotFound, match="at least 4 characters"):
        store.get(text)
