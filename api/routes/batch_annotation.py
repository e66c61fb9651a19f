"""`/api/auto_annotate/batch`: pre-labels of many pictures, as a job that makes a data set."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Any, ClassVar, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.datastructures import UploadFile

from annotation.cleanup import UPLOAD_PREFIX, delete_leftovers
from annotation.confidence_bands import Bands
from annotation.recipe import AnnotationRequest, plan_annotation
from api.dependencies import GatewayDep
from api.middleware.auth import require_admin
from api.middleware.errors import check
from api.predictions import TILES, ToolOptions, choose_model
from api.requests import MULTIPART, content_type, fields, json_body, read_form
from api.schemas import Unit, errors, form_schema
from api.thread_pool import slow_work
from dataset import zip_archive
from errors import NoFileUploaded
from formats.annotation_tools import TOOLS
from formats.annotations import FORMATS, Format
from jobs.logs import LogWriter
from jobs.store import Job
from serving.gateway import Gateway

router = APIRouter(prefix="/api", tags=["Annotation"])

IN_MEMORY = 1024 * 1024

Asked = TypeVar("Asked", bound="Batch")


class Batch(ToolOptions):
    """What to mark, and what is done with it."""

    unknown = "refuse"
    files: ClassVar[tuple[str, ...]] = ("file",)

    bands: Bands = Field(
        default_factory=Bands,
        description="an object {accept, review} of numbers from 0 to 1, review not above accept",
    )
    confidence: Unit | None = Field(
        None,
        description="a number from 0 to 1, at most bands.review (0.4 of that): what scores less "
        "is not looked at, what lies between is discarded, but counts as doubt",
    )
    format: Format = Field(
        "label_studio", description=f"one of: {', '.join(FORMATS)}; what exports have by default"
    )
    name: str = Field("", max_length=100, description="a name of at most 100 characters")

    @field_validator("bands", mode="before")
    @classmethod
    def _of_a_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return json.loads(value)
            except ValueError:
                raise ValueError("no JSON object") from None
        return value


class BatchOnServer(Batch):
    files = ()

    dataset: str = Field(
        min_length=1,
        max_length=4096,
        description="a data set's id, or a folder of pictures on this server",
    )


class BatchForm(Batch):
    file: str = Field(description="a zip of pictures", json_schema_extra={"format": "binary"})


class BatchStarted(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    status: str = Field(examples=["queued"])
    message: str
    job_id: str
    dataset_id: str = Field(description="of the data set that is there when the job is completed")
    model_id: str


@router.post(
    "/auto_annotate/batch",
    status_code=202,
    response_model=BatchStarted,
    responses=errors(400, 403, 404, 413, 503),
    dependencies=[Depends(require_admin)],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": form_schema(BatchOnServer)},
                MULTIPART: {"schema": form_schema(BatchForm)},
            },
        }
    },
)
async def auto_annotate_batch(
    request: Request,
    gateway: GatewayDep,
    kind: Format | None = Query(
        None, alias="format", description="the same as in the body, which goes before it"
    ),
) -> Any:
    """Pre-label a data set, a folder of the server, or an uploaded zip of pictures, as a job.

    It makes a data set: what is sure is in its labels, what is less sure waits in the queue.
    """
    if content_type(request) != MULTIPART:
        asked = _formed(await json_body(request, BatchOnServer), kind)
        start = partial(_start, gateway, asked, asked.dataset, None, "")
        return await _queued(gateway, await slow_work.run(start))
    form = await read_form(request, IN_MEMORY)
    try:
        options = _formed(check(Batch, fields(form, "file")), kind)
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise NoFileUploaded("Send a zip of pictures as the form's file 'file'.")
        name = PurePath(file.filename or "").stem
        start = partial(_start, gateway, options, "", file.file, name)
        return await _queued(gateway, await slow_work.run(start))
    finally:
        await form.close()


def _formed(asked: Asked, form: Format | None) -> Asked:
    """With the query's format where the body has none.

    It is there as for corrections; and openapi-python-client 0.29 writes a module that cannot be
    imported for a call with two kinds of body and no optional parameter.
    """
    if form is None or "format" in asked.model_fields_set:
        return asked
    return asked.model_copy(update={"format": form})


async def _queued(gateway: Gateway, job: Job) -> dict[str, Any]:
    if gateway.trainer is not None:
        gateway.trainer.submit(job.id, job.kind)
    return {
        "status": "queued",
        "message": f"The annotation by {job.base_model} is queued.",
        "job_id": job.id,
        "dataset_id": job.recipe["dataset_id"],
        "model_id": job.base_model,
    }


def _start(
    gateway: Gateway, asked: Batch, reference: str, file: IO[bytes] | None, name: str
) -> Job:
    """Unpack, check, put into the queue. What is refused leaves nothing."""
    model = choose_model(gateway.registry, TOOLS[asked.tool], asked.model)
    delete_leftovers(gateway.annotated, gateway.jobs, gateway.settings)
    source = gateway.datasets.resolve(reference) if file is None else _unpacked(gateway, file)
    try:
        tiles = TILES[asked.tiles] if asked.tiles in TILES else int(asked.tiles)
        wanted = AnnotationRequest(
            source=source,
            temporary=file is not None,
            tool=asked.tool,
            name=asked.name or name,
            confidence=asked.confidence,
            iou=asked.iou,
            tiles=tiles,
            bands=asked.bands,
            format=asked.format,
        )
        number = secrets.token_hex(8)
        recipe = plan_annotation(wanted, model, gateway.annotated, gateway.settings, number)
        resolved = recipe.model_dump(mode="json", exclude={"dataset"} if file else set())
        job = gateway.jobs.create(
            "annotation",
            config=asked.model_dump(mode="json") | {"resolved": resolved},
            recipe=recipe.model_dump(mode="json"),
            mode=asked.tool,
            task=recipe.task,
            base_model=model.id,
            model_name=model.name,
        )
    except BaseException:
        if file is not None:
            shutil.rmtree(source, ignore_errors=True)
        raise
    LogWriter(gateway.jobs.log(job.id)).say(f"Queued: {asked.tool} by {model.id}.")
    return job


def _unpacked(gateway: Gateway, file: IO[bytes]) -> Path:
    uploads = gateway.settings.paths.uploads
    uploads.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=UPLOAD_PREFIX, dir=uploads))
    try:
        zip_archive.unpack(file, folder, gateway.settings.max_upload_bytes)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder
