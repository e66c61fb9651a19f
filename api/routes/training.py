"""`/api/training`: training jobs for the second client family."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from api import job_logs
from api.dependencies import GatewayDep
from api.groups import TASKS
from api.job_control import PATIENCE, cancel, check_promotion, find, start_training
from api.job_logs import JobLog
from api.middleware.auth import require_train, require_use
from api.requests import as_sent, json_body
from api.schemas import errors, json_request_body
from api.training_fields import TrainingFields
from api.training_forms import FORMS
from errors import ModelNotFound
from evaluation.results import led
from inference.device import device
from jobs.control import status_of
from jobs.execution.local_engine import slots
from jobs.job import Job
from jobs.logs.log_file import read_last
from jobs.states import TASK_MEANINGS, TASK_STATUSES, TaskStatus
from serving.gateway import Gateway
from training.planning.recipe import Mode

router = APIRouter(prefix="/api/training", tags=[TASKS], dependencies=[Depends(require_use)])

LISTED_LINES, SHOWN_LINES = 5, 200  # log lines per task, in the list of tasks and for one task


class TaskStarted(BaseModel):
    task_id: str
    status: TaskStatus = Field(examples=["pending"], description=TASK_MEANINGS)
    message: str


class TrainingAccepted(TaskStarted):
    notes: list[str] = Field(
        description="what was decided, in sentences: what the training starts from, and values "
        "that were changed"
    )


class Task(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    task_id: str
    training_type: Literal["regular", "incremental", "freeze_strategy", "distillation"]
    status: TaskStatus = Field(description=TASK_MEANINGS)
    progress: float = Field(description="percent, 0 to 100; updated during each epoch")
    current_epoch: int
    total_epochs: int
    created_at: str
    started_at: str | None
    completed_at: str | None
    error_message: str | None
    result_path: str | None = Field(description="folder of the new model version")
    model_id: str | None = Field(description="id of the new model version")
    metrics: dict[str, Any]
    config: dict[str, Any] = Field(
        description="the request as sent; `resolved`: the values that the job uses"
    )
    logs: list[str] = Field(description="the last lines of the log")


class TrainingStatus(BaseModel):
    """How many training jobs there are, and where they run."""

    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int
    queue_length: int
    device: str
    slots: int = Field(description="number of jobs that run at the same time")


def _route(path: str, mode: Mode, summary: str) -> None:
    @router.post(
        path,
        response_model=TrainingAccepted,
        responses=errors(400, 403, 404),
        openapi_extra=json_request_body(FORMS[mode]),
        dependencies=[Depends(require_train)],
        summary=summary,
        name=mode,
    )
    async def start(request: Request, gateway: GatewayDep) -> Any:
        fields = await json_body(request, TrainingFields, mode)
        sent = await as_sent(request, fields)
        wanted = fields.request(mode)
        check_promotion(wanted)
        job = await start_training(gateway, wanted, sent)
        message = f"Training '{job.model_name}' is pending."
        head = {"task_id": job.id, "status": "pending", "message": message}
        return head | {"notes": job.notes}


_route("/regular", "regular", "Train a model")
_route("/incremental", "incremental", "Add classes to a model")
_route("/distillation", "distillation", "Train a small model with a large teacher")
_route("/freeze-strategy", "freeze_strategy", "Train in stages: head, neck, backbone")


@router.get("/tasks", response_model=list[Task])
async def list_all(gateway: GatewayDep) -> Any:
    """The training jobs, the newest first."""
    jobs = await asyncio.to_thread(gateway.jobs.list, "training")
    return await asyncio.to_thread(lambda: [_task(gateway, job, LISTED_LINES) for job in jobs])


@router.get("/tasks/{task_id}", response_model=Task, responses=errors(404))
async def show(task_id: str, gateway: GatewayDep) -> Any:
    """One training job."""
    job = await find(gateway, task_id, "training")
    return await asyncio.to_thread(_task, gateway, job, SHOWN_LINES)


@router.get(
    "/tasks/{task_id}/logs", response_model=JobLog, responses=errors(404) | job_logs.STREAMED
)
async def logs(request: Request, task_id: str, gateway: GatewayDep, follow: bool = False) -> Any:
    """The job's log; with `follow=true` as server-sent events until the job ends."""
    job = await find(gateway, task_id, "training")
    return await job_logs.answer(request, gateway, job, follow, _status)


@router.post(
    "/tasks/{task_id}/cancel",
    response_model=TaskStarted,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_train)],
)
async def stop(task_id: str, gateway: GatewayDep) -> Any:
    """Cancel a training job; answers when its process has ended."""
    found = await find(gateway, task_id, "training")
    job = await cancel(gateway, found.id, PATIENCE)
    ended = {
        "stopped": "was cancelled",
        "completed": "was completed before it could be cancelled",
        "failed": "failed before it could be cancelled",
    }.get(job.status, "is being cancelled")
    return {"task_id": job.id, "status": _status(job), "message": f"Task {job.id} {ended}."}


@router.get("/status", response_model=TrainingStatus)
async def status(gateway: GatewayDep) -> Any:
    """How many training jobs there are, by status, and where they run."""
    counts: dict[str, int] = dict.fromkeys(TASK_STATUSES.values(), 0)
    listed = await asyncio.to_thread(gateway.jobs.counts)
    for (kind, status), count in listed.items():
        if kind == "training":
            counts[TASK_STATUSES[status]] += count
    waiting = sum(count for (_, status), count in listed.items() if status == "queued")
    settings = gateway.settings
    more = {"queue_length": waiting, "device": device(settings), "slots": slots(settings)}
    return counts | more


def _status(job: Job) -> TaskStatus:
    return TASK_STATUSES[status_of(job)]


def _task(gateway: Gateway, job: Job, lines: int) -> dict[str, Any]:
    return {
        "task_id": job.id,
        "training_type": job.mode,
        "status": _status(job),
        "progress": job.progress,
        "current_epoch": job.current_epoch,
        "total_epochs": job.total_epochs,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.finished_at,
        "error_message": job.shown_error,
        "result_path": _result(gateway, job),
        "model_id": job.model_id,
        "metrics": led(job.metrics),
        "config": job.config,
        "logs": read_last(gateway.jobs.log_to_read(job.id), lines),
    }


def _result(gateway: Gateway, job: Job) -> str | None:
    if job.model_id is None:
        return None
    try:
        return str(gateway.registry.get(job.model_id).path)
    except ModelNotFound:  # the model was deleted
        return None
