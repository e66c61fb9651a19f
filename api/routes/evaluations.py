"""`/metrics/{id}/…`: evaluations of a model, and their reports."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse, HTMLResponse

from api.dependencies import GatewayDep, evaluation_stores
from api.evaluation_jobs import Evaluate, start_evaluation
from api.groups import QUALITY
from api.middleware.auth import require_train, require_use
from api.middleware.errors import check
from api.requests import json_body
from api.responses import JSON
from api.schemas import errors, json_request_body
from errors import NotFound
from evaluation.html_report import page
from evaluation.lookup import EvaluationQuery, find_evaluation, read_report
from evaluation.store import PLOTS, WORST, EvaluationRow
from inference.cpu.engine_choice import read_choice
from serving.gateway import Gateway
from short_ids import RULE

router = APIRouter(prefix="/metrics", tags=[QUALITY], dependencies=[Depends(require_use)])

# The page contains everything: a browser must not load anything else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}
REPORTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"schema": {"type": "object"}}}}
}
JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}}


class EvaluationStarted(BaseModel):
    status: str = Field(examples=["success"])
    message: str
    job_id: str


class ListedEvaluation(BaseModel):
    evaluation: str
    dataset: str
    split: str
    fingerprint: str = Field(description="fingerprint of the dataset's content")
    letterbox: str | None = Field(
        description="how images were padded: rect, square or val_rect; null for a classifier"
    )
    metrics: dict[str, Any]
    created_at: str
    job_id: str | None


class History(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    evaluations: list[ListedEvaluation] = Field(description="the evaluations, the newest first")


@router.post(
    "/{model_id}/evaluate",
    status_code=202,
    response_model=EvaluationStarted,
    responses=errors(400, 403, 404),
    openapi_extra=json_request_body(Evaluate, required=False),
    dependencies=[Depends(require_train)],
)
async def evaluate(request: Request, model_id: str, gateway: GatewayDep) -> Any:
    """Queue an evaluation on a split; without a body on the val split of its training data."""
    empty = not (await request.body()).strip()
    fields = check(Evaluate, {}) if empty else await json_body(request, Evaluate)
    job = await start_evaluation(gateway, model_id, fields)
    message = f"The evaluation of {job.base_model} is queued."
    return {"status": "success", "message": message, "job_id": job.id}


@router.get("/{model_id}/history", response_model=History, responses=errors(404))
async def history(model_id: str, gateway: GatewayDep) -> Any:
    """Every evaluation of a model version."""
    model = gateway.registry.get(model_id)
    rows = await asyncio.to_thread(gateway.evaluations.history, model.id)
    return {"model_id": model.id, "evaluations": [_listed(row) for row in rows]}


class Wanted(BaseModel):
    """Selects an evaluation; without any field the one that the model's metrics come from."""

    evaluation: str = Field(
        "", max_length=32, description=f"an evaluation's id, from the history, {RULE}"
    )
    dataset: str = Field(
        "", max_length=4096, description="name, path, id or fingerprint of the dataset"
    )
    split: str = Field("", max_length=20)
    letterbox: str = Field("", max_length=20, description="rect, square or val_rect")


Choice = Annotated[Wanted, Query()]


@router.get("/{model_id}/report", response_model=None, responses=errors(404) | REPORTED)
async def report(model_id: str, gateway: GatewayDep, wanted: Choice) -> Any:
    """An evaluation's report: metrics, classes, confusion matrix, curves, worst images.

    `engine` is the one that it was measured with. `engines` is the choice of the engine that serves
    the model on this machine, with int8's metrics, as `GET /models/{model_id}` has it.
    """

    def read() -> dict[str, Any]:
        row, found = _read(gateway, model_id, wanted)
        choice = read_choice(gateway.registry.get(row.model_id).path, gateway.settings)
        return {"evaluation": row.id} | found | {"engines": choice and choice.to_json()}

    return JSON(await asyncio.to_thread(read))


@router.get("/{model_id}/report.html", response_class=HTMLResponse, responses=errors(404))
async def report_page(model_id: str, gateway: GatewayDep, wanted: Choice) -> HTMLResponse:
    """The report as one self-contained HTML page with its plots and images."""

    def make() -> str:
        row, found = _read(gateway, model_id, wanted)
        return page(found, gateway.evaluations.files(row), row.id)

    text = await asyncio.to_thread(make)
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})


@router.get(
    "/{model_id}/plots/{name}.png", response_class=FileResponse, responses=errors(404) | PNG
)
async def plot(model_id: str, name: str, gateway: GatewayDep, wanted: Choice) -> FileResponse:
    """One plot of an evaluation; for an unknown name the error lists the known ones."""
    row, found = await asyncio.to_thread(_read, gateway, model_id, wanted)
    known = [f"{PLOTS}/{plot}.png" for plot in found.get("plots", [])]
    return _file(gateway, row, f"{PLOTS}/{name}.png", known)


@router.get(
    "/{model_id}/worst/{number}.jpg", response_class=FileResponse, responses=errors(404) | JPEG
)
async def worst(model_id: str, number: str, gateway: GatewayDep, wanted: Choice) -> FileResponse:
    """One of the worst images, with ground truth and prediction side by side."""
    row, found = await asyncio.to_thread(_read, gateway, model_id, wanted)
    known = [entry["file"] for entry in found.get("worst", [])]
    return _file(gateway, row, f"{WORST}/{number}.jpg", known)


def _read(gateway: Gateway, model_id: str, wanted: Wanted) -> tuple[EvaluationRow, dict[str, Any]]:
    """The evaluation that a request selects, and its report."""
    stores = evaluation_stores(gateway)
    row = find_evaluation(stores, model_id, EvaluationQuery(**wanted.model_dump()))
    return row, read_report(stores, row)


def _listed(row: EvaluationRow) -> dict[str, Any]:
    fields = ("dataset", "split", "fingerprint", "letterbox", "created_at", "job_id")
    shown = {name: getattr(row, name) for name in fields}
    return {"evaluation": row.id, "metrics": row.figures} | shown


def _file(gateway: Gateway, row: EvaluationRow, name: str, known: list[str]) -> FileResponse:
    """The response with a file that the report lists; no other file can be read."""
    path = gateway.evaluations.folder(row) / name
    if name not in known or not path.is_file():
        listed = ", ".join(known) or "none"
        raise NotFound(f"The evaluation of {row.model_id} has no {name[:80]!r}. Known: {listed}.")
    return FileResponse(path, headers={"Cache-Control": "no-cache"})
