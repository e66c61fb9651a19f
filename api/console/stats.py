"""`/stats`: how the service does now, and did in the last 15 minutes."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import Any

import psutil
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import GatewayDep
from api.groups import OPERATION
from api.middleware.auth import require_use
from api.schemas import errors
from errors import BackendUnavailable
from jobs.states import STATUSES
from monitoring.machine import disks, gpus, process_memory
from serving.gateway import Gateway
from serving.live_traffic import drifts
from serving.operations.window import STEP

router = APIRouter(tags=[OPERATION], dependencies=[Depends(require_use)])

FRESH = 2.0  # seconds for which an answer serves every client
DRIFT_FRESH = 30.0  # the same of the drift, which needs the counts of a day


class StatsStep(BaseModel):
    at: float = Field(description="the end of the step, in seconds since 1970")
    seconds: float = Field(description="how long the step was")
    images_per_second: float = Field(description="images predicted a second")
    requests_per_second: float = Field(description="requests of every kind a second")
    predictions_per_second: float = Field(description="requests a second of routes that predict")
    p50_ms: float | None = Field(
        description="median latency of these, in milliseconds, interpolated; null: there were none"
    )
    p99_ms: float | None = Field(description="their 99th percentile")
    batch_size: float | None = Field(description="mean number of images in a batch")
    queued: float = Field(description="images that waited for a batch at the end of the step")
    errors: dict[str, int] = Field(description="number of error responses by code")
    client_errors: int = Field(description="number of responses with a status of 4xx")
    server_errors: int = Field(description="number of responses with a status of 5xx")


class StatsProcess(BaseModel):
    kind: str = Field(description="name of a service, `job` (with its data loaders), `supervisor`")
    pid: int = Field(description="the id of the process")
    resident_bytes: int = Field(description="resident memory")


class StatsGpu(BaseModel):
    index: int = Field(description="number of the GPU")
    name: str = Field(description="its name")
    used_bytes: int = Field(description="memory in use, by anyone")
    size_bytes: int = Field(description="all its memory")
    busy: float | None = Field(description="share of the last second; null: not known")


class StatsDisk(BaseModel):
    folder: str = Field(description="the folder on it: VISIONLOOP_HOME or BENTOML_HOME")
    free_bytes: int = Field(description="free space")
    size_bytes: int = Field(description="size of the disk")


class StatsDrift(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str = Field(description="the version")
    index: float = Field(description="population stability index of the last 24 hours")
    by_chance: float = Field(description="its 95th percentile without a drift")
    verdict: str = Field(description="stable, within chance, moderate shift, or large shift")


class StatsLoaded(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str = Field(description="the version")
    runner: str = Field(description="the runner that has it loaded: detector or annotator")
    engine: str = Field(description="the engine that serves it")


class StatsRunner(BaseModel):
    runner: str = Field(description="its name: detector or annotator")
    up: bool = Field(description="whether it answers")
    queued: float = Field(description="images that wait for a batch")
    loading: float = Field(description="images that wait until their model is loaded")
    calls: float = Field(description="batches that it works on")


class Stats(BaseModel):
    """What the operators of a service look at."""

    at: float = Field(description="the time of the figures, in seconds since 1970")
    step_seconds: float = Field(description="length of a step", examples=[STEP])
    steps: list[StatsStep] = Field(
        description="the last 15 minutes, the oldest first; fewer after a start"
    )
    processes: list[StatsProcess] = Field(description="the processes of the server")
    cpu_percent: float = Field(description="use of all cores of the machine, 0 to 100")
    cores: int = Field(description="number of cores")
    memory_bytes: int = Field(description="memory of the machine")
    memory_available_bytes: int = Field(description="memory that is still available in it")
    gpus: list[StatsGpu] = Field(description="the GPUs; none if the service runs on a CPU")
    disks: list[StatsDisk] = Field(description="the disks of the service")
    jobs: dict[str, int] = Field(description="number of jobs by status")
    drift: list[StatsDrift] = Field(
        description="drift of live traffic by model, the largest first; where it is known"
    )
    loaded: list[StatsLoaded] = Field(description="the models that are loaded")
    runners: list[StatsRunner] = Field(description="the processes that run models")
    sample_ms: float = Field(description="time that the last reading of the counters took")


class StatsReader:
    """Makes the answers; each serves all clients for a moment."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._lock = asyncio.Lock()
        self._made: tuple[float, dict[str, Any]] | None = None
        self._drift: tuple[float, list[dict[str, Any]]] | None = None

    async def read(self) -> dict[str, Any]:
        """The answer of `/stats`.

        Raises:
            DatabaseBusy: The jobs cannot be read.
        """
        if (made := self._fresh()) is None:
            async with self._lock:
                if (made := self._fresh()) is None:
                    made = await self._make()
                    self._made = (time.monotonic(), made)
        return made

    def _fresh(self) -> dict[str, Any] | None:
        if self._made is None or time.monotonic() - self._made[0] > FRESH:
            return None
        return self._made[1]

    async def _make(self) -> dict[str, Any]:
        gateway = self._gateway
        loaded, runners = await self._runners()
        now = await asyncio.to_thread(self._machine)
        sampler = gateway.sampler
        steps = [vars(step) for step in sampler.window.steps]
        times = {"at": time.time(), "step_seconds": STEP, "sample_ms": 1000 * sampler.seconds}
        return times | {"steps": steps, "loaded": loaded, "runners": runners} | now

    async def _runners(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        gateway = self._gateway
        queues = gateway.queues()
        loaded, runners = [], []
        for name, runner in gateway.runners.items():
            try:
                engines = (await runner.status())["engines"]
            except BackendUnavailable:
                engines = {}
            loaded += [
                {"model_id": model, "runner": name, "engine": engine}
                for model, engine in engines.items()
            ]
            runners.append({"runner": name, "up": runner.up} | queues[name]._asdict())
        return loaded, runners

    def _machine(self) -> dict[str, Any]:
        gateway = self._gateway
        settings = gateway.settings
        jobs: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
        for (_, status), count in gateway.jobs.counts().items():
            jobs[status] += count
        memory = psutil.virtual_memory()
        return {
            "processes": [
                {"kind": one.kind, "pid": one.pid, "resident_bytes": one.resident}
                for one in process_memory()
            ],
            "cpu_percent": psutil.cpu_percent(),
            "cores": os.cpu_count() or 1,
            "memory_bytes": memory.total,
            "memory_available_bytes": memory.available,
            "gpus": [
                {
                    "index": gpu.number,
                    "name": gpu.name,
                    "used_bytes": gpu.used,
                    "size_bytes": gpu.size,
                    "busy": gpu.busy,
                }
                for gpu in gpus(settings)
            ],
            "disks": [
                {"folder": disk.folder, "free_bytes": disk.free, "size_bytes": disk.size}
                for disk in disks(settings)
            ],
            "jobs": dict(jobs),
            "drift": self._drifts(),
        }

    def _drifts(self) -> list[dict[str, Any]]:
        if self._drift is None or time.monotonic() - self._drift[0] > DRIFT_FRESH:
            found = drifts(self._gateway.registry, self._gateway.live.store)
            rows: list[dict[str, Any]] = [
                {
                    "model_id": model_id,
                    "index": round(one.index, 4),
                    "by_chance": round(one.by_chance, 4),
                    "verdict": one.verdict,
                }
                for model_id, one in found.items()
            ]
            rows.sort(key=lambda row: -row["index"])
            self._drift = (time.monotonic(), rows)
        return self._drift[1]


@router.get("/stats", response_model=Stats, responses=errors(503))
async def stats(request: Request, gateway: GatewayDep) -> Any:
    """Rates, latencies and errors of the last 15 minutes, and how the server does now.

    The figures are of all processes of the server, whichever answers. They are renewed every ten
    seconds, those of now at most every two.
    """
    reader: StatsReader = request.app.state.stats
    return await reader.read()
