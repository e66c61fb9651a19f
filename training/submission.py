"""Puts trainings into the job queue."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dataset.store import Datasets
from errors import BackendTimeout
from jobs.job import Job
from jobs.store import JobStore
from models_store.registry import Registry
from training.planning.plan import plan
from training.planning.recipe import TrainingRequest, shown_config


def submit_training(
    request: TrainingRequest,
    registry: Registry,
    datasets: Datasets,
    jobs: JobStore,
    sent: Mapping[str, Any],
    base_model: str | None = None,
    deadline: float | None = None,
) -> Job:
    """Plan a training and queue it. Reads the dataset: call it off the event loop.

    Args:
        request: What is requested.
        registry, datasets, jobs: Where the models, the data and the queue are.
        sent: The request as the client sent it, for the job's `config`.
        base_model: What is stored as the job's base model; None: the planned one.
        deadline: By `time.monotonic`; after it no job is queued, because the client was told that
            its request failed and may have sent it again.

    Raises:
        VisionLoopError: What `plan` raises.
        BackendTimeout: The plan was ready after the deadline.
    """
    recipe = plan(request, registry, datasets, registry.settings)
    if deadline is not None and time.monotonic() > deadline:
        raise BackendTimeout("The dataset could not be read in time. No job was queued: try again.")
    job = jobs.create(
        "training",
        config={**sent, "resolved": dict(shown_config(recipe))},
        recipe=recipe.model_dump(mode="json"),
        mode=recipe.mode,
        task=recipe.task,
        base_model=base_model or recipe.parent or recipe.name,
        model_name=recipe.name,
        total_epochs=recipe.epochs,
    )
    jobs.log_writer(job.id).say(f"Waits for a slot: {recipe.mode}, {recipe.task}.")
    return job
