"""Which jobs have changed, whichever process changed them."""

from __future__ import annotations

import pytest

from database import Database
from jobs.changes import ChangedJobs, JobChanges
from jobs.store import JobStore
from settings import Settings
from tests.support.dispatching import CLAIM, begin
from tests.support.training_app import Service


@pytest.fixture
def jobs(service: Service) -> JobStore:
    """The jobs as another process opens them."""
    return service.jobs


def look(changes: JobChanges, jobs: JobStore) -> ChangedJobs:
    with jobs.database.read() as session:
        return changes.look(session)


def test_changes_are_found_once_each(jobs: JobStore) -> None:
    old = jobs.create("annotation", config={}, recipe={})
    changes = JobChanges()
    assert look(changes, jobs) == ChangedJobs()
    new = jobs.create("export", config={}, recipe={})
    [found] = look(changes, jobs).changed
    assert (found.id, found.status) == (new.id, "queued")
    assert look(changes, jobs) == ChangedJobs()
    assert begin(jobs, old.id)
    assert jobs.note(old.id, CLAIM, progress=40.0) == "running"
    [found] = look(changes, jobs).changed
    assert (found.id, found.status, found.progress) == (old.id, "running", 40.0)
    jobs.finish(old.id, "failed", "It broke.")
    jobs.request_cancel(new.id)
    assert [job.id for job in look(changes, jobs).changed] == [old.id, new.id]
    jobs.delete(old.id)
    assert look(changes, jobs) == ChangedJobs((), (old.id,))
    assert look(changes, jobs) == ChangedJobs()


def test_a_change_that_was_committed_late_is_found(service: Service) -> None:
    """Its time is older than that of the newest change, because its process waited for a lock."""
    jobs = service.jobs
    late, other = (jobs.create("annotation", config={}, recipe={}) for _ in range(2))
    assert begin(jobs, late.id)
    changes = JobChanges()
    look(changes, jobs)
    jobs.request_cancel(other.id)
    assert [job.id for job in look(changes, jobs).changed] == [other.id]
    with jobs.database.write() as session:
        row = session.get(type(late), late.number)
        assert row is not None
        row.status, row.updated_at = "stopping", late.created_at
    assert [job.id for job in look(changes, jobs).changed] == [late.id]


def test_another_process_is_heard_too(service: Service) -> None:
    changes = JobChanges()
    look(changes, service.jobs)
    other = Database(Settings(home=service.gateway.settings.home))
    job = JobStore(other).create("annotation", config={}, recipe={})
    other.close()
    assert [found.id for found in look(changes, service.jobs).changed] == [job.id]
