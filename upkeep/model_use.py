"""Whether a model version is in use, and its deletion with all that belongs to it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from errors import Conflict, JobNotFound, NotFound, VisionLoopError
from evaluation.promotion import GATE
from evaluation.store import EvaluationStore
from jobs.job import IDLE, Job
from jobs.store import JobStore
from models_store.decision_log import DecisionReason
from models_store.registry import Registry
from models_store.versions import ModelVersion
from monitoring.kept_images import KeptImages
from storage.deletion import delete_each

log = logging.getLogger(__name__)


def unfinished_jobs(jobs: JobStore) -> list[Job]:
    """The jobs that wait or run."""
    return jobs.list(None, "queued", "running", "stopping")


def job_that_uses(model: ModelVersion, unfinished: Sequence[Job]) -> Job | None:
    """A job that starts from a version, evaluates or compares it, or has just made it.

    A trial of its engines is none: most were queued by the server itself, see `delete_model`.
    """
    for job in unfinished:
        if job.kind in IDLE:
            continue
        needed = {*_models_in(job.recipe), job.recipe.get("model_id")}
        made = model.source.get("job_id") == job.id  # published, and being evaluated
        compared = (
            job.mode == GATE
            and model.promoted
            and str(job.recipe.get("model_id")).startswith(f"{model.name}:")
        )
        if model.id in needed or made or compared:
            return job
    return None


def delete_model(
    model_id: str,
    why: DecisionReason,
    registry: Registry,
    jobs: JobStore,
    evaluations: EvaluationStore,
    kept: KeptImages,
) -> ModelVersion:
    """Delete a version with its evaluations and kept images, and cancel trials of its engines.

    Raises:
        Conflict: The version is active, or a job needs it.
        ModelNotFound: There is none.
        ValidationFailed: A bare name was given, and it has several versions.
    """
    unfinished = unfinished_jobs(jobs)
    if job := job_that_uses(registry.get(model_id), unfinished):
        raise Conflict(
            f"The job {job.id} uses '{registry.get(model_id).id}'. Cancel the job, or wait until "
            "it ends."
        )
    deleted = registry.delete(model_id, why)
    for job in unfinished:
        if job.kind in IDLE and job.recipe.get("model_id") == deleted.id:
            with contextlib.suppress(Conflict, JobNotFound):  # it has ended meanwhile
                jobs.request_cancel(job.id)
    evaluations.delete_for(deleted.id)
    try:
        delete_each((image.id for image in kept.list(deleted.id)), partial(_remove_image, kept))
    except VisionLoopError as error:
        log.warning("Kept images of the deleted model %s are still there: %s", deleted.id, error)
    return deleted


def _remove_image(kept: KeptImages, image_id: str) -> None:
    with contextlib.suppress(NotFound):  # deleted in the meantime to make room
        kept.remove(image_id)


def _models_in(recipe: Any) -> Iterator[str]:
    """The ids of registry models in a recipe: of the base, the teacher and the model before."""
    if isinstance(recipe, dict):
        value = recipe.get("value")
        if isinstance(value, str) and recipe.get("kind", "model") == "model":
            yield value
        for part in recipe.values():
            yield from _models_in(part)
