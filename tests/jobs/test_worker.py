"""The worker's side of a job: what it notes while it works, and how it says that it failed."""

from __future__ import annotations

import errno
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from database import Database
from disk_space import NO_ROOM
from errors import DatabaseBusy, DatasetInvalid, InsufficientStorage
from jobs.failures import DISK_FULL, TRY_AGAIN
from jobs.handle import JobCancelled
from jobs.job import Job
from jobs.processes import SIGNAL_SAVE_AND_EXIT
from jobs.store import JobStore
from jobs.worker import WorkerJob, claimed, run
from models_store.registry import Registry
from settings import Settings
from tests.support.dispatching import CLAIM, begin
from tests.support.full_disk import fill, small_disk
from tests.support.patience import PATIENCE
from tests.support.serving import ROOT


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[JobStore]:
    store = JobStore(Database(settings))
    yield store
    store.database.close()


@pytest.fixture
def row(store: JobStore) -> Job:
    """A job that runs in this process."""
    job = store.create("training", config={}, recipe={})
    begin(store, job.id)
    return store.get(job.id)


def test_progress_is_written_at_most_four_times_a_second(store: JobStore, row: Job) -> None:
    class Counting(JobStore):
        writes = 0

        def note(self, *arguments: Any, **values: Any) -> Any:
            self.writes += 1
            return super().note(*arguments, **values)

    counting = Counting(store.database)
    job = WorkerJob(counting, row)
    began = time.monotonic()
    for batch in range(1000):
        job.report(fraction=batch / 1000, epoch=1, epochs=2, metrics={"loss": 1 / (batch + 1)})
    assert counting.writes <= 2 + 4 * (time.monotonic() - began)
    job.checkpointed(1)
    found = store.get(row.id)
    assert (found.progress, found.current_epoch, found.total_epochs) == (99.9, 1, 2)
    assert (found.metrics, found.checkpoint) == ({"loss": 0.001}, 1)


def test_progress_never_falls_and_figures_are_json(store: JobStore, row: Job) -> None:
    job = WorkerJob(store, row)
    job.report(fraction=0.5, epoch=1, epochs=2, metrics={"loss": math.nan, "mAP50": 0.5})
    job.report(fraction=0.4, epoch=1, epochs=2, metrics={"box": math.inf})
    job.report(fraction=2.0, epoch=2, epochs=2)
    job.checkpointed(2)
    found = store.get(row.id)
    assert found.progress == 100.0
    assert found.metrics == {"loss": None, "mAP50": 0.5, "box": None}


def test_a_resumed_job_shows_what_it_had_reached(store: JobStore, row: Job) -> None:
    first = WorkerJob(store, row)
    assert not first.resuming
    first.report(fraction=0.45, epoch=5, epochs=10)
    first.checkpointed(4)
    store.requeue(row.id, crashed=True)
    begin(store, row.id)
    again = WorkerJob(store, store.get(row.id))
    assert again.resuming
    again.report(fraction=0.0, epoch=0, epochs=10)
    found = store.get(row.id)
    assert (found.progress, found.current_epoch) == (45.0, 4)


def test_each_epoch_is_timed_the_last_one_too_but_none_that_was_cut(
    store: JobStore, row: Job
) -> None:
    job = WorkerJob(store, row)
    for epoch in (1, 2):
        job.report(fraction=0.1, epoch=epoch, epochs=2)
        job.checkpointed(epoch)
        assert (store.get(row.id).epoch_seconds or -1.0) >= 0
    job.checkpointed(2, 5)
    again = WorkerJob(store, store.get(row.id))
    again.report(fraction=0.1, epoch=3, epochs=4)
    again.checkpointed(3)
    assert store.get(row.id).epoch_seconds is None
    again.checkpointed(4)
    assert store.get(row.id).epoch_seconds is not None


STOPPED = """
import os, signal, sys, time
from pathlib import Path
from database import Database
from jobs.store import JobStore
from jobs.worker import WorkerJob
from settings import Settings

home, job_id, number = sys.argv[1:]
store = JobStore(Database(Settings(home=Path(home))))
job = WorkerJob(store, store.get(job_id))
with job.graceful_stop():
    assert not job.stop_requested
    os.kill(os.getpid(), int(number))
    while not job.stop_requested:
        time.sleep(0.01)
assert signal.getsignal(int(number)) == signal.SIG_DFL
store.database.close()
print("noticed")
"""


@pytest.mark.parametrize(
    "number", [SIGNAL_SAVE_AND_EXIT, signal.SIGTERM]
)  # ours, and the supervisor's
def test_a_stop_of_the_service_is_noticed_while_there_is_something_to_save(
    store: JobStore, row: Job, number: signal.Signals
) -> None:
    """In a process of its own: a signal that arrives late would end the one of the tests."""
    home = store.database.settings.home
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(home), row.id, str(int(number))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "noticed\n", done.stderr


def test_a_job_that_starts_again_from_zero_shows_zero(store: JobStore, row: Job) -> None:
    WorkerJob(store, row).report(fraction=0.2, epoch=1, epochs=10)
    store.requeue(row.id, crashed=True)
    found = store.get(row.id)
    assert (found.progress, found.current_epoch) == (0.0, 0)


def test_a_stop_is_noticed_with_the_next_progress(store: JobStore, row: Job) -> None:
    job = WorkerJob(store, row)
    job.checkpointed(1)
    job.check()
    store.request_cancel(row.id)
    job.checkpointed(2)
    with pytest.raises(JobCancelled):
        job.check()


def test_a_process_whose_job_was_given_to_another_stops(store: JobStore, row: Job) -> None:
    job = WorkerJob(store, row)
    store.requeue(row.id, crashed=True)
    begin(store, row.id, claim="another worker")
    job.checkpointed(1)
    with pytest.raises(JobCancelled):
        job.check()
    assert store.get(row.id).checkpoint == 0


def test_only_the_worker_that_was_called_does_the_job(store: JobStore, row: Job) -> None:
    mine = claimed(store, row.id, CLAIM)
    assert mine is not None
    store.requeue(row.id, crashed=False)
    assert claimed(store, row.id, CLAIM) is None
    store.claim(row.id, CLAIM)
    assert claimed(store, row.id, CLAIM, timeout=0.2) is None  # it was not set to running
    begin(store, row.id, claim="another worker")
    assert claimed(store, row.id, CLAIM) is None


FULL = InsufficientStorage(NO_ROOM)


@pytest.mark.parametrize(
    ("raised", "code", "outcome", "words"),
    [
        (None, 0, "completed", None),
        (DatasetInvalid("No pictures in /x."), 1, "failed", "No pictures in /x."),
        (OSError(errno.ENOSPC, "No space left"), 1, "failed", "The disk is full."),
        (FileNotFoundError(2, "No such file", "/x/a.jpg"), 1, "failed", "The file 'a.jpg', which"),
        (FileNotFoundError("Image Not Found /x/b.jpg"), 1, "failed", "The file 'b.jpg', which"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. "),
            1,
            "failed",
            "--shm-size",
        ),
        (MemoryError(), 1, "failed", "Out of memory"),
        (RuntimeError("CUDA out of memory. Tried to"), 1, "failed", "Reduce batch or imgsz"),
        (ValueError("odd\nmore"), 1, "failed", "ValueError: odd (the job's log has the details)"),
        (JobCancelled(), 143, None, None),
        (FULL, 1, "failed", "The disk is full."),
        (DatabaseBusy("Locked."), TRY_AGAIN, None, None),
    ],
)
def test_how_it_ended_is_noted(
    store: JobStore,
    settings: Settings,
    row: Job,
    raised: BaseException | None,
    code: int,
    outcome: str | None,
    words: str | None,
) -> None:
    def work(*_: Any) -> dict[str, Any]:
        if raised is not None:
            raise raised
        return {"model_id": "m:1"}

    assert run(WorkerJob(store, row), row, Registry(store.database), work) == code
    found = store.get(row.id)
    assert (found.outcome, found.status) == (outcome, "running")
    assert (words or "") in (found.error or "")
    assert found.model_id == ("m:1" if raised is None else None)


def test_an_outcome_that_cannot_be_written_is_told_by_the_exit_code(
    store: JobStore, row: Job
) -> None:
    class Full(JobStore):
        def note(self, *_: Any, **__: Any) -> Any:
            raise FULL

    job = WorkerJob(Full(store.database), row, tries=1)
    work = {"model_id": "m:1"}
    assert run(job, row, Registry(store.database), lambda *_: work) == DISK_FULL


def test_a_job_that_would_take_the_reserve_ends_at_its_next_checkpoint(
    store: JobStore, settings: Settings, row: Job
) -> None:
    reserve = settings.model_copy(update={"disk_reserve": 2**60})  # larger than any disk
    below = JobStore(Database(reserve))

    def work(job: WorkerJob, *_: Any) -> dict[str, Any]:
        job.report(fraction=0.5, epoch=1, epochs=2)
        job.checkpointed(1)
        raise AssertionError

    job = WorkerJob(below, row)
    job.report(fraction=1, epoch=2, epochs=2)
    job.checkpointed(2)  # what is left is small: it may use the reserve
    assert run(WorkerJob(below, row), row, Registry(store.database), work) == 1
    found = store.get(row.id)
    assert found.outcome == "failed"
    assert "stay free (VISIONLOOP_DISK_RESERVE)" in (found.error or "")
    below.database.close()
    assert found.checkpoint == 1


@pytest.mark.sqlite
def test_no_room_for_a_job_leaves_neither_row_nor_folder(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        store = JobStore(Database(Settings(home=disk, disk_reserve=0)))
        fill(disk)
        with pytest.raises(InsufficientStorage, match="The disk is full"):
            store.create("training", config={}, recipe={})
        assert store.list() == []
        assert not list(disk.glob("jobs/*"))
        (disk / "filler").unlink()
        made = store.create("training", config={}, recipe={})
        assert [job.id for job in store.list()] == [made.id]
        store.database.close()
