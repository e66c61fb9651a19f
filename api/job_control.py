"""Functions that the handlers use to find, queue, cancel and show jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from access.scopes import ADMIN
from api.middleware.auth import require_for, require_own
from api.middleware.request_state import changed
from api.thread_pool import slow_work
from errors import JobNotFound
from evaluation.results import led
from jobs import control
from jobs.artifacts import size_bytes
from jobs.control import status_of
from jobs.finalizer import published_in
from jobs.job import Job, Kind
from serving.gateway import Gateway
from training.planning.recipe import TrainingRequest
from training.submission import submit_training

PATIENCE = 5.0  # seconds that a cancel request waits for the job's process to end


def view(gateway: Gateway, job: Job, places: Mapping[str, int] | None = None) -> dict[str, Any]:
    """A job in the form in which `/jobs` returns it.

    `places` are those of all waiting jobs in the queue; None: they are read.
    """
    status = status_of(job)
    if places is None:
        places = gateway.jobs.places() if status == "queued" else {}
    more = {
        "eta_s": job.seconds_left if status == "running" else None,
        "queue_position": places.get(job.id) if status == "queued" else None,
        "log_path": str(gateway.jobs.log(job.id)),
        "size_bytes": size_bytes(gateway.jobs.folder(job.id)),
    }
    return job.to_json() | {"status": status, "metrics": led(job.metrics)} | more


async def find(gateway: Gateway, job_id: str, kind: Kind | None = None) -> Job:
    """A job by its id.

    Raises:
        JobNotFound: There is no such job, or it is not of this kind.
    """
    job = await asyncio.to_thread(gateway.jobs.get, job_id)
    if kind is not None and job.kind != kind:
        raise JobNotFound(
            f"No {kind} job {job_id[:80]!r}: its kind is {job.kind}. GET /jobs lists every kind."
        )
    return job


async def cancel(gateway: Gateway, job_id: str, patience: float = 0) -> Job:
    """Request that a job stops, and wait up to `patience` seconds; see `jobs.control.cancel`.

    Raises:
        JobNotFound: There is no such job.
        Unauthorized, Forbidden: Another caller started it, and this one may not administrate.
        Conflict: The job has already ended.
    """
    require_own(await asyncio.to_thread(gateway.jobs.get, job_id))
    published = published_in(gateway.registry)
    jobs, settings = gateway.jobs, gateway.settings
    job = await control.cancel(jobs, settings, published, job_id, patience)
    changed("cancelled the job", job.id)
    return job


async def ended(gateway: Gateway, job_id: str) -> Job:
    """Wait until a job has ended or this server stops. Returns the job."""
    return await control.wait_for_end(gateway.jobs, job_id, gateway.shutdown)


async def start_training(
    gateway: Gateway,
    wanted: TrainingRequest,
    sent: dict[str, Any],
    base_model: str | None = None,
) -> Job:
    """Check and queue a training, and notify the Trainer.

    Args:
        gateway: Contains the stores.
        wanted: The requested training.
        sent: The request as the client sent it, for the job's `config`.
        base_model: The `model_id` that the first client family is shown for the job.

    Raises:
        VisionLoopError: As `training.planning.plan.plan`.
        BackendTimeout: The dataset could not be read in time.
    """
    deadline = time.monotonic() + gateway.settings.import_timeout  # then the client gets a 504
    stores = gateway.registry, gateway.datasets, gateway.jobs
    submit = partial(submit_training, wanted, *stores, sent, base_model, deadline)
    job = await slow_work.run(submit)
    changed(f"started a training ({job.mode}) of {job.model_name}", job.id)
    notify_trainer(gateway, job)
    return job


def check_promotion(wanted: TrainingRequest) -> None:
    """Refuse the caller of the request being handled if it may train, but not promote.

    Raises:
        Unauthorized, Forbidden: The training would promote its model.
    """
    if wanted.promote != "never":
        require_for(ADMIN, f"'promote': '{wanted.promote}'")


def notify_trainer(gateway: Gateway, job: Job) -> None:
    """Notify the Trainer of a queued job, so that it starts before the next poll."""
    if gateway.trainer is not None:
        gateway.trainer.submit(job.id, job.kind)
