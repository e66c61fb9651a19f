"""`/train`: training jobs as the first client family sees them."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from api.auth import require_admin
from api.errors import check
from api.gateway import Wired
from api.jobs import as_sent, cancel, find, json_body, json_schema, status_of, submit
from api.schemas import MODEL_EXAMPLE, errors
from api.training import Fields, TrainingFields
from training.jobs import Job
from training.recipe import TrainingRequest

router = APIRouter(prefix="/train", tags=["Training, first client family"])

Status = Literal["queued", "running", "stopping", "stopped", "completed", "failed"]


class Train(Fields):
    """What to train from and on."""

    inside: ClassVar = {
        "parameters": [*TrainingFields.model_fields, "mode"],
        **TrainingFields.inside,
    }

    model_id: str = Field(
        min_length=1,
        max_length=400,
        description="a model to start from: its id (name:version) or name, or a scale n s m l x",
        examples=[MODEL_EXAMPLE],
    )
    dataset_path: str = Field(
        min_length=1,
        max_length=4096,
        description="a data.yaml, a folder with one folder per class, or a data set's id",
    )
    epochs: int | None = Field(None, ge=1, le=100_000, description="a whole number from 1 (50)")
    batch_size: int | None = Field(
        None, ge=1, le=1024, description="a whole number from 1 to 1024 (8)"
    )
    promote: Literal["never", "auto"] | None = Field(
        None, description="auto: promote the new version if the gate lets it pass (never)"
    )
    parameters: dict[str, Any] = Field(
        {}, description="an object with further fields: those of /api/training/regular"
    )


class Parameters(TrainingFields):
    """`parameters`: the fields of the second family, and the mode; nothing else."""

    passed_over = frozenset()

    mode: Literal["regular", "incremental", "distillation", "freeze_strategy"] = Field(
        "regular", description="regular, incremental, distillation or freeze_strategy"
    )


class JobStarted(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    status: Status
    job_id: str
    model_id: str


class ListedJob(JobStarted):
    progress: float
    created_at: str


class ListedJobs(BaseModel):
    jobs: list[ListedJob]


class ShownJob(JobStarted):
    progress: float = Field(description="0 to 100; moves within an epoch")
    metrics: dict[str, Any]
    error: str | None = Field(description="why it failed")
    result_model_id: str | None = Field(description="the version it produced")


class JobStopping(BaseModel):
    status: Literal["stopping"]
    job_id: str
    message: str


@router.post(
    "",
    response_model=JobStarted,
    responses=errors(400, 403, 404),
    openapi_extra=json_schema(Train),
    dependencies=[Depends(require_admin)],
)
async def start(request: Request, gateway: Wired) -> Any:
    """Train a new version of `model_id`'s name."""
    body = await json_body(request, Train)
    sent = await as_sent(request, body)
    job = await submit(gateway, wanted_by(body), sent, body.model_id)
    return {"status": "queued", "job_id": job.id, "model_id": body.model_id}


def wanted_by(body: Train) -> TrainingRequest:
    """What a body of `/train` asks for.

    Raises:
        ValidationFailed: One of its parameters is unknown or wrong.
    """
    wanted = wanted_with(body.parameters)
    named: dict[str, Any] = {"epochs": body.epochs, "batch": body.batch_size}
    named["promote"] = body.promote
    if wanted.mode == "incremental" and wanted.base_model is None:
        named["base_model"] = body.model_id  # it is what goes on learning
    return wanted.model_copy(
        update={"model": body.model_id, "data": body.dataset_path}
        | {name: value for name, value in named.items() if value is not None}
    )


def wanted_with(parameters: dict[str, Any]) -> TrainingRequest:
    """What `parameters` alone ask for, which may name everything.

    Raises:
        ValidationFailed: One of them is unknown or wrong.
    """
    fields = check(Parameters, parameters)
    return fields.request(fields.mode)


@router.get("", response_model=ListedJobs)
async def list_all(gateway: Wired) -> Any:
    """The training jobs, the newest first."""
    jobs = await asyncio.to_thread(gateway.jobs.list, "training")
    return {"jobs": [_head(job) | {"created_at": job.created_at} for job in jobs]}


@router.get("/{job_id}", response_model=ShownJob, responses=errors(404))
async def show(job_id: str, gateway: Wired) -> Any:
    """One training job, with its losses and figures so far."""
    job = await find(gateway, job_id, "training")
    return _head(job) | {
        "metrics": metrics_of(job),
        "error": job.error,
        "result_model_id": job.model_id,
    }


@router.delete(
    "/{job_id}",
    response_model=JobStopping,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def stop(job_id: str, gateway: Wired) -> Any:
    """Ask a training job to end; it is `stopped` when its process is gone."""
    await find(gateway, job_id, "training")
    await cancel(gateway, job_id)
    return {"status": "stopping", "job_id": job_id, "message": f"Job {job_id} is being stopped."}


def _head(job: Job) -> dict[str, Any]:
    head = {"job_id": job.id, "model_id": job.base_model or "", "status": status_of(job)}
    return head | {"progress": job.progress}


def metrics_of(job: Job) -> dict[str, Any]:
    """The figures so far; `loss` and `accuracy` are always there, null while not known."""
    return (
        {"loss": None, "accuracy": None}
        | job.metrics
        | {
            "current_epoch": job.current_epoch,
            "total_epochs": job.total_epochs,
            "last_updated": job.updated_at,
        }
    )
