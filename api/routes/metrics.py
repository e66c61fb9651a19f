"""`/metrics`: the models' metrics as JSON, and the service's metrics for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from api import schemas
from api.dependencies import GatewayDep
from api.groups import QUALITY
from api.middleware.auth import require_use
from api.negotiation import prefers_exposition
from api.responses import JSON
from api.schemas import errors
from database import FAILURES
from errors import BackendUnavailable
from jobs.execution.local_engine import slots as slots_of
from jobs.job import KINDS
from jobs.states import STATUSES
from models_store.versions import ModelVersion
from monitoring.last_backup import backup_gauges
from monitoring.machine import machine_gauges
from serving import telemetry
from serving.gateway import Gateway

router = APIRouter(tags=[QUALITY], dependencies=[Depends(require_use)])


@router.get("/metrics", response_model=schemas.AllMetrics)
async def all_metrics(request: Request, gateway: GatewayDep) -> Response:
    """The metrics of every model.

    With `Accept: text/plain` it returns the metrics of the service instead, for Prometheus.
    """
    accept = request.headers.get("accept", "*/*")
    if prefers_exposition(accept):
        gauges = await _gauges(gateway)
        stored = {model.id for model in gateway.registry.list()}
        body, kind = await asyncio.to_thread(telemetry.exposition, accept, gauges, stored)
        return Response(body, headers={"Content-Type": kind, "Vary": "Accept"})
    rows = [_entry(model) for model in gateway.registry.list()]
    return JSON({"models_metrics": rows}, headers={"Vary": "Accept"})


@router.get("/metrics/{model_id}", response_model=schemas.ModelMetrics, responses=errors(404))
async def model_metrics(model_id: str, gateway: GatewayDep) -> Any:
    """The metrics of one model; empty if it was never evaluated."""
    return _entry(gateway.registry.get(model_id))


def _entry(model: ModelVersion) -> dict[str, Any]:
    return {"model_id": model.id, "model_name": model.name, "metrics": model.metrics or {}}


def gauges(gateway: Gateway) -> list[Metric]:
    """Prometheus gauges of the jobs by kind and status, and of the queue; reads the database."""
    counts = gateway.jobs.counts()
    jobs = GaugeMetricFamily(
        "visionloop_jobs",
        "Jobs by kind and state; words as in /jobs",
        labels=["kind", "status"],
    )
    for kind in KINDS:
        for status in STATUSES:
            jobs.add_metric([kind, status], counts.get((kind, status), 0))
    waiting = sum(count for (_, status), count in counts.items() if status == "queued")
    queue = GaugeMetricFamily("visionloop_job_queue_length", "Jobs waiting for a slot", waiting)
    oldest = gateway.jobs.queued(1)
    age = GaugeMetricFamily(
        "visionloop_job_waiting_seconds",
        "Time for which the next job of the queue has waited; 0: no job waits",
        _age(oldest[0].created_at) if oldest else 0.0,
    )
    slots = GaugeMetricFamily(
        "visionloop_job_slots", "Jobs that may run at the same time", slots_of(gateway.settings)
    )
    return [jobs, queue, age, slots]


def _age(created_at: str) -> float:
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(created_at)).total_seconds())


async def _gauges(gateway: Gateway) -> Iterable[Metric]:
    """All gauges with their current values, from the batchers, the runners and the database."""
    up = GaugeMetricFamily("visionloop_runner_up", "Whether it answers", labels=["runner"])
    waiting = GaugeMetricFamily(
        "visionloop_queue_length", "Images waiting for a batch", labels=["runner"]
    )
    loading = GaugeMetricFamily(
        "visionloop_images_waiting_for_load",
        "Images waiting until their model is loaded",
        labels=["runner"],
    )
    flying = GaugeMetricFamily(
        "visionloop_calls_in_flight", "Batches in a runner", labels=["runner"]
    )
    loaded = GaugeMetricFamily(
        "visionloop_model_loaded", "Engines loaded", labels=["runner", "model", "engine"]
    )
    queues = gateway.queues()
    for name, runner in gateway.runners.items():
        try:
            engines = (await runner.status())["engines"]
        except BackendUnavailable:
            engines = {}
        up.add_metric([name], float(runner.up))
        waiting.add_metric([name], queues[name].queued)
        loading.add_metric([name], queues[name].loading)
        flying.add_metric([name], queues[name].calls)
        for model, engine in engines.items():
            loaded.add_metric([name, model, engine], 1)
    machine = await asyncio.to_thread(machine_gauges, gateway.settings)
    try:
        read = await _read(gateway)
    except FAILURES:
        read = []
    reached = GaugeMetricFamily(
        "visionloop_database_up",
        "Whether the database answers; without it the series of jobs, of live traffic and of the "
        "last backup are left out",
        float(bool(read)),
    )
    return up, waiting, loading, flying, loaded, reached, *read, *machine


async def _read(gateway: Gateway) -> list[Metric]:
    """The gauges that need the database; empty while it is known not to answer.

    Raises:
        SQLAlchemyError, DatabaseBusy, DatabaseDamaged, InsufficientStorage: It cannot be used.
    """
    if not gateway.registry.database.answers:
        return []
    await gateway.live.flush()
    seen = await asyncio.to_thread(gateway.live.gauges)
    saved = await asyncio.to_thread(backup_gauges, gateway.registry.database)
    return [*await asyncio.to_thread(gauges, gateway), *seen, *saved]
