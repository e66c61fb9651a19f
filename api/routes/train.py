"""`/train`: training jobs for the first client family."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import GatewayDep
from api.groups import TRAIN
from api.job_control import cancel, check_promotion, find, start_training
from api.middleware.auth import require_train, require_use
from api.requests import as_sent, json_body
from api.schemas import errors, json_request_body
from api.training_fields import Train, request_of
from evaluation.results import led
from jobs.control import status_of
from jobs.job import Job
from jobs.states import MEANINGS, Status

router = APIRouter(prefix="/train", tags=[TRAIN], dependencies=[Depends(require_use)])


class JobStarted(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    status: Status = Field(description=MEANINGS)
    job_id: str
    model_id: str


class TrainingQueued(JobStarted):
    notes: list[str] = Field(
        description="what was decided, in sentences: what the training starts from, and values "
        "that were changed"
    )


class ListedJob(JobStarted):
    progress: float
    created_at: str


class ListedJobs(BaseModel):
    jobs: list[ListedJob]


class ShownJob(JobStarted):
    progress: float = Field(description="percent, 0 to 100; updated during each epoch")
    metrics: dict[str, Any]
    error: str | None = Field(description="why the job failed")
    result_model_id: str | None = Field(description="the model version that the job produced")


class JobStopping(BaseModel):
    status: Literal["stopping"] = Field(
        description="a cancel was requested; GET /train/{job_id} says when the job is `stopped`"
    )
    job_id: str
    message: str


@router.post(
    "",
    response_model=TrainingQueued,
    responses=errors(400, 403, 404),
    openapi_extra=json_request_body(Train),
    dependencies=[Depends(require_train)],
)
async def start(request: Request, gateway: GatewayDep) -> Any:
    """Train a new version under the name of `model_id`."""
    body = await json_body(request, Train)
    sent = await as_sent(request, body)
    wanted = request_of(body)
    check_promotion(wanted)
    job = await start_training(gateway, wanted, sent, body.model_id)
    head = {"status": "queued", "job_id": job.id, "model_id": body.model_id}
    return head | {"notes": job.notes}


@router.get("", response_model=ListedJobs)
async def list_all(gateway: GatewayDep) -> Any:
    """The training jobs, the newest first."""
    jobs = await asyncio.to_thread(gateway.jobs.list, "training")
    return {"jobs": [_head(job) | {"created_at": job.created_at} for job in jobs]}


@router.get("/{job_id}", response_model=ShownJob, responses=errors(404))
async def show(job_id: str, gateway: GatewayDep) -> Any:
    """One training job, with its losses and metrics so far."""
    job = await find(gateway, job_id, "training")
    return _head(job) | {
        "metrics": metrics_of(job),
        "error": job.shown_error,
        "result_model_id": job.model_id,
    }


@router.delete(
    "/{job_id}",
    response_model=JobStopping,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_train)],
)
async def stop(job_id: str, gateway: GatewayDep) -> Any:
    """Cancel a training job; it is `stopped` once its process has ended."""
    job = await find(gateway, job_id, "training")
    await cancel(gateway, job.id)
    return {"status": "stopping", "job_id": job.id, "message": f"Job {job.id} is stopping."}


def _head(job: Job) -> dict[str, Any]:
    head = {"job_id": job.id, "model_id": job.base_model or "", "status": status_of(job)}
    return head | {"progress": job.progress}


def metrics_of(job: Job) -> dict[str, Any]:
    """The job's metrics so far; always with `loss` and `accuracy`, which are null if unknown."""
    return led(
        {"loss": None, "accuracy": None}
        | job.metrics
        | {
            "current_epoch": job.current_epoch,
            "total_epochs": job.total_epochs,
            "last_updated": job.updated_at,
        }
    )
