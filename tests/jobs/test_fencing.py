"""A worker that was given up, but still runs somewhere, writes nothing: no model, no row."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from database import Database
from jobs.finalizer import JobFinalizer
from jobs.handle import JobCancelled
from jobs.job import Job
from jobs.processes import is_alive
from jobs.store import JobStore
from jobs.worker import WorkerJob, run
from models_store.description import ONNX_FILE, WEIGHTS_FILE
from models_store.registry import Registry, published
from models_store.store import ModelStore
from settings import Settings
from tests.support.dispatching import (
    CLAIM,
    begin,
    dispatching,
    left,
    running,
    story,
    submit,
)
from tests.support.patience import PATIENCE, until
from tests.support.small_models import small_description

ANOTHER = "another worker"


class Worker:
    """What a worker's process has: a database of its own, with the fence of its claim."""

    def __init__(self, settings: Settings, job: Job, claim: str, models: Path) -> None:
        self.store = JobStore(Database(settings))
        self.store.fence(job.id, claim)
        self.registry = Registry(self.store.database, ModelStore(models))

    def close(self) -> None:
        self.store.database.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def job(store: JobStore) -> Job:
    """A job that runs with CLAIM."""
    found = submit(store)
    begin(store, found.id)
    return store.get(found.id)


@pytest.fixture
def worker(store: JobStore, job: Job, tmp_path: Path) -> Iterator[Worker]:
    """The worker of the job."""
    made = Worker(store.database.settings, job, CLAIM, tmp_path / "models")
    yield made
    made.close()


def give_to_another(store: JobStore, job: Job) -> None:
    store.requeue(job.id, crashed=False)
    assert begin(store, job.id, claim=ANOTHER)


def publish(worker: Worker, job: Job, folder: Path) -> str:
    """Publish a model for the job, one that is never served."""
    folder.mkdir()
    small_description("detect").save(folder)
    for name in (WEIGHTS_FILE, ONNX_FILE):
        (folder / name).write_bytes(folder.name.encode())
    source = {"kind": "train", "job_id": job.id}
    return worker.registry.publish(folder, "shapes", source).id


def test_the_worker_of_a_job_publishes(worker: Worker, job: Job, tmp_path: Path) -> None:
    assert publish(worker, job, tmp_path / "m").startswith("shapes:")


def test_a_worker_whose_job_was_given_to_another_publishes_no_second_version(
    store: JobStore, worker: Worker, job: Job, tmp_path: Path
) -> None:
    give_to_another(store, job)
    second = Worker(store.database.settings, job, ANOTHER, tmp_path / "models")
    made = publish(second, job, tmp_path / "second")
    with pytest.raises(JobCancelled):
        publish(worker, job, tmp_path / "first")
    assert [model.id for model in second.registry.list()] == [made]
    found = published(job.id, second.registry)
    assert found is not None
    assert found.id == made
    folders = (second.registry.store.models / "shapes").iterdir()
    assert [path.name for path in folders if path.is_dir()] == [
        made.partition(":")[2]
    ]  # of the refused one no files are left
    second.close()


@pytest.mark.parametrize("ending", ["queued", "stopped", "completed"])
def test_nor_does_one_whose_job_waits_again_or_has_ended(
    store: JobStore, worker: Worker, job: Job, tmp_path: Path, ending: str
) -> None:
    if ending == "queued":
        store.requeue(job.id, crashed=False)
    else:
        store.finish(job.id, "stopped" if ending == "stopped" else "completed")
    with pytest.raises(JobCancelled):
        publish(worker, job, tmp_path / "m")
    assert worker.registry.list() == []


def test_a_job_that_is_being_stopped_may_still_publish(
    store: JobStore, worker: Worker, job: Job, tmp_path: Path
) -> None:
    """The cancel comes too late: such a job is completed; see `JobFinalizer`."""
    store.request_cancel(job.id)
    publish(worker, job, tmp_path / "m")


def test_a_job_cannot_be_given_away_while_its_worker_publishes(
    store: JobStore, worker: Worker, job: Job
) -> None:
    """The row stays locked from the check to the commit."""
    given = threading.Event()

    def give() -> None:
        store.requeue(job.id, crashed=False)
        given.set()

    thread = threading.Thread(target=give)
    with worker.store.database.write():
        thread.start()
        assert not given.wait(0.3)
        assert worker.store.get(job.id).status == "running"
    thread.join(PATIENCE)
    assert given.is_set()


def test_a_worker_that_lost_its_job_ends_with_its_next_report(
    store: JobStore, worker: Worker, job: Job
) -> None:
    reported: list[float] = []

    def work(handle: WorkerJob, *_: Any) -> dict[str, Any]:
        handle.checkpointed(1)
        reported.append(1)
        give_to_another(store, job)
        handle.checkpointed(2)
        reported.append(2)
        return {}

    assert run(WorkerJob(worker.store, job), job, worker.registry, work) == 143
    assert reported == [1]
    found = store.get(job.id)
    assert (found.checkpoint, found.outcome, found.claim) == (1, None, ANOTHER)


@pytest.mark.parametrize("fails", [False, True])
def test_it_reports_neither_success_nor_failure(
    store: JobStore, worker: Worker, job: Job, fails: bool
) -> None:
    def work(*_: Any) -> dict[str, Any]:
        give_to_another(store, job)
        if fails:
            raise ValueError("The data are gone.")
        return {"model_id": "shapes:1"}

    assert run(WorkerJob(worker.store, job), job, worker.registry, work) == 143
    found = store.get(job.id)
    assert (found.outcome, found.model_id, found.error) == (None, None, None)


def test_a_claim_that_was_replaced_before_the_start_starts_nothing(store: JobStore) -> None:
    """Two dispatchers: one lost its lock between claim and start."""
    job = submit(store)
    assert store.claim(job.id, CLAIM)
    assert store.claim(job.id, ANOTHER)
    assert not store.start(job.id, CLAIM, 7, 1.0)
    assert store.start(job.id, ANOTHER, 8, 1.0)
    assert not store.claim(job.id, CLAIM)
    assert (store.get(job.id).claim, store.get(job.id).attempts) == (ANOTHER, 1)


def test_a_dispatcher_leaves_alone_what_another_one_took_over(store: JobStore) -> None:
    """It lost its lock: the other one has requeued its job, and started it anew elsewhere."""

    async def body() -> None:
        job = submit(store)
        async with dispatching(store, "exec sleep 9999") as dispatcher:
            first = await running(store, job)
            give_to_another(store, job)
            await until(lambda: not is_alive(first.pid, first.pid_started))
            await until(lambda: not left(store))
            await dispatcher.stop()
            found = store.get(job.id)
            assert (found.status, found.claim, found.crashes) == ("running", ANOTHER, 0)
        assert store.get(job.id).status == "running"

    story(store, body)


def test_the_end_of_a_former_worker_is_not_that_of_the_job(store: JobStore, job: Job) -> None:
    give_to_another(store, job)
    assert not store.requeue(job.id, crashed=True, claim=CLAIM)
    assert not store.finish(job.id, "failed", "It broke.", claim=CLAIM)
    JobFinalizer(store, 1, lambda _: None).finalize(job.id, "It broke.", claim=CLAIM, code=1)
    assert store.get(job.id).status == "running"
    JobFinalizer(store, 1, lambda _: None).finalize(job.id, "It broke.", claim=ANOTHER, code=1)
    assert store.get(job.id).status == "failed"
