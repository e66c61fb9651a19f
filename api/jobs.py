"""`/jobs`: everything that runs for minutes, of every kind; and what its views share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from functools import partial
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from filelock import Timeout
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from pydantic import BaseModel, ConfigDict, Field

from api import job_logs
from api.auth import require_admin
from api.errors import check
from api.gateway import Gateway, Wired
from api.schemas import errors, form_schema
from api.slow_work import slow_work
from errors import BackendTimeout, JobNotFound, ValidationFailed
from training.jobs import KINDS, LISTED, STATUSES, Job, Kind
from training.logs import LogWriter
from training.processes import is_alive
from training.recipe import TrainingRequest, plan, shown_config
from training.remains import clear, kept_by
from training.settlement import Settlement, dispatcher_lock, published_in

router = APIRouter(tags=["Jobs"])

PATIENCE = 5.0  # seconds in which a cancelled job is gone
ORPHANED = 1.5  # seconds after which a dead process whose dispatcher is dead too is noticed
STEP = 0.1
KEPT_BODY = 256 * 1024  # bytes of a request that a job's `config` holds
LOOK = 1.0  # seconds between two looks at a job that is waited for

Body = TypeVar("Body", bound=BaseModel)


class JobView(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    job_id: str
    kind: Literal["training", "evaluation", "export", "annotation"]
    mode: str | None
    task: str | None
    status: Literal["queued", "running", "stopping", "stopped", "completed", "failed"]
    progress: float = Field(description="0 to 100; moves within an epoch")
    current_epoch: int
    total_epochs: int
    metrics: dict[str, Any]
    config: dict[str, Any] = Field(description="as sent; `resolved` is what was made of it")
    base_model: str | None
    model_name: str | None
    model_id: str | None = Field(description="the version it produced")
    error: str | None
    attempts: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    updated_at: str
    log_path: str = Field(description="on the server; /jobs/{job_id}/logs shows it")


class JobViews(BaseModel):
    jobs: list[JobView]


class JobLog(BaseModel):
    logs: list[str]


def status_of(job: Job) -> str:
    """The job's status; never `running` without a process.

    While a dead worker or Trainer is being noticed, its row lags behind: the job is queued.
    """
    if job.status == "running" and job.outcome is None and not is_alive(job.pid, job.pid_started):
        return "queued"
    return job.status


def view(gateway: Gateway, job: Job) -> dict[str, Any]:
    fields = ("kind", "mode", "task", "progress", "current_epoch", "total_epochs", "metrics")
    more = ("config", "base_model", "model_name", "model_id", "error", "attempts")
    times = ("created_at", "started_at", "finished_at", "updated_at")
    shown = {name: getattr(job, name) for name in (*fields, *more, *times)}
    shown["log_path"] = str(gateway.jobs.log(job.id))
    return {"job_id": job.id, "status": status_of(job)} | shown


@router.get("/jobs", response_model=JobViews, responses=errors(400, 404))
async def list_jobs(
    gateway: Wired,
    kind: str = Query("", description=f"one of: {', '.join(KINDS)}"),
    limit: int = Query(LISTED, ge=1, le=LISTED, description=f"a whole number from 1 to {LISTED}"),
    before: str = Query("", description="a job's id: those older than it"),
) -> Any:
    """The jobs of every kind, or of one, the newest first, a page of them."""
    if kind and kind not in KINDS:
        raise ValidationFailed(f"'kind' must be one of {', '.join(KINDS)}; got {kind!r:.60}.")
    look = partial(gateway.jobs.list, kind or None, limit=limit, before=before or None)
    jobs = await asyncio.to_thread(look)
    return {"jobs": [view(gateway, job) for job in jobs]}


@router.get("/jobs/{job_id}", response_model=JobView, responses=errors(404))
async def get_job(job_id: str, gateway: Wired) -> Any:
    """One job."""
    return view(gateway, await find(gateway, job_id))


@router.get("/jobs/{job_id}/logs", response_model=JobLog, responses=errors(404) | job_logs.STREAMED)
async def get_job_logs(request: Request, job_id: str, gateway: Wired, follow: bool = False) -> Any:
    """The job's log; with `follow=true` as server-sent events until the job ends."""
    job = await find(gateway, job_id)
    return await job_logs.answer(request, gateway, job, follow, status_of)


@router.post(
    "/jobs/{job_id}/cancel",
    response_model=JobView,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def cancel_job(job_id: str, gateway: Wired) -> Any:
    """End a job; answers when its process is gone."""
    return view(gateway, await cancel(gateway, job_id, PATIENCE))


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def delete_job(job_id: str, gateway: Wired) -> Response:
    """Delete a job that has ended, its log and its folder; a model that it made stays."""
    await asyncio.to_thread(gateway.jobs.delete, job_id)
    return Response(status_code=204)


async def find(gateway: Gateway, job_id: str, kind: Kind | None = None) -> Job:
    """Raises JobNotFound where there is none of this kind."""
    job = await asyncio.to_thread(gateway.jobs.get, job_id)
    if kind is not None and job.kind != kind:
        raise JobNotFound(f"No {kind} job {job_id[:80]!r}. It is an {job.kind}: GET /jobs.")
    return job


async def cancel(gateway: Gateway, job_id: str, patience: float = 0) -> Job:
    """Ask a job to end, and wait up to `patience` seconds for that.

    Raises:
        JobNotFound, Conflict: There is none, or it has ended.
    """
    job = await asyncio.to_thread(gateway.jobs.request_cancel, job_id)
    if job.is_final:  # it waited, perhaps with what an earlier process had done
        await asyncio.to_thread(_tidy, gateway, job)
    began = time.monotonic()
    while not job.is_final and time.monotonic() - began < patience:
        await asyncio.sleep(STEP)
        job = await asyncio.to_thread(gateway.jobs.get, job_id)
        gone = not job.is_final and not is_alive(job.pid, job.pid_started)
        if gone and time.monotonic() - began > ORPHANED:
            await asyncio.to_thread(_take, gateway, job_id)
            job = await asyncio.to_thread(gateway.jobs.get, job_id)
    return job


def _tidy(gateway: Gateway, job: Job) -> None:
    """What a job that was cancelled in the queue leaves of an earlier attempt."""
    folder = gateway.jobs.folder(job.id)
    clear(folder, completed=False)
    LogWriter(gateway.jobs.log(job.id)).say(f"Stopped in the queue.{kept_by(job, folder)}")


def _take(gateway: Gateway, job_id: str) -> None:
    """Settle a job whose Trainer is dead; while one lives, that does it."""
    settings = gateway.settings
    with contextlib.suppress(Timeout), dispatcher_lock(settings).acquire(blocking=False):
        published = published_in(gateway.registry)
        Settlement(gateway.jobs, settings.train_attempts, published).take(job_id)


async def ended(gateway: Gateway, job_id: str) -> Job:
    """A job once it is final, or as it is when this server stops."""
    while True:
        job = await asyncio.to_thread(gateway.jobs.get, job_id)
        if job.is_final or gateway.leaving.is_set():
            return job
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await gateway.leaving.wait()


async def submit(
    gateway: Gateway,
    wanted: TrainingRequest,
    sent: dict[str, Any],
    base_model: str | None = None,
) -> Job:
    """Check a training, put it into the queue, wake the Trainer.

    `base_model` is what the first family shows as the job's `model_id`.

    Raises:
        VisionLoopError: What `training.recipe.plan` raises.
    """
    until = time.monotonic() + gateway.settings.import_timeout  # then it is a 504
    enqueue = partial(_enqueue, gateway, wanted, sent, base_model, until)
    job = await slow_work.run(enqueue)
    if gateway.trainer is not None:
        gateway.trainer.submit(job.id)
    return job


def _enqueue(
    gateway: Gateway,
    wanted: TrainingRequest,
    sent: dict[str, Any],
    base_model: str | None,
    until: float,
) -> Job:
    recipe = plan(wanted, gateway.registry, gateway.datasets, gateway.settings)
    if time.monotonic() > until:  # the client was told that it failed, and may have asked again
        raise BackendTimeout("The data set could not be looked through in time.")
    job = gateway.jobs.create(
        "training",
        config=sent | {"resolved": dict(shown_config(recipe))},
        recipe=recipe.model_dump(mode="json"),
        mode=recipe.mode,
        task=recipe.task,
        base_model=base_model or recipe.parent or recipe.name,
        model_name=recipe.name,
        total_epochs=recipe.epochs,
    )
    LogWriter(gateway.jobs.log(job.id)).say(f"Queued: {recipe.mode}, {recipe.task}.")
    return job


async def json_body(request: Request, model: type[Body], context: Any = None) -> Body:
    """The body as a `model`. Only JSON: a browser sends that to other origins only when allowed.

    Raises:
        ValidationFailed: It is something else, or a field is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ValidationFailed(f"'Content-Type' must be application/json; got {kind!r:.60}.")
    return check(model, await request.body() or b"{}", context)


async def as_sent(request: Request, fields: BaseModel) -> dict[str, Any]:
    """The JSON object of a body that `json_body` accepted, unknown keys included.

    An enormous one is kept as its known fields.
    """
    body = await request.body() or b"{}"
    if len(body) > KEPT_BODY:
        return fields.model_dump()
    return dict(json.loads(body, parse_constant=str))  # NaN is no JSON


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """For the OpenAPI document, of a route that reads its body with `json_body`."""
    content = {"application/json": {"schema": form_schema(model)}}
    return {"requestBody": {"required": True, "content": content}}


def gauges(gateway: Gateway) -> list[Metric]:
    """For Prometheus: how many jobs there are, and how many wait. Reads the table."""
    counts = gateway.jobs.counts()
    jobs = GaugeMetricFamily("visionloop_jobs", "Jobs in the table", labels=["kind", "status"])
    for kind in KINDS:
        for status in STATUSES:
            jobs.add_metric([kind, status], counts.get((kind, status), 0))
    waiting = sum(count for (_, status), count in counts.items() if status == "queued")
    queue = GaugeMetricFamily("visionloop_job_queue_length", "Jobs waiting for a slot", waiting)
    return [jobs, queue]
