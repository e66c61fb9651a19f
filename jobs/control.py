"""Functions on jobs for processes other than the dispatcher: status, cancelling, waiting."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import cast

from filelock import Timeout

from jobs.artifacts import kept_by
from jobs.claims import is_of_this_machine
from jobs.finalizer import JobFinalizer, Published, dispatcher_lock
from jobs.job import Job
from jobs.processes import is_alive
from jobs.shared_folders import JobFolders
from jobs.states import Status
from jobs.store import JobStore
from settings import Settings

ORPHANED_AFTER = 1.5  # seconds within which a live dispatcher notices that a process has ended
CANCEL_POLL = 0.1  # seconds between two reads of a job that is being cancelled
END_POLL = 1.0  # seconds between two reads of a job whose end is awaited


def status_of(job: Job) -> Status:
    """The status to show for a job: never `running` if its process has ended.

    Until the dispatcher notices that a worker died, the status in the table is `running`. Such a
    job is shown as `queued`, because it is going to be retried.
    """
    if job.status == "running" and job.outcome is None and _is_gone(job):
        return "queued"
    return cast("Status", job.status)


def _is_gone(job: Job) -> bool:
    """Whether the worker of a running job has ended, as far as this machine can tell."""
    return is_of_this_machine(job.claim) and not is_alive(job.pid, job.pid_started)


async def cancel(
    store: JobStore,
    settings: Settings,
    published: Published,
    job_id: str,
    patience: float = 0.0,
    orphaned_after: float = ORPHANED_AFTER,
) -> Job:
    """Request that a job stops, and wait up to `patience` seconds until it has.

    Args:
        store: The job table.
        settings: Provide the home, whose dispatcher lock shows whether a dispatcher is running, and
            the number of attempts.
        published: The model that a job has published, if any.
        job_id: The job.
        patience: Seconds to wait; 0: only request the stop.
        orphaned_after: Seconds after which a job without a process is finalized here, if no
            dispatcher is running.

    Returns:
        The job as it was last read.

    Raises:
        JobNotFound: There is no such job.
        Conflict: The job has already ended.
    """
    job = await asyncio.to_thread(store.request_cancel, job_id)
    job_id = job.id  # the client may have sent only its beginning
    if job.is_final:  # the job was queued, and an earlier attempt may have left files
        await asyncio.to_thread(_clear_cancelled, store, job)
    began = time.monotonic()
    while not job.is_final and time.monotonic() - began < patience:
        await asyncio.sleep(CANCEL_POLL)
        job = await asyncio.to_thread(store.get, job_id)
        gone = not job.is_final and _is_gone(job)
        if gone and time.monotonic() - began > orphaned_after:
            await asyncio.to_thread(_recover_orphan, store, settings, published, job_id)
            job = await asyncio.to_thread(store.get, job_id)
    return job


async def wait_for_end(store: JobStore, job_id: str, stopping: asyncio.Event) -> Job:
    """Wait until a job has ended or `stopping` is set. Returns the job.

    Raises:
        JobNotFound: There is no such job.
    """
    while True:
        job = await asyncio.to_thread(store.get, job_id)
        if job.is_final or stopping.is_set():
            return job
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_POLL):
                await stopping.wait()


def _clear_cancelled(store: JobStore, job: Job) -> None:
    """Delete files that an earlier attempt left, of a job that was cancelled while queued."""
    folder = store.folder(job.id)
    JobFolders(store.database.settings).settle(job.id, completed=False)
    store.log_writer(job.id).say(f"Ended on request, while it waited.{kept_by(job, folder)}")


def _recover_orphan(store: JobStore, settings: Settings, published: Published, job_id: str) -> None:
    """Finalize a job if no dispatcher is running; a running one holds the lock and does it."""
    with contextlib.suppress(Timeout), dispatcher_lock(store.database):
        JobFinalizer(store, settings.train_attempts, published).recover(job_id)
