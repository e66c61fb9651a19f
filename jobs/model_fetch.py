"""Jobs that fetch pretrained weights into the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from jobs.job import Job
from jobs.store import JobStore
from models_store.pretrained.catalogue import requested
from models_store.pretrained.download import FetchFailed, Watch, host_of
from models_store.pretrained.fetch import fetch, present, require_allowed, with_remedy
from models_store.registry import Registry
from models_store.versions import ModelVersion

if TYPE_CHECKING:
    from jobs.handle import JobHandle

DOWNLOADED = 0.8  # share of the progress; the rest is the conversion


class FetchRecipe(BaseModel):
    """What a fetch job does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str  # as `yolo11n`
    activate: bool = False
    notes: tuple[str, ...] = ()  # sentences for the response


def submit_fetch(
    network: str, activate: bool, registry: Registry, jobs: JobStore, sent: Mapping[str, Any]
) -> Job:
    """Queue a job that fetches the pretrained weights of a network.

    Args:
        network: As a user names it: `yolo11n`, `n`.
        activate: Whether the model then answers requests that name none.
        registry, jobs: Where the models and the queue are.
        sent: The request as the client sent it, for the job's `config`.

    Raises:
        ValidationFailed: There is no such network.
        Forbidden: The settings forbid to fetch.
    """
    file = requested(network)
    require_allowed(registry.settings, file)
    if (found := present(registry, file)) is not None:
        note = f"{found.id} is in the registry already: nothing will be fetched."
    else:
        note = f"{file.file} will be fetched from {host_of(file, registry.settings)}."
    recipe = FetchRecipe(network=file.network, activate=activate, notes=(note,))
    job = jobs.create(
        "fetch",
        config=sent,
        recipe=recipe.model_dump(mode="json"),
        task=file.task,
        base_model=file.network,
        model_name=file.model_name,
    )
    jobs.log_writer(job.id).say(f"Waits for a slot: {note}")
    return job


def run_fetch(recipe: FetchRecipe, job: JobHandle, registry: Registry) -> ModelVersion:
    """Fetch the weights; the model is found by later trainings as well.

    A host that failed a moment ago is tried again, because somebody asks for it.

    Raises:
        BackendUnavailable: They could not be fetched.
        InvalidModelFile: What came is no such model.
        InsufficientStorage: The disk has no room.
        JobCancelled: The job was cancelled, or the service stops.
    """
    file = requested(recipe.network)
    require_allowed(registry.settings, file)

    def progress(done: int, total: int | None) -> None:
        if total:
            job.advance(DOWNLOADED * done / total)

    watch = Watch(job.log, job.check, progress)
    try:
        came = fetch(registry, file, job.folder / "download", watch, job_id=job.id, retry=True)
    except FetchFailed as error:
        raise with_remedy(file, error) from error
    job.log(f"{came.told.rstrip('.')}.")
    if recipe.activate:
        registry.activate(file.model_name)
        job.log(f"{file.model_name} is the active model.")
    return came.model
