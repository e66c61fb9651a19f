"""`/api/datasets`: datasets for training, uploaded as a zip or on the server's disk."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from annotation import cleanup
from annotation.uploads.import_job import submit_import
from annotation.uploads.reception import receive
from annotation.uploads.upload import UploadOptions
from api.console.uploads import FILES, TASKS, UploadFields, read_upload, uploaded
from api.dependencies import GatewayDep
from api.groups import DATASETS
from api.job_control import notify_trainer
from api.middleware.auth import (
    require_admin,
    require_annotate,
    require_annotate_to_read,
    require_use,
)
from api.middleware.errors import check
from api.middleware.request_state import changed
from api.requests import fields, json_body
from api.schemas import RequestFields, errors, form_body, json_request_body
from api.thread_pool import slow_reads, slow_work
from dataset import contact_sheet
from dataset.report import report
from jobs.job import Job
from jobs.states import MEANINGS, Status
from models_store.description import Task
from serving.gateway import Gateway
from serving.gateways.one_process import OneAtATime

router = APIRouter(prefix="/api/datasets", tags=[DATASETS], dependencies=[Depends(require_use)])

_one_at_a_time = OneAtATime("upload")  # held while an upload is unpacked and checked


UploadKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        description="makes it safe to send an upload again, to whichever server: the same key, "
        "files, name, task and classes are the same dataset",
    ),
]


class UploadForm(UploadFields):
    file: str = Field(description=FILES, json_schema_extra={"format": "binary"})


class Choice(RequestFields):
    """A dataset that is on the server."""

    name: str = Field("", max_length=100, description="a name of at most 100 characters")
    task: Task | None = Field(None, description=TASKS)
    data_path: str = Field(
        min_length=1,
        max_length=4096,
        description="a data.yaml, a folder with one folder per class, or a dataset's id",
    )


class Problem(BaseModel):
    kind: str
    message: str = Field(description="a sentence that names files and lines")
    count: int
    examples: list[str]
    fatal: bool = Field(description="training refuses the dataset until this is fixed")


class Split(BaseModel):
    images: int
    usable: int = Field(description="number of images that can be read")
    objects: int
    unlabelled: int = Field(description="images without an object, used as background")


class RefusedLines(BaseModel):
    image: str
    lines: list[int] = Field(description="line of the label file, from 1; 0: the whole file")


class Report(BaseModel):
    """The contents of a dataset and its problems."""

    task: Task
    usable: bool = Field(description="whether a model for `task` can be trained on it")
    classes: list[str]
    splits: dict[str, Split]
    class_counts: list[dict[str, Any]] = Field(description="objects per class and split")
    image_size: dict[str, int] | None
    unlabelled_share: float
    keypoints: list[int] | None
    fingerprint: str
    problems: list[Problem]
    refused_images: int = Field(0, description="images with label lines that are ignored")
    refused_lines: list[RefusedLines] = Field(
        [],
        description=(
            "the ignored lines of the first 1,000 of these images; the contact sheet marks such "
            "images too"
        ),
    )


class Dataset(Report):
    """An uploaded dataset. Trainings and evaluations accept its id as the dataset."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(examples=["street-signs-k3xq7w2a"])
    name: str
    created_at: str
    size_bytes: int
    files: int
    skipped_files: int = Field(
        description="files of the zip that are neither images nor annotations"
    )
    upload_sha256: str = Field(
        "", description="SHA-256 of the uploaded zip; empty if it was made in another way"
    )
    revision: int = Field(0, description="number of the newest revision; 0: as uploaded")
    source_format: str = Field(
        "",
        description=(
            "yolo, folders (one per class), images (without annotations), or the documents' "
            "formats joined by +: coco, cvat_xml, label_studio, labelme, voc, yolo"
        ),
    )
    accounting: dict[str, Any] = Field(
        {},
        description=(
            "how everything that was received was handled. images: received = labelled + empty "
            "+ without_annotation + unreadable + copies; missing: described, but not in the "
            "zip. objects: received = stored + passed_over, which has a count per reason"
        ),
    )
    renamed: dict[str, str] = Field(
        {},
        description=(
            "path in the zip → path in the dataset, for images whose name was already used"
        ),
    )
    notes: list[str] = Field(
        [], description="sentences about assumptions, such as the order of classes"
    )
    to_review: int = Field(
        0, description="images left out of training until a person has reviewed them"
    )
    annotation: dict[str, Any] | None = Field(
        None,
        description=(
            "the result of a batch annotation: numbers of objects per class and confidence band "
            "(accept, review, discard), and problems"
        ),
    )


class DatasetList(BaseModel):
    datasets: list[Dataset]


class ImportStarted(BaseModel):
    """The answer to an upload with `background`."""

    status: Status = Field(examples=["queued"], description=MEANINGS)
    message: str = Field(description="a sentence for people")
    job_id: str = Field(description="the job's id, for GET /jobs/{job_id}")
    dataset_id: str = Field(description="id of the dataset that exists once the job is completed")


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    responses=errors(400, 403, 413)
    | {202: {"model": ImportStarted, "description": "`background` was true: a job does it"}},
    dependencies=[Depends(require_annotate)],
    openapi_extra=form_body(UploadForm),
)
async def upload(request: Request, gateway: GatewayDep, key: UploadKey = "") -> Any:
    """Upload a zip, or several images, that becomes a dataset.

    The zip has a data.yaml with images and labels; an export of an annotation tool (COCO, LabelMe,
    Pascal VOC, CVAT, Label Studio, YOLO) with its images; one folder of images per class; or
    images alone, to annotate. Several files count as if they were in one zip. The response accounts
    for every image and object. A dataset with fatal problems is stored too, so that its problems
    can be read.
    """
    form = await read_upload(request)
    try:
        sent = check(UploadFields, fields(form, "file"))
        content, named = uploaded(form)
        options = UploadOptions(sent.name or named, sent.task, sent.classes, key)
        if sent.background:
            stores = gateway.datasets, gateway.annotated, gateway.jobs
            job = await slow_work.run(partial(submit_import, content, options, *stores))
            return _import_started(gateway, job)
        async with _one_at_a_time:
            add = partial(receive, gateway.datasets, gateway.annotated, content, options)
            card = await slow_work.run(add)
            changed(f"uploaded the dataset {card['name']}", card["id"])
            return card
    finally:
        await form.close()


@router.get("", response_model=DatasetList)
async def list_datasets(gateway: GatewayDep) -> Any:
    """The uploaded datasets, the newest first."""
    return {"datasets": await asyncio.to_thread(gateway.datasets.list)}


@router.post(
    "/check",
    response_model=Report,
    responses=errors(400, 403, 404),
    dependencies=[Depends(require_annotate_to_read)],
    openapi_extra=json_request_body(Choice),
)
async def check_dataset(request: Request, gateway: GatewayDep) -> Any:
    """Check a dataset that is on the server. Nothing is changed.

    `data_path` has the same form as in a training request.
    """
    choice = await json_body(request, Choice)
    return await slow_work.run(partial(_check, gateway, choice))


@router.get("/{dataset_id}", response_model=Dataset, responses=errors(404))
async def get_dataset(dataset_id: str, gateway: GatewayDep) -> Any:
    """One uploaded dataset: counts per split and class, sizes, problems."""
    return await asyncio.to_thread(gateway.datasets.get, dataset_id)


@router.get(
    "/{dataset_id}/sheet.png",
    response_class=Response,
    responses=errors(400, 404) | {200: {"content": {"image/png": {}}}},
)
async def sheet(
    dataset_id: str,
    gateway: GatewayDep,
    split: Literal["train", "val", "test"] = "train",
    count: int = Query(24, ge=1, le=96),
) -> Response:
    """A contact sheet: thumbnails with their labels drawn in."""
    draw = partial(_sheet, gateway, dataset_id, split, count)
    return Response(await slow_reads.run(draw), media_type="image/png")


@router.delete(
    "/{dataset_id}",
    status_code=204,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def delete_dataset(
    dataset_id: str,
    gateway: GatewayDep,
    discard_drafts: bool = Query(
        False, description="true: delete what people have drawn and not committed, too"
    ),
) -> Response:
    """Delete an uploaded dataset, unless a job needs it or people's drafts would be lost."""
    stores = gateway.datasets, gateway.annotated, gateway.jobs
    await asyncio.to_thread(cleanup.delete_dataset, dataset_id, *stores, discard_drafts)
    changed("deleted the dataset")
    return Response(status_code=204)


def _import_started(gateway: Gateway, job: Job) -> JSONResponse:
    """Notify the Trainer of an import job. Returns the response."""
    dataset_id = str(job.recipe["dataset_id"])
    changed(f"started the upload of the dataset {dataset_id}", job.id)
    notify_trainer(gateway, job)
    started = ImportStarted(
        status="queued",
        message=f"The upload is received. A job checks it and makes {dataset_id}.",
        job_id=job.id,
        dataset_id=dataset_id,
    )
    return JSONResponse(started.model_dump(mode="json"), 202)


def _check(gateway: Gateway, choice: Choice) -> dict[str, Any]:
    return report(gateway.datasets.open(choice.data_path, choice.task))


def _sheet(gateway: Gateway, dataset_id: str, split: str, count: int) -> bytes:
    card = gateway.datasets.get(dataset_id)
    return contact_sheet.draw(gateway.datasets.open(card["id"]), split, count)
