"""`/api/auto_annotate/batch`: pre-labels of many images, by a job that creates a dataset."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Any, ClassVar, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.datastructures import UploadFile

from annotation.batch import enqueue_annotation, uploaded_images
from annotation.cleanup import delete_leftovers
from annotation.confidence_bands import Bands
from annotation.model_choice import choose_model
from annotation.recipe import AnnotationRequest
from api.dependencies import GatewayDep
from api.groups import ANNOTATE
from api.job_control import notify_trainer
from api.middleware.auth import require_annotate, require_use
from api.middleware.errors import check
from api.middleware.request_state import changed
from api.predictions import ToolOptions, tiles_of
from api.requests import MULTIPART, UPLOAD_IN_MEMORY, content_type, fields, json_body, read_form
from api.schemas import Unit, errors, form_schema
from api.thread_pool import slow_work
from errors import NoFileUploaded, ValidationFailed
from formats.annotation_tools import TOOLS
from formats.annotations import FORMATS, Format
from jobs.job import Job
from jobs.states import MEANINGS, Status
from nesting import check_json_depth
from serving.gateway import Gateway

router = APIRouter(prefix="/api", tags=[ANNOTATE], dependencies=[Depends(require_use)])


Asked = TypeVar("Asked", bound="Batch")


class Batch(ToolOptions):
    """Options of a batch annotation."""

    unknown = "refuse"
    files: ClassVar[tuple[str, ...]] = ("file",)

    bands: Bands = Field(
        default_factory=Bands,
        description="an object {accept, review} of numbers from 0 to 1, review not above accept",
    )
    confidence: Unit | None = Field(
        None,
        description=(
            "a number from 0 to bands.review (default: 0.4 times bands.review): objects with a "
            "lower score are ignored; objects between the two are discarded, but raise the "
            "image's rank in the queue"
        ),
    )
    format: Format = Field(
        "label_studio",
        description=f"one of: {', '.join(FORMATS)}; the default format of the dataset's exports",
    )
    name: str = Field("", max_length=100, description="a name of at most 100 characters")

    @field_validator("bands", mode="before")
    @classmethod
    def _from_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                check_json_depth(value, "It")
                return json.loads(value)
            except (ValidationFailed, ValueError):
                raise ValueError("not a JSON object") from None
        return value


class BatchOnServer(Batch):
    files = ()

    dataset: str = Field(
        min_length=1,
        max_length=4096,
        description="a dataset's id, or a folder of images on this server",
    )


class BatchForm(Batch):
    file: str = Field(description="a zip of images", json_schema_extra={"format": "binary"})


class BatchStarted(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    status: Status = Field(examples=["queued"], description=MEANINGS)
    message: str
    job_id: str
    dataset_id: str = Field(description="id of the dataset that exists once the job is completed")
    model_id: str


@router.post(
    "/auto_annotate/batch",
    status_code=202,
    response_model=BatchStarted,
    responses=errors(400, 403, 404, 413, 503),
    dependencies=[Depends(require_annotate)],
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
        None, alias="format", description="as the body's field `format`, which overrides this one"
    ),
) -> Any:
    """Pre-label a dataset, a folder on the server, or an uploaded zip of images, as a job.

    It makes a dataset: confident objects become labels, less confident ones wait for review in
    the annotation queue.
    """
    if content_type(request) != MULTIPART:
        asked = _with_format(await json_body(request, BatchOnServer), kind)
        job = await slow_work.run(partial(_enqueue, gateway, asked, asked.dataset))
        return _started(gateway, job)
    form = await read_form(request, UPLOAD_IN_MEMORY)
    try:
        options = _with_format(check(Batch, fields(form, "file")), kind)
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise NoFileUploaded("Send a zip of images as a file in the form field 'file'.")
        name = PurePath(file.filename or "").stem
        job = await slow_work.run(partial(_enqueue, gateway, options, file.file, name))
        return _started(gateway, job)
    finally:
        await form.close()


def _with_format(asked: Asked, form: Format | None) -> Asked:
    """The options, with the format of the query if the body has none.

    The format is a query parameter for two reasons: it is one for corrections as well, and
    openapi-python-client 0.29 generates a module that cannot be imported for an operation with two
    kinds of body and no optional parameter.
    """
    if form is None or "format" in asked.model_fields_set:
        return asked
    return asked.model_copy(update={"format": form})


def _started(gateway: Gateway, job: Job) -> dict[str, Any]:
    """Notify the Trainer of a queued job. Returns the response."""
    changed(f"started an annotation into the dataset {job.recipe['dataset_id']}", job.id)
    notify_trainer(gateway, job)
    return {
        "status": "queued",
        "message": f"The annotation by {job.base_model} is queued.",
        "job_id": job.id,
        "dataset_id": job.recipe["dataset_id"],
        "model_id": job.base_model,
    }


def _enqueue(gateway: Gateway, asked: Batch, images: str | IO[bytes], file_name: str = "") -> Job:
    """Queue a batch annotation of a dataset or folder (`images` is its name) or an uploaded zip.

    If the request is refused, no files are left.
    """
    model = choose_model(gateway.registry, TOOLS[asked.tool], asked.model)
    delete_leftovers(gateway.annotated, gateway.jobs, gateway.settings)
    source: AbstractContextManager[Path]
    if isinstance(images, str):
        source = nullcontext(gateway.datasets.resolve(images))
    else:
        source = uploaded_images(images, gateway.settings)
    with source as folder:
        wanted = AnnotationRequest(
            source=folder,
            temporary=not isinstance(images, str),
            tool=asked.tool,
            name=asked.name or file_name,
            confidence=asked.confidence,
            iou=asked.iou,
            tiles=tiles_of(asked.tiles),
            bands=asked.bands,
            format=asked.format,
        )
        sent = asked.model_dump(mode="json")
        return enqueue_annotation(
            wanted, model, sent, gateway.annotated, gateway.jobs, gateway.settings
        )
