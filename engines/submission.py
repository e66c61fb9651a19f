"""Requests for exports: answered from what exists, or put into the job queue."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from engines.availability import check_available
from engines.making import is_current
from engines.options import NEVER_STARTED, ExportOptions, ExportRequest, resolve
from engines.store import ExportRecord, ExportStore
from errors import Conflict, NotFound
from jobs.job import Job
from jobs.states import LIVE
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.versions import ModelVersion

_one_at_a_time = threading.Lock()  # so that two equal requests get one job


class ExportRecipe(BaseModel):
    """What the worker reads: the model and the options."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_id: str
    request: ExportRequest


@dataclass(frozen=True)
class Found:
    """The answer to a request for a file: the model, and the export if it exists.

    Attributes:
        model: The version.
        options: The options in full.
        record: The export; None: it is one that is made for the download.
    """

    model: ModelVersion
    options: ExportOptions
    record: ExportRecord | None


def submit_export(
    registry: Registry,
    jobs: JobStore,
    model_id: str,
    request: ExportRequest,
    sent: Mapping[str, Any],
) -> ExportRecord | Job:
    """The export if it exists, else its job: the one that is waiting or running, or a new one.

    An engine always gets a job: only its process knows the GPU.

    Raises:
        ModelNotFound: There is no such version.
        ValidationFailed: As `options.resolve`.
        Conflict: As `availability.check_available`.
        InsufficientStorage, RateLimited: As `JobStore.create`.
    """
    model = registry.get(model_id)
    options = resolve(request, model.description)
    store = ExportStore(registry.settings)
    found = store.find(model, options)
    if found is not None and is_current(found, model) and options.format != "engine":
        return found
    check_available(options.format, registry.settings)
    recipe = ExportRecipe(model_id=model.id, request=request)
    with _one_at_a_time:
        if (job := live_job(jobs, model, options)) is not None:
            return job
        job = jobs.create(
            "export",
            config={**sent, "resolved": options.model_dump()},
            recipe=recipe.model_dump(mode="json"),
            mode=options.format,
            task=model.description.task,
            base_model=model.id,
            model_name=model.name,
        )
    jobs.log_writer(job.id).say(f"Queued: {options.key} of {model.id}.")
    return job


def live_job(jobs: JobStore, model: ModelVersion, options: ExportOptions) -> Job | None:
    """The job that waits or runs for this export."""
    for job in jobs.list("export", "queued", *LIVE):
        same = job.config.get("resolved") == options.model_dump()
        if job.recipe.get("model_id") == model.id and same and job.status != "stopping":
            return job
    return None


def find_export(registry: Registry, jobs: JobStore, model_id: str, request: ExportRequest) -> Found:
    """The export to download.

    Raises:
        ModelNotFound: There is no such version.
        ValidationFailed: As `options.resolve`.
        Conflict: A job is making it.
        NotFound: It was not made; the message says how.
    """
    model = registry.get(model_id)
    options = resolve(request, model.description)
    store = ExportStore(registry.settings)
    found = store.find(model, options)
    if found is not None and is_current(found, model):
        return Found(model, options, found)
    if (job := live_job(jobs, model, options)) is not None:
        raise Conflict(
            f"The job {job.id} is making this export. GET /jobs/{job.id} shows when it is done."
        )
    if options.format in NEVER_STARTED and options.is_default:
        return Found(model, options, None)
    known = ", ".join(record.id for record in store.list(model)) or "none"
    raise NotFound(
        f"{model.id} has no export {options.key}. Start it: POST /models/{model.id}/export with "
        f"{request.model_dump_json(exclude_none=True)}. It has: {known}."
    )
