"""`/models/{id}/export`, `/exports` and `/download`: a model for use in other programs."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse

from api.dependencies import GatewayDep
from api.groups import MODELS
from api.job_control import notify_trainer
from api.middleware.auth import require_train, require_use
from api.requests import json_body
from api.schemas import RequestFields, errors, json_request_body
from engines.making import make_export
from engines.options import FORMATS, MOST_IMAGES, SIZES, ExportRequest, Format, download_path
from engines.store import ExportRecord, ExportStore
from engines.submission import Found, find_export, submit_export
from errors import BackendTimeout, BackendUnavailable
from jobs.control import status_of
from serving.gateway import Gateway
from serving.gateways.one_process import OneAtATime

router = APIRouter(prefix="/models", tags=[MODELS], dependencies=[Depends(require_use)])

MARGIN = 10.0  # seconds by which a download's export must be faster than the request
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

_one_at_a_time = OneAtATime("download")  # held while a file is made, which may take gigabytes
# By model and options, the file that downloads wait for; at most one.
_in_progress: dict[tuple[str, str], asyncio.Task[ExportRecord]] = {}

ABOUT = {
    "format": f"one of: {', '.join(FORMATS)}",
    "precision": "fp32 or fp16; default: fp32, of an engine fp16",
    "imgsz": f"side of the square input, {SIZES[0]} to {SIZES[-1]} pixels; default: the model's",
    "dynamic": "true: the input takes other sizes and any number of images",
    "max_batch": f"images of the input at a time, 1 to {MOST_IMAGES}; of an engine the most that "
    "it takes (default: 1)",
}


class Export(RequestFields):
    """The file to make; docs/how-to/move-a-model.md says which options each format has."""

    unknown = "refuse"

    format: Format = Field(description=ABOUT["format"])
    precision: Literal["fp32", "fp16", "int8"] | None = Field(
        None, description=f"{ABOUT['precision']}; int8 is not offered yet"
    )
    imgsz: int | None = Field(None, description=ABOUT["imgsz"])
    dynamic: bool | None = Field(None, description=ABOUT["dynamic"])
    max_batch: int | None = Field(None, description=ABOUT["max_batch"])


class Parity(BaseModel):
    """The largest differences from the engine that serves, before non-maximum suppression."""

    model_config = ConfigDict(extra="allow")

    reference: str = Field(description="what the file was compared with")
    runtime: str = Field(description="the program that ran the file")
    images: int = Field(description="number of drawn and random images")
    candidates: int | None = Field(None, description="number of boxes that were compared")
    max_box_error_px: float | None = Field(
        None, description="of boxes and keypoints, in pixels of the network's input"
    )
    max_score_error: float = Field(description="of probabilities, 0 to 1")
    max_mask_error: float | None = Field(
        None, description="of prototypes and coefficients, relative to the largest"
    )
    default_precision: str | None = Field(
        None, description="the precision that the program chooses by itself on this server's CPU"
    )
    default_max_box_error_px: float | None = Field(None, description="the same in that precision")
    default_max_score_error: float | None = Field(None, description="the same in that precision")
    default_max_mask_error: float | None = Field(None, description="the same in that precision")
    allowed_box_error_px: float | None = Field(None, description="above it a file is not offered")
    allowed_score_error: float = Field(description="above it a file is not offered")
    allowed_mask_error: float | None = Field(None, description="above it a file is not offered")


class Exported(BaseModel):
    """An exported file."""

    model_config = ConfigDict(protected_namespaces=())

    id: str = Field(examples=["onnx-fp32-640"])
    model_id: str
    format: Format = Field(description=ABOUT["format"])
    precision: str = Field(description="fp32 or fp16")
    imgsz: int = Field(description="side of the square input in pixels")
    dynamic: bool = Field(description="whether the input takes other sizes and numbers of images")
    max_batch: int = Field(description="images of the input at a time")
    file: str = Field(description="the file's name in a download")
    size_bytes: int
    sha256: str = Field(description="SHA-256 of the file, hexadecimal; also its ETag")
    created_at: str
    parity: Parity | None = Field(description="null: an archive is the model itself")
    notes: list[str] = Field(description="what a user of the file has to know")
    versions: dict[str, str] = Field(description="versions of the programs that wrote it")
    gpu: str | None = Field(description="the GPU that an engine was built on and runs on")


class ExportAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    status: Literal["queued", "running", "completed"] = Field(
        description="completed: the export exists; else that of its job"
    )
    message: str
    model_id: str
    job_id: str | None = Field(description="the job that makes it; null: it exists")
    exported: Exported | None = Field(description="the export; null while its job is not done")


class ExportList(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    exports: list[Exported] = Field(description="the exports, the newest first")


@router.post(
    "/{model_id}/export",
    status_code=202,
    response_model=ExportAnswer,
    responses=errors(400, 403, 404, 409) | {200: {"model": ExportAnswer}},
    openapi_extra=json_request_body(Export),
    dependencies=[Depends(require_train)],
)
async def export_model(
    request: Request, response: Response, model_id: str, gateway: GatewayDep
) -> Any:
    """Start a job that makes a file for other programs, and compares it with what serves.

    If the same export of this version exists, it is the answer, with status 200. If a job is
    making it, that job is.
    """
    asked = await json_body(request, Export)
    wanted = ExportRequest(**asked.model_dump())
    submit = partial(submit_export, gateway.registry, gateway.jobs)
    found = await asyncio.to_thread(submit, model_id, wanted, asked.model_dump())
    model = found.model_id if isinstance(found, ExportRecord) else found.base_model
    path = download_path(str(model), wanted)
    if isinstance(found, ExportRecord):
        response.status_code = 200
        return {
            "status": "completed",
            "message": f"{found.id} of {found.model_id} exists. Download it: GET {path}",
            "model_id": found.model_id,
            "job_id": None,
            "exported": found.to_json(),
        }
    notify_trainer(gateway, found)
    status = "running" if status_of(found) == "running" else "queued"
    return {
        "status": status,
        "message": f"The export of {found.base_model} is {status}. When it is completed, download "
        f"it: GET {path}",
        "model_id": found.base_model,
        "job_id": found.id,
        "exported": None,
    }


@router.get("/{model_id}/exports", response_model=ExportList, responses=errors(404))
async def list_exports(model_id: str, gateway: GatewayDep) -> Any:
    """The exported files of a version: sizes, options, differences from what serves."""
    model = gateway.registry.get(model_id)
    found = await asyncio.to_thread(ExportStore(gateway.settings).list, model)
    return {"model_id": model.id, "exports": [record.to_json() for record in found]}


@router.delete(
    "/{model_id}/exports/{export_id}",
    status_code=204,
    responses=errors(403, 404),
    dependencies=[Depends(require_train)],
)
async def delete_export(model_id: str, export_id: str, gateway: GatewayDep) -> Response:
    """Delete an exported file; the model stays."""
    model = gateway.registry.get(model_id)
    await asyncio.to_thread(ExportStore(gateway.settings).delete, model, export_id)
    return Response(status_code=204)


class Wanted(BaseModel):
    """Selects an export, as the fields of its start."""

    format: Format = Field(description=ABOUT["format"])
    precision: Literal["fp32", "fp16", "int8"] | None = Field(None, description=ABOUT["precision"])
    imgsz: int | None = Field(None, description=ABOUT["imgsz"])
    dynamic: bool | None = Field(None, description=ABOUT["dynamic"])
    max_batch: int | None = Field(None, description=ABOUT["max_batch"])


@router.get(
    "/{model_id}/download",
    response_class=FileResponse,
    responses=errors(400, 403, 404, 409, 503, 504)
    | {
        200: {"content": {"application/octet-stream": {}}},
        206: {"description": "A part", "content": {"application/octet-stream": {}}},
    },
    dependencies=[Depends(require_train)],
)
async def download_model(
    request: Request,
    model_id: str,
    gateway: GatewayDep,
    wanted: Annotated[Wanted, Query()],
) -> Response:
    """Download an exported file. onnx, pt and archive need no job before.

    The ETag is the file's SHA-256. Parts can be requested with `Range`.
    """
    asked = ExportRequest(**wanted.model_dump())
    find = partial(find_export, gateway.registry, gateway.jobs, model_id, asked)
    found = await asyncio.to_thread(find)
    record = found.record or await _made(gateway, found, asked)
    path = await asyncio.to_thread(ExportStore(gateway.settings).path, found.model, record)
    headers = {"ETag": f'"{record.sha256}"', "Cache-Control": "private, no-cache"}
    known = request.headers.get("if-none-match", "")
    if headers["ETag"] in known or known.strip() == "*":
        return Response(status_code=304, headers=headers)
    _drop_unusable_range(request, record.size_bytes)
    kind = "application/octet-stream"
    return FileResponse(path, headers=headers, media_type=kind, filename=record.file)


async def _made(gateway: Gateway, found: Found, asked: ExportRequest) -> ExportRecord:
    """Make an export while its downloads wait; the work goes on if the clients leave.

    Raises:
        BackendUnavailable: Another export is being made for a download.
        BackendTimeout: It takes too long for a request.
    """
    key = (found.model.id, found.options.key)
    if (task := _in_progress.get(key)) is None:
        if not await _one_at_a_time.try_acquire():
            raise BackendUnavailable(
                "Another model is being exported for a download. Try again.", 10
            )
        task = asyncio.create_task(_make_in_time(gateway, found, asked))
        _in_progress[key] = task
        task.add_done_callback(partial(_end, key))
    return await asyncio.shield(task)


def _end(key: tuple[str, str], _: asyncio.Task[ExportRecord]) -> None:
    del _in_progress[key]
    _one_at_a_time.release()


async def _make_in_time(gateway: Gateway, found: Found, asked: ExportRequest) -> ExportRecord:
    timeout = gateway.settings.import_timeout - MARGIN
    make = partial(make_export, found.model, asked, found.options, gateway.settings, timeout)
    try:
        return await asyncio.to_thread(make)
    except BackendTimeout as error:
        raise BackendTimeout(
            f"{error.message} As a job it has more time: POST /models/{found.model.id}/export."
        ) from None


def _drop_unusable_range(request: Request, size: int) -> None:
    """Have the whole file sent for a `Range` that is not one part of it.

    Starlette would answer it with plain text; HTTP lets a server pass a range over.
    """
    asked = request.headers.get("range")
    if asked is None:
        return
    match = RANGE.fullmatch(asked.replace(" ", ""))
    first, last = match.groups() if match else ("", "")
    usable = bool(first or last) and (
        (not first and int(last) > 0)
        or (bool(first) and int(first) < size and (not last or int(last) >= int(first)))
    )
    if not usable:
        headers = request.scope["headers"]
        request.scope["headers"] = [pair for pair in headers if pair[0] != b"range"]
