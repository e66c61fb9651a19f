"""Requests for evaluations: the fields of a request, and queueing the job."""

from __future__ import annotations

import asyncio

from pydantic import Field

from api.dependencies import evaluation_stores
from api.job_control import notify_trainer
from api.middleware.request_state import changed
from api.schemas import RequestFields
from evaluation.submission import submit_evaluation
from jobs.job import Job
from serving.gateway import Gateway


class Evaluate(RequestFields):
    """The data that a model is evaluated on."""

    dataset_path: str | None = Field(
        None,
        max_length=4096,
        description="a data.yaml, a folder with one folder per class, or a dataset's id; empty: "
        "the data that the model was trained with",
    )
    split: str | None = Field(None, max_length=20, description="train, val or test (default: val)")
    letterbox: str | None = Field(
        None,
        max_length=20,
        description="how images are padded: square or val_rect, to equal Ultralytics' "
        "val(rect=False) or val(rect=True) at its default batch of 16; empty: as they are served",
    )


async def start_evaluation(gateway: Gateway, model_id: str, fields: Evaluate) -> Job:
    """Check and queue an evaluation, and notify the Trainer.

    Raises:
        VisionLoopError: As `evaluation.recipe.plan_evaluation`.
    """
    job = await asyncio.to_thread(
        submit_evaluation,
        evaluation_stores(gateway),
        model_id,
        fields.dataset_path,
        fields.split,
        fields.letterbox,
        fields.model_dump(),
    )
    changed(f"started an evaluation of {job.base_model}", job.id)
    notify_trainer(gateway, job)
    return job
