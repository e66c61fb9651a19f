"""`/metrics/compare`: two models on the same images."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from api.dependencies import GatewayDep, evaluation_stores
from api.groups import QUALITY
from api.middleware.auth import require_use
from api.schemas import MODEL_EXAMPLE, errors
from errors import BackendTimeout, BackendUnavailable, Conflict, NotFound
from evaluation.lookup import common_evaluations
from evaluation.store import REPORT, EvaluationRow
from models_store.subprocesses import ChildTimeout, run_module
from serving.gateway import Gateway
from serving.gateways.one_process import OneAtATime

router = APIRouter(tags=[QUALITY], dependencies=[Depends(require_use)])

TIMEOUT = 170.0  # maximum seconds for a comparison; 5,000 images, 80 classes, one core: 47 s
MAX_WAITING = 4  # maximum number of waiting comparisons

_one_at_a_time = OneAtATime("comparison")  # held by a comparison, which uses one CPU core
_under_way: dict[Path, asyncio.Task[None]] = {}  # running comparisons, by output file


class Beside(BaseModel):
    a: float
    b: float
    delta: float = Field(description="the value of b minus that of a")


class ComparedClass(BaseModel):
    name: str
    images: int | None
    instances: int
    a: dict[str, float]
    b: dict[str, float]
    delta: dict[str, float]


class ChangedImage(BaseModel):
    image: str = Field(description="path relative to the dataset")
    a: int = Field(
        description="errors of model a in this image: missed objects, wrong detections or classes"
    )
    b: int


class ChangedImages(BaseModel):
    total: int
    fixed: int = Field(description="number of images in which b makes fewer errors than a")
    broken: int
    unchanged: int
    fixed_images: list[ChangedImage] = Field(
        description="at most 200 of these images, the largest change first"
    )
    broken_images: list[ChangedImage]


class Interval(BaseModel):
    difference: float = Field(description="the metric of b minus that of a")
    low: float
    high: float
    level: float = Field(examples=[0.95])
    resamples: int = Field(examples=[1000])


class Comparison(BaseModel):
    """Two evaluations on the same images. Differences are b minus a."""

    a: dict[str, Any]
    b: dict[str, Any]
    dataset: dict[str, Any]
    figures: dict[str, Beside]
    classes: list[ComparedClass] = Field(description="the classes of both models, matched by name")
    speed: dict[str, Beside] = Field(description="time per image, in milliseconds")
    notes: list[str]
    images: ChangedImages
    intervals: dict[str, Interval] = Field(
        description=(
            "confidence intervals of the differences, from a paired bootstrap over the images"
        )
    )
    seconds: float = Field(description="time that the resampling took, in seconds")


@router.get("/metrics/compare", response_model=Comparison, responses=errors(404, 409, 503, 504))
async def compare(
    gateway: GatewayDep,
    a: str = Query(max_length=200, description="a model's id or name", examples=[MODEL_EXAMPLE]),
    b: str = Query(
        max_length=200, description="id or name of the other model; differences are b minus a"
    ),
    dataset: str = Query(
        "", max_length=4096, description="name, path, id or fingerprint of the dataset"
    ),
    split: str = Query("", max_length=20),
) -> Any:
    """Metrics, classes, changed images, and confidence intervals of the differences.

    Both must have been evaluated on the same images; the newest such evaluations are used. The
    first request takes some seconds, because it computes the bootstrap.
    """
    models = gateway.registry.get(a), gateway.registry.get(b)
    stores = evaluation_stores(gateway)
    rows = await asyncio.to_thread(common_evaluations, stores, *models, dataset, split)
    return await _compared(gateway, *rows)


async def _compared(gateway: Gateway, a: EvaluationRow, b: EvaluationRow) -> Any:
    """The comparison, from the file of an earlier request or else computed by a child process.

    Raises:
        BackendUnavailable: Too many comparisons are waiting.
    """
    file = gateway.evaluations.folder(b) / f"compared-{a.id}.json"
    if not await asyncio.to_thread(file.is_file):
        work = _under_way.get(file)
        if work is None:
            if len(_under_way) > MAX_WAITING:
                raise BackendUnavailable(
                    f"{MAX_WAITING} comparisons are already waiting. Try again later.", 30
                )
            work = _under_way[file] = asyncio.create_task(_make(gateway, a, b, file))
            work.add_done_callback(lambda _: _under_way.pop(file))
        await asyncio.shield(work)  # continues if the client disconnects
    found = json.loads(await asyncio.to_thread(file.read_bytes))
    found["a"]["evaluation"], found["b"]["evaluation"] = a.id, b.id
    return found


async def _make(gateway: Gateway, a: EvaluationRow, b: EvaluationRow, file: Path) -> None:
    async with _one_at_a_time:
        if not await asyncio.to_thread(file.is_file):  # perhaps another gateway process has made it
            one, other = [await asyncio.to_thread(gateway.evaluations.files, row) for row in (a, b)]
            await asyncio.to_thread(_compare, one, other, file)


def _compare(a: Path, b: Path, file: Path) -> None:
    try:
        child = run_module("evaluation.comparison", [a, b, file], TIMEOUT)
    except ChildTimeout:
        raise BackendTimeout(
            f"The comparison took longer than {TIMEOUT:.0f} seconds. Try again."
        ) from None
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        kind, _, message = reason.partition(": ")
        if not all((folder / REPORT).is_file() for folder in (a, b)):
            raise NotFound(
                "The report of an evaluation no longer exists. Evaluate both models again."
            )
        raise Conflict(message) if kind == "errors.Conflict" else RuntimeError(reason)
