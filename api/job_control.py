"""Jobs as requests see them: found, queued, cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import Any

from filelock import Timeout

from api.thread_pool import slow_work
from errors import BackendTimeout, JobNotFound
from jobs.artifacts import clear, kept_by
from jobs.finalizer import JobFinalizer, dispatcher_lock, published_in
from jobs.logs import LogWriter
from jobs.processes import is_alive
from jobs.store import Job, Kind
from serving.gateway import Gateway
from training.planning.plan import plan
from training.planning.recipe import TrainingRequest, shown_config

PATIENCE = 5.0  # seconds in which a cancelled job is gone


ORPHANED = 1.5  # seconds after which a dead process whose dispatcher is dead too is noticed


STEP = 0.1


LOOK = 1.0  # seconds between two looks at a job that is waited for


def status_of(job: Job) -> str:
    """The job's status; never `running` without a process.

    While a dead worker or Trainer is being noticed, its row lags behind: the job is queued.
    """
    if job.status == "running" and job.outcome is None and not is_alive(job.pid, job.pid_started):
        return "queued"
    return job.status


def view(gateway: Gateway, job: Job) -> dict[str, Any]:
    fields = ("kind", "mode", "task", "progress", "current_epoch", "total_epochs", "metrics")
    more = ("config", "base_model", "model_name", "model_id", "error", "attempts")
    times = ("created_at", "started_at", "finished_at", "updated_at")
    shown = {name: getattr(job, name) for name in (*fields, *more, *times)}
    shown["log_path"] = str(gateway.jobs.log(job.id))
    return {"job_id": job.id, "status": status_of(job)} | shown


async def find(gateway: Gateway, job_id: str, kind: Kind | None = None) -> Job:
    """Raises JobNotFound where there is none of this kind."""
    job = await asyncio.to_thread(gateway.jobs.get, job_id)
    if kind is not None and job.kind != kind:
        raise JobNotFound(f"No {kind} job {job_id[:80]!r}. It is an {job.kind}: GET /jobs.")
    return job


async def cancel(gateway: Gateway, job_id: str, patience: float = 0) -> Job:
    """Ask a job to end, and wait up to `patience` seconds for that.

    Raises:
        JobNotFound, Conflict: There is none, or it has ended.
    """
    job = await asyncio.to_thread(gateway.jobs.request_cancel, job_id)
    if job.is_final:  # it waited, perhaps with what an earlier process had done
        await asyncio.to_thread(_tidy, gateway, job)
    began = time.monotonic()
    while not job.is_final and time.monotonic() - began < patience:
        await asyncio.sleep(STEP)
        job = await asyncio.to_thread(gateway.jobs.get, job_id)
        gone = not job.is_final and not is_alive(job.pid, job.pid_started)
        if gone and time.monotonic() - began > ORPHANED:
            await asyncio.to_thread(_take, gateway, job_id)
            job = await asyncio.to_thread(gateway.jobs.get, job_id)
    return job


def _tidy(gateway: Gateway, job: Job) -> None:
    """What a job that was cancelled in the queue leaves of an earlier attempt."""
    folder = gateway.jobs.folder(job.id)
    clear(folder, completed=False)
    LogWriter(gateway.jobs.log(job.id)).say(f"Stopped in the queue.{kept_by(job, folder)}")


def _take(gateway: Gateway, job_id: str) -> None:
    """Settle a job whose Trainer is dead; while one lives, that does it."""
    settings = gateway.settings
    with contextlib.suppress(Timeout), dispatcher_lock(settings).acquire(blocking=False):
        published = published_in(gateway.registry)
        JobFinalizer(gateway.jobs, settings.train_attempts, published).recover(job_id)


async def ended(gateway: Gateway, job_id: str) -> Job:
    """A job once it is final, or as it is when this server stops."""
    while True:
        job = await asyncio.to_thread(gateway.jobs.get, job_id)
        if job.is_final or gateway.shutdown.is_set():
            return job
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await gateway.shutdown.wait()


async def submit(
    gateway: Gateway,
    wanted: TrainingRequest,
    sent: dict[str, Any],
    base_model: str | None = None,
) -> Job:
    """Check a training, put it into the queue, wake the Trainer.

    `base_model` is what the first family shows as the job's `model_id`.

    Raises:
        VisionLoopError: What `training.planning.plan.plan` raises.
    """
    until = time.monotonic() + gateway.settings.import_timeout  # then it is a 504
    enqueue = partial(_enqueue, gateway, wanted, sent, base_model, until)
    job = await slow_work.run(enqueue)
    if gateway.trainer is not None:
        gateway.trainer.submit(job.id)
    return job


def _enqueue(
    gateway: Gateway,
    wanted: TrainingRequest,
    sent: dict[str, Any],
    base_model: str | None,
    until: float,
) -> Job:
    recipe = plan(wanted, gateway.registry, gateway.datasets, gateway.settings)
    if time.monotonic() > until:  # the client was told that it failed, and may have asked again
        raise BackendTimeout("The data set could not be looked through in time.")
    job = gateway.jobs.create(
        "training",
        config=sent | {"resolved": dict(shown_config(recipe))},
        recipe=recipe.model_dump(mode="json"),
        mode=recipe.mode,
        task=recipe.task,
        base_model=base_model or recipe.parent or recipe.name,
        model_name=recipe.name,
        total_epochs=recipe.epochs,
    )
    LogWriter(gateway.jobs.log(job.id)).say(f"Queued: {recipe.mode}, {recipe.task}.")
    return job
