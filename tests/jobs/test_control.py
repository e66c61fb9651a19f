"""Jobs from outside the dispatcher: cancelled with and without one, and awaited."""

from __future__ import annotations

import asyncio

import pytest

from errors import Conflict, JobNotFound
from jobs.control import cancel, status_of, wait_for_end
from jobs.finalizer import Published, dispatcher_lock
from jobs.job import Job
from jobs.store import JobStore
from tests.support.dispatching import begin, submit
from tests.support.patience import PATIENCE

GONE = 2**22 + 1  # no process has this number


def running_nowhere(store: JobStore) -> Job:
    """A running job whose process is gone."""
    job = submit(store)
    assert begin(store, job.id, GONE, 1.0)
    return store.get(job.id)


def cancelled(
    store: JobStore, job: Job, patience: float = PATIENCE, published: Published = lambda _: None
) -> Job:
    """The job after a cancel that takes every job without a process for orphaned."""
    settings = store.database.settings
    return asyncio.run(cancel(store, settings, published, job.id, patience, orphaned_after=0.0))


def test_a_job_without_a_process_is_not_shown_as_running(store: JobStore) -> None:
    assert status_of(running_nowhere(store)) == "queued"


def test_a_queued_job_is_stopped_at_once(store: JobStore) -> None:
    job = submit(store)
    assert cancelled(store, job, patience=0.0).status == "stopped"
    assert "Ended on request, while it waited." in store.log(job.id).read_text()
    with pytest.raises(Conflict):
        cancelled(store, job)


def test_an_unknown_job_cannot_be_cancelled(store: JobStore) -> None:
    settings = store.database.settings
    with pytest.raises(JobNotFound):
        asyncio.run(cancel(store, settings, lambda _: None, "0" * 32))


def test_while_a_dispatcher_lives_it_alone_finalizes_a_job(store: JobStore) -> None:
    job = running_nowhere(store)
    with dispatcher_lock(store.database):
        assert cancelled(store, job, patience=0.3).status == "stopping"
    assert cancelled(store, job).status == "stopped"
    assert "Ended on request." in store.log(job.id).read_text()


def test_a_cancelled_job_that_had_published_is_completed(store: JobStore) -> None:
    found = cancelled(store, running_nowhere(store), published=lambda _: "shapes:1")
    assert (found.status, found.model_id) == ("completed", "shapes:1")


@pytest.mark.parametrize("server_stops", [False, True])
def test_a_job_is_awaited_until_its_end_or_that_of_the_server(
    store: JobStore, server_stops: bool
) -> None:
    job = submit(store)

    async def run() -> Job:
        stopping = asyncio.Event()
        waiting = asyncio.create_task(wait_for_end(store, job.id, stopping))
        await asyncio.sleep(0)
        assert not waiting.done()
        if server_stops:
            stopping.set()
        else:
            store.request_cancel(job.id)
        return await asyncio.wait_for(waiting, PATIENCE)

    assert asyncio.run(run()).is_final is not server_stops
