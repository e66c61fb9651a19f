"""`/metrics/compare`: two models on the same images."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.dependencies import GatewayDep
from api.evaluation_jobs import is_of
from api.schemas import MODEL_EXAMPLE, errors
from errors import BackendTimeout, BackendUnavailable, Conflict, NotFound, VisionLoopError
from evaluation.recipe import DRAWN
from evaluation.store import REPORT, EvaluationRow
from models_store.subprocesses import ChildTimeout, run_module
from models_store.versions import ModelVersion
from serving.gateway import Gateway

router = APIRouter(tags=["Metrics"])

COMPARING = 170.0  # seconds; 5,000 images of 80 classes need 47 of a core

WAITING = 4  # comparisons that wait for their turn

_one = asyncio.Lock()  # one at a time: it needs a core
_under_way: dict[Path, asyncio.Task[None]] = {}  # by the file that is made


class Beside(BaseModel):
    a: float
    b: float
    delta: float = Field(description="b less a")


class ComparedClass(BaseModel):
    name: str
    images: int | None
    instances: int
    a: dict[str, float]
    b: dict[str, float]
    delta: dict[str, float]


class ChangedImage(BaseModel):
    image: str = Field(description="relative to the data set")
    a: int = Field(description="mistakes of a: objects missed, detections or classes wrong")
    b: int


class ChangedImages(BaseModel):
    total: int
    fixed: int = Field(description="images in which b makes fewer mistakes")
    broken: int
    unchanged: int
    fixed_images: list[ChangedImage] = Field(description="at most 200, the greatest change first")
    broken_images: list[ChangedImage]


class Interval(BaseModel):
    difference: float = Field(description="b less a")
    low: float
    high: float
    level: float = Field(examples=[0.95])
    resamples: int = Field(examples=[1000])


class Comparison(BaseModel):
    """Two evaluations on the same images. Differences are b less a."""

    a: dict[str, Any]
    b: dict[str, Any]
    dataset: dict[str, Any]
    figures: dict[str, Beside]
    classes: list[ComparedClass] = Field(description="joined by name")
    speed: dict[str, Beside] = Field(description="milliseconds an image")
    notes: list[str]
    images: ChangedImages
    intervals: dict[str, Interval] = Field(description="paired bootstrap over the images")
    seconds: float = Field(description="that the resampling took")


@router.get("/metrics/compare", response_model=Comparison, responses=errors(404, 409, 503, 504))
async def compare(
    gateway: GatewayDep,
    a: str = Query(max_length=200, description="a model's id or name", examples=[MODEL_EXAMPLE]),
    b: str = Query(max_length=200, description="another's; differences are b less a"),
    dataset: str = Query("", max_length=4096, description="name, path, id or fingerprint"),
    split: str = Query("", max_length=20),
) -> Any:
    """Figures, classes, changed images, and how sure the differences are.

    Both must have been evaluated on the same images; the newest such evaluations are taken. The
    first time it takes seconds, for the resampling.
    """
    models = gateway.registry.get(a), gateway.registry.get(b)
    rows = await asyncio.to_thread(_common, gateway, *models, dataset, split)
    return await _compared(gateway, *rows)


def _common(
    gateway: Gateway, a: ModelVersion, b: ModelVersion, dataset: str, split: str
) -> tuple[EvaluationRow, EvaluationRow]:
    """The newest evaluations of both on the same images.

    Raises:
        Conflict: There are none; the message names the call that makes them.
    """
    first = gateway.evaluations.history(a.id)
    second = gateway.evaluations.history(b.id)
    for row in second:
        if is_of(gateway, row, dataset) and split in ("", row.split):
            for other in first:
                if (other.fingerprint, other.split) == (row.fingerprint, row.split):
                    return other, row
    wanted = f" on {dataset!r}" if dataset else ""
    raise Conflict(
        f"{a.id} and {b.id} were not evaluated on the same images{wanted}. "
        f"{_missing(gateway, a, first, b, second)}"
    )


def _sendable(gateway: Gateway, row: EvaluationRow) -> str:
    """What names the data set in a call: a name of ours, the id of an upload, else its path."""
    if row.dataset == DRAWN:
        return DRAWN
    with contextlib.suppress(VisionLoopError):
        if str(gateway.datasets.resolve(row.dataset)) == row.dataset_path:
            return row.dataset
    return row.dataset_path


def _missing(
    gateway: Gateway,
    a: ModelVersion,
    first: list[EvaluationRow],
    b: ModelVersion,
    second: list[EvaluationRow],
) -> str:
    """Which evaluation to start."""
    for done, lacking in ((first, b), (second, a)):
        if done:
            row = done[0]
            body = {"dataset_path": _sendable(gateway, row), "split": row.split}
            return (
                f"{row.model_id} was on {row.dataset!r}: POST /metrics/{lacking.id}/evaluate "
                f"{json.dumps(body, ensure_ascii=False)}."
            )
    return (
        f"Start both with the same dataset_path: POST /metrics/{a.id}/evaluate and "
        f"POST /metrics/{b.id}/evaluate."
    )


async def _compared(gateway: Gateway, a: EvaluationRow, b: EvaluationRow) -> Any:
    """From the file that an earlier request left, else from a child process.

    Raises:
        BackendUnavailable: Too many wait for theirs.
    """
    one, other = (gateway.evaluations.folder(row) for row in (a, b))
    file = other / f"compared-{a.id}.json"
    if not await asyncio.to_thread(file.is_file):
        work = _under_way.get(file)
        if work is None:
            if len(_under_way) > WAITING:
                raise BackendUnavailable(f"{WAITING} comparisons wait already. Try again.", 30)
            work = _under_way[file] = asyncio.create_task(_make(one, other, file))
            work.add_done_callback(lambda _: _under_way.pop(file))
        await asyncio.shield(work)  # goes on without its client: whoever asks again finds it done
    found = json.loads(await asyncio.to_thread(file.read_bytes))
    found["a"]["evaluation"], found["b"]["evaluation"] = a.id, b.id
    return found


async def _make(a: Path, b: Path, file: Path) -> None:
    async with _one:
        await asyncio.to_thread(_compare, a, b, file)


def _compare(a: Path, b: Path, file: Path) -> None:
    try:
        child = run_module("evaluation.comparison", [a, b, file], COMPARING)
    except ChildTimeout:
        raise BackendTimeout(f"The comparison took longer than {COMPARING:.0f} s.") from None
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        kind, _, message = reason.partition(": ")
        if not all((folder / REPORT).is_file() for folder in (a, b)):
            raise NotFound("The report of an evaluation is gone. Evaluate both models again.")
        raise Conflict(message) if kind == "errors.Conflict" else RuntimeError(reason)
