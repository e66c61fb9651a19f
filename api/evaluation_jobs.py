"""Evaluations as jobs: planned and queued."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from api.schemas import RequestFields
from errors import VisionLoopError
from evaluation.recipe import EvaluationRecipe, plan_evaluation
from evaluation.store import EvaluationRow
from jobs.logs import LogWriter
from jobs.store import Job
from serving.gateway import Gateway


class Evaluate(RequestFields):
    """What to measure on."""

    dataset_path: str | None = Field(
        None,
        max_length=4096,
        description="a data.yaml, a folder with one folder per class, or a data set's id; empty: "
        "what the model was trained with",
    )
    split: str | None = Field(None, max_length=20, description="train, val or test (val)")


async def submit(gateway: Gateway, model_id: str, fields: Evaluate) -> Job:
    """Check an evaluation, put it into the queue, wake the Trainer.

    Raises:
        VisionLoopError: What `plan_evaluation` raises.
    """
    recipe = await asyncio.to_thread(plan, gateway, model_id, fields.dataset_path, fields.split)
    return await enqueue(gateway, recipe, fields.model_dump(), recipe.model_dump(mode="json"))


def plan(
    gateway: Gateway, model_id: str, dataset: str | None, split: str | None
) -> EvaluationRecipe:
    return plan_evaluation(
        model_id,
        dataset,
        split,
        gateway.registry,
        gateway.datasets,
        gateway.jobs,
        gateway.settings,
    )


async def enqueue(
    gateway: Gateway,
    evaluation: EvaluationRecipe,
    sent: dict[str, Any],
    recipe: dict[str, Any],
    mode: str | None = None,
) -> Job:
    """A job of kind evaluation; `mode` tells what else it does."""

    def create() -> Job:
        job = gateway.jobs.create(
            "evaluation",
            config=sent | {"resolved": evaluation.model_dump(mode="json")},
            recipe=recipe,
            mode=mode,
            task=evaluation.task,
            base_model=evaluation.model_id,
            model_name=evaluation.model_id.partition(":")[0],
        )
        LogWriter(gateway.jobs.log(job.id)).say(f"Queued: {mode or 'evaluation'}.")
        return job

    job = await asyncio.to_thread(create)
    if gateway.trainer is not None:
        gateway.trainer.submit(job.id, job.kind)
    return job


def is_of(gateway: Gateway, row: EvaluationRow, dataset: str) -> bool:
    """Whether an evaluation is of the data that a client names; the empty name means any."""
    if not dataset or dataset in (row.dataset, row.dataset_path, row.fingerprint):
        return True
    try:
        return str(gateway.datasets.resolve(dataset)) == row.dataset_path
    except VisionLoopError:
        return False
