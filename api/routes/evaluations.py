"""`/metrics/{id}/…`: evaluations as jobs, and their reports."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse, HTMLResponse, JSONResponse

from api.dependencies import GatewayDep
from api.evaluation_jobs import Evaluate, is_of, submit
from api.middleware.auth import require_admin
from api.middleware.errors import check
from api.requests import json_body, json_schema
from api.schemas import errors
from errors import NotFound
from evaluation.html_report import page
from evaluation.store import PLOTS, WORST, EvaluationRow
from serving.gateway import Gateway

router = APIRouter(prefix="/metrics", tags=["Metrics"])

# Nothing but what is in the page, should a browser be asked for more.
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
    fingerprint: str = Field(description="of the data set's content")
    metrics: dict[str, Any]
    created_at: str
    job_id: str | None


class History(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    evaluations: list[ListedEvaluation] = Field(description="the newest first")


@router.post(
    "/{model_id}/evaluate",
    status_code=202,
    response_model=EvaluationStarted,
    responses=errors(400, 403, 404),
    openapi_extra=json_schema(Evaluate),
    dependencies=[Depends(require_admin)],
)
async def evaluate(request: Request, model_id: str, gateway: GatewayDep) -> Any:
    """Measure a model on a split, as a job; without a body on the val split of its training."""
    empty = not (await request.body()).strip()
    fields = check(Evaluate, {}) if empty else await json_body(request, Evaluate)
    job = await submit(gateway, model_id, fields)
    message = f"The evaluation of {job.base_model} is queued."
    return {"status": "success", "message": message, "job_id": job.id}


@router.get("/{model_id}/history", response_model=History, responses=errors(404))
async def history(model_id: str, gateway: GatewayDep) -> Any:
    """Every evaluation of a model version."""
    model = gateway.registry.get(model_id)
    rows = await asyncio.to_thread(gateway.evaluations.history, model.id)
    return {"model_id": model.id, "evaluations": [_listed(row) for row in rows]}


class Wanted(BaseModel):
    """Which evaluation; without any of these the one whose figures are the model's metrics."""

    evaluation: str = Field("", max_length=32, description="its id, of the history")
    dataset: str = Field("", max_length=4096, description="name, path, id or fingerprint")
    split: str = Field("", max_length=20)


Choice = Annotated[Wanted, Query()]


@router.get("/{model_id}/report", response_model=None, responses=errors(404) | REPORTED)
async def report(model_id: str, gateway: GatewayDep, wanted: Choice) -> Any:
    """Everything that an evaluation found: figures, classes, confusion, curves, worst images."""
    row = await asyncio.to_thread(find, gateway, model_id, wanted)
    found = await asyncio.to_thread(_report, gateway, row)
    return JSONResponse({"evaluation": row.id} | found)


@router.get("/{model_id}/report.html", response_class=HTMLResponse, responses=errors(404))
async def report_page(model_id: str, gateway: GatewayDep, wanted: Choice) -> HTMLResponse:
    """The same as one page with plots and pictures inside, to be looked at, kept or printed."""

    def make() -> str:
        row = find(gateway, model_id, wanted)
        return page(_report(gateway, row), gateway.evaluations.folder(row), row.id)

    text = await asyncio.to_thread(make)
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})


@router.get(
    "/{model_id}/plots/{name}.png", response_class=FileResponse, responses=errors(404) | PNG
)
async def plot(model_id: str, name: str, gateway: GatewayDep, wanted: Choice) -> FileResponse:
    """One plot of an evaluation; a name that is not there is answered with those that are."""
    row = await asyncio.to_thread(find, gateway, model_id, wanted)
    names = (await asyncio.to_thread(_report, gateway, row)).get("plots", [])
    return _file(gateway, row, f"{PLOTS}/{name}.png", [f"{PLOTS}/{known}.png" for known in names])


@router.get(
    "/{model_id}/worst/{number}.jpg", response_class=FileResponse, responses=errors(404) | JPEG
)
async def worst(model_id: str, number: str, gateway: GatewayDep, wanted: Choice) -> FileResponse:
    """One of the worst images, its truth and prediction drawn side by side."""
    row = await asyncio.to_thread(find, gateway, model_id, wanted)
    rows = (await asyncio.to_thread(_report, gateway, row)).get("worst", [])
    return _file(gateway, row, f"{WORST}/{number}.jpg", [entry["file"] for entry in rows])


def find(gateway: Gateway, model_id: str, wanted: Wanted) -> EvaluationRow:
    """The newest evaluation of a model that is meant; that of its metrics where none is named.

    Raises:
        ModelNotFound, NotFound: There is no such model, or no such evaluation of it.
    """
    model = gateway.registry.get(model_id)
    rows = gateway.evaluations.history(model.id)
    noted = (model.metrics or {}).get("evaluation")
    if wanted == Wanted() and any(row.id == noted for row in rows):
        wanted = Wanted(evaluation=noted)
    for row in rows:
        meant = wanted.evaluation in ("", row.id) and wanted.split in ("", row.split)
        if meant and is_of(gateway, row, wanted.dataset):
            return row
    if not rows:
        raise NotFound(
            f"{model.id} was never evaluated. Start it: POST /metrics/{model.id}/evaluate."
        )
    raise NotFound(
        f"No such evaluation of {model.id}; it has {len(rows)}: GET /metrics/{model.id}/history."
    )


def _listed(row: EvaluationRow) -> dict[str, Any]:
    fields = ("dataset", "split", "fingerprint", "created_at", "job_id")
    shown = {name: getattr(row, name) for name in fields}
    return {"evaluation": row.id, "metrics": row.figures} | shown


def _report(gateway: Gateway, row: EvaluationRow) -> dict[str, Any]:
    try:
        return gateway.evaluations.report(row)
    except OSError:
        raise NotFound(
            f"The report of this evaluation is gone. Evaluate {row.model_id} again."
        ) from None


def _file(gateway: Gateway, row: EvaluationRow, name: str, known: list[str]) -> FileResponse:
    """One of the files that a report names; no other name can lead anywhere."""
    path = gateway.evaluations.folder(row) / name
    if name not in known or not path.is_file():
        listed = ", ".join(known) or "none"
        raise NotFound(f"No {name[:80]!r} of {row.model_id}. There is: {listed}.")
    return FileResponse(path, headers={"Cache-Control": "no-cache"})
