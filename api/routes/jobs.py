"""`/jobs`: jobs of every kind."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import job_logs
from api.dependencies import GatewayDep
from api.groups import JOBS
from api.job_control import PATIENCE, cancel, find, view
from api.job_logs import JobLog
from api.middleware.auth import require_admin, require_annotate, require_use
from api.middleware.request_state import changed
from api.schemas import errors
from errors import ValidationFailed
from evaluation.results import led
from jobs.control import status_of
from jobs.finalizer import leader
from jobs.job import KINDS
from jobs.states import MEANINGS, Status
from jobs.store import LISTED
from short_ids import RULE

router = APIRouter(tags=[JOBS], dependencies=[Depends(require_use)])


class Interruption(BaseModel):
    """Why an attempt of a job ended before the job had."""

    at: str = Field(description="time of the attempt's end, ISO 8601, UTC")
    reason: str = Field(description="a sentence")


class JobView(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    job_id: str
    kind: str = Field(
        description="the job's kind; a job of an older version may have a kind that is not listed",
        json_schema_extra={"enum": [*KINDS]},
    )
    mode: str | None
    task: str | None
    status: Status = Field(description=MEANINGS)
    progress: float = Field(description="percent, 0 to 100; updated during each epoch")
    current_epoch: int
    total_epochs: int
    batch: int | None = Field(
        description="trained batches of the current epoch; null: none yet, or no training"
    )
    batches: int | None = Field(description="batches of an epoch; null: not known")
    eta_s: float | None = Field(
        description="estimated seconds until the job has ended, from its pace of the last two "
        "minutes; a training that stops early (`patience`) is sooner done; null: it does not run, "
        "or not long enough"
    )
    queue_position: int | None = Field(
        description="place among the waiting jobs, 1 is next; null: it does not wait"
    )
    metrics: dict[str, Any]
    config: dict[str, Any] = Field(
        description="the request as sent; `resolved`: the values that the job uses"
    )
    base_model: str | None
    model_name: str | None
    model_id: str | None = Field(description="the model version that the job produced")
    error: str | None
    started_by: str | None = Field(
        description="the name of the token that it was started with; `open`: without one"
    )
    attempts: int
    request_id: str | None = Field(
        description="`X-Request-ID` of the request that started it; null: no request did"
    )
    created_at: str
    started_at: str | None
    finished_at: str | None
    updated_at: str
    runs_on: str | None = Field(
        description="the host on which its process was started, or `cluster`; null: it has none"
    )
    interruption: Interruption | None = Field(
        description="why its last attempt ended before the job had, so that it was resumed, "
        "perhaps elsewhere; null: it never was"
    )
    outage_since: str | None = Field(
        description="since when the job waits for the database or the object store, or is tried "
        "again because of them, ISO 8601, UTC; null: it does not"
    )
    log_path: str = Field(
        description="path of the log on the server; /jobs/{job_id}/logs returns its content"
    )
    size_bytes: int = Field(description="bytes of its log, checkpoints and other files")


class FinishedEpoch(BaseModel):
    """What an epoch of a training ended with."""

    epoch: int = Field(description="from 1")
    seconds: float | None = Field(
        description="its duration; null: the training was resumed within this epoch"
    )
    metrics: dict[str, float | None] = Field(
        description="losses and metrics by name; null: the value was not finite"
    )
    at: str = Field(description="time of its end, ISO 8601, UTC")


class MetricHistory(BaseModel):
    job_id: str
    epochs: list[FinishedEpoch] = Field(description="the finished epochs, in order")
    total_epochs: int
    next_after: int | None = Field(
        description="`after` of the next page; null: there are no more epochs at the moment"
    )


class Leader(BaseModel):
    """The one of several servers that starts jobs and sends webhooks."""

    server: str = Field(description="its host")
    since: str = Field(description="when it began to lead, ISO 8601, UTC")


class JobViews(BaseModel):
    jobs: list[JobView]
    leader: Leader | None = Field(
        description="the server that starts the jobs; null: there is one server only, or none leads"
    )


@router.get("/jobs", response_model=JobViews, responses=errors(400, 404))
async def list_jobs(
    gateway: GatewayDep,
    kind: str = Query("", description=f"one of: {', '.join(KINDS)}"),
    status: list[Status] = Query(
        [], description="only jobs in this status; repeat it for jobs in one of several"
    ),
    limit: int = Query(LISTED, ge=1, le=LISTED, description=f"a whole number from 1 to {LISTED}"),
    before: str = Query(
        "", description=f"a job's id, {RULE}; only jobs older than this one are listed"
    ),
) -> Any:
    """The jobs, of every kind or of one, in every status or in some, the newest first, in pages."""
    if kind and kind not in KINDS:
        raise ValidationFailed(f"'kind' must be one of {', '.join(KINDS)}; got {kind!r:.60}.")
    jobs = gateway.jobs

    def look() -> dict[str, Any]:
        found = jobs.list(kind or None, *status, limit=limit, before=before or None)
        places = jobs.places()
        shown = [view(gateway, job, places) for job in found]
        return {"jobs": shown, "leader": leader(jobs.database)}

    return await asyncio.to_thread(look)


@router.get("/jobs/{job_id}", response_model=JobView, responses=errors(404))
async def get_job(job_id: str, gateway: GatewayDep) -> Any:
    """One job."""
    return await asyncio.to_thread(view, gateway, await find(gateway, job_id))


@router.get(
    "/jobs/{job_id}/metrics/history", response_model=MetricHistory, responses=errors(400, 404)
)
async def get_metric_history(
    job_id: str,
    gateway: GatewayDep,
    after: int = Query(0, ge=0, le=10**6, description="only epochs after this one"),
    limit: int = Query(LISTED, ge=1, le=LISTED, description=f"a whole number from 1 to {LISTED}"),
) -> Any:
    """Losses and metrics of each finished epoch of a training, in order.

    A job that was resumed has each epoch once. Other jobs, and trainings of versions without this
    history, have none.
    """
    job = await find(gateway, job_id)
    rows = await asyncio.to_thread(gateway.jobs.epochs, job.id, after, limit + 1)
    shown = [row.to_json() | {"metrics": led(row.metrics)} for row in rows[:limit]]
    more = {"next_after": shown[-1]["epoch"] if len(rows) > limit else None}
    return {"job_id": job.id, "epochs": shown, "total_epochs": job.total_epochs} | more


@router.get("/jobs/{job_id}/logs", response_model=JobLog, responses=errors(404) | job_logs.STREAMED)
async def get_job_logs(
    request: Request,
    job_id: str,
    gateway: GatewayDep,
    follow: bool = False,
    lines: int = Query(
        job_logs.LISTED,
        ge=1,
        le=job_logs.LISTED,
        description="the newest lines of the log, at most so many; `follow` streams all of them",
    ),
) -> Any:
    """The job's log; with `follow=true` as server-sent events until the job ends."""
    job = await find(gateway, job_id)
    return await job_logs.answer(request, gateway, job, follow, status_of, lines)


@router.post(
    "/jobs/{job_id}/cancel",
    response_model=JobView,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_annotate)],
)
async def cancel_job(job_id: str, gateway: GatewayDep) -> Any:
    """Cancel a job; answers when its process has ended."""
    return await asyncio.to_thread(view, gateway, await cancel(gateway, job_id, PATIENCE))


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def delete_job(job_id: str, gateway: GatewayDep) -> Response:
    """Delete a job that has ended, with its log and folder; the model it made stays."""
    job = await find(gateway, job_id)
    await asyncio.to_thread(gateway.jobs.delete, job.id)
    changed("deleted the job", job.id)
    return Response(status_code=204)
