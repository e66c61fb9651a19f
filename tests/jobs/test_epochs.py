"""The history of a job's epochs: kept over restarts and resumes, each epoch once."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from database import Database
from jobs.job import Job
from jobs.store import JobStore
from jobs.worker import WorkerJob
from tests.support.dispatching import CLAIM, begin


def running(store: JobStore) -> Job:
    job = store.create("training", config={}, recipe={}, total_epochs=5)
    begin(store, job.id)
    return store.get(job.id)


def numbers(store: JobStore, job: Job) -> list[int]:
    return [row.epoch for row in store.epochs(job.id)]


def test_an_epoch_keeps_its_losses_metrics_and_seconds(store: JobStore) -> None:
    job = running(store)
    worker = WorkerJob(store, job)
    worker.report(fraction=0.1, epoch=1, epochs=5)
    worker.finished_epoch(1, {"loss": 2.5, "mAP50": 0.25, "box": math.nan})
    worker.checkpointed(1)
    worker.finished_epoch(2, {"loss": 1.5})
    first, second = store.epochs(job.id)
    assert first.metrics == {"loss": 2.5, "mAP50": 0.25, "box": None}
    assert first.seconds is not None
    assert first.seconds >= 0
    assert (second.epoch, second.metrics) == (2, {"loss": 1.5})


def test_it_survives_a_restart_and_a_resume_without_an_epoch_twice(store: JobStore) -> None:
    job = running(store)
    first = WorkerJob(store, job)
    for epoch in (1, 2, 3):
        first.finished_epoch(epoch, {"loss": 1.0 * epoch})
        if epoch < 3:  # killed between the entry of the third and its checkpoint
            first.checkpointed(epoch)
    store.requeue(job.id, crashed=True)
    store = JobStore(Database(store.database.settings))  # as a new process sees it
    begin(store, job.id)
    again = WorkerJob(store, store.get(job.id))
    assert numbers(store, job) == [1, 2, 3]
    again.finished_epoch(3, {"loss": 9.0})
    again.finished_epoch(4, {"loss": 10.0})
    assert [row.metrics["loss"] for row in store.epochs(job.id)] == [1.0, 2.0, 9.0, 10.0]
    store.database.close()


def test_a_training_that_starts_again_drops_what_it_repeats(store: JobStore) -> None:
    job = running(store)
    worker = WorkerJob(store, job)
    for epoch in (1, 2, 3):
        worker.finished_epoch(epoch, {"loss": 1.0})
    worker.finished_epoch(1, {"loss": 5.0})
    assert numbers(store, job) == [1]


def test_a_resume_within_an_epoch_has_no_seconds(store: JobStore) -> None:
    job = running(store)
    WorkerJob(store, job).checkpointed(0, 7)
    again = WorkerJob(store, store.get(job.id))
    again.report(fraction=0.1, epoch=1, epochs=5)
    again.finished_epoch(1, {"loss": 1.0})
    assert store.epochs(job.id)[0].seconds is None


def test_a_worker_that_has_lost_its_job_writes_nothing(store: JobStore) -> None:
    job = running(store)
    worker = WorkerJob(store, job)
    store.finish(job.id, "stopped")
    worker.finished_epoch(1, {"loss": 1.0})
    assert numbers(store, job) == []


def test_pages_follow_each_other(store: JobStore) -> None:
    job = running(store)
    for epoch in range(1, 8):
        store.add_epoch(job.id, CLAIM, epoch, 1.0, {})
    assert [row.epoch for row in store.epochs(job.id, limit=3)] == [1, 2, 3]
    assert [row.epoch for row in store.epochs(job.id, after=3, limit=3)] == [4, 5, 6]
    assert [row.epoch for row in store.epochs(job.id, after=6)] == [7]


def test_the_history_goes_with_its_job(store: JobStore) -> None:
    job, other = running(store), running(store)
    for one in (job, other):
        store.add_epoch(one.id, CLAIM, 1, 1.0, {})
    store.finish(job.id, "completed")
    store.delete(job.id)
    assert (numbers(store, job), numbers(store, other)) == ([], [1])


def test_the_time_left_counts_down_from_the_last_word_of_the_worker(store: JobStore) -> None:
    job = running(store)
    assert job.seconds_left is None
    job.eta_seconds = 100.0
    job.updated_at = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
    assert job.seconds_left is not None
    assert 65 < job.seconds_left <= 70
    job.updated_at = (datetime.now(UTC) - timedelta(seconds=300)).isoformat()
    assert job.seconds_left == 0


def test_batches_are_those_of_this_attempt(store: JobStore) -> None:
    job = running(store)
    worker = WorkerJob(store, job)
    worker.report(fraction=0.1, epoch=1, epochs=5, batch=3, batches=9)
    found = store.get(job.id)
    assert (found.batch, found.batches) == (3, 9)
    store.requeue(job.id, crashed=False)
    found = store.get(job.id)
    assert (found.batch, found.batches, found.eta_seconds) == (None, None, None)


def test_waiting_jobs_have_places_by_their_kind_of_slot(store: JobStore) -> None:
    ids = [store.create("training", config={}, recipe={}).id for _ in range(3)]
    fetch = store.create("fetch", config={}, recipe={}).id
    engine = store.create("engine", config={}, recipe={}).id
    late = store.create("evaluation", config={}, recipe={}).id
    begin(store, ids[0])
    assert store.places() == {ids[1]: 1, ids[2]: 2, late: 3, fetch: 1, engine: 1}
