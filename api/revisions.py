"""`/api/datasets/{id}/…`: corrections that come back, revisions, what they changed, exports."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from filelock import Timeout
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.responses import StreamingResponse

from api.auth import require_admin
from api.errors import check
from api.forms import MULTIPART, content_type, fields, read_form
from api.gateway import Gateway, Wired
from api.schemas import EmptyIsAbsent, errors
from api.slow_work import slow_work
from errors import BackendUnavailable, NoFileUploaded, PayloadTooLarge, ValidationFailed
from training import archive
from training.annotated_dataset import AnnotatedDataset
from training.annotated_folder import build
from training.annotation_diff import ACCEPTED, PAIRED
from training.annotation_documents import SHAPES, Sent, from_folder, from_json, parse
from training.bands import Bands
from training.correcting import corrected, read_correction
from training.dataset_formats import FORMATS, Format, entries, zipped
from training.dataset_revisions import (
    diff,
    exported,
    is_upload,
    newest,
    revision_row,
    revision_rows,
)
from training.originals import SOURCE as UPLOAD
from training.originals import adopt
from training.revisions import get_revision

router = APIRouter(prefix="/api/datasets", tags=["Data sets"])

IN_MEMORY = 1024 * 1024
MOST_JSON = 128 * 2**20  # bytes of a document that is not packed
TOO_LARGE = PayloadTooLarge("The document is over 128 MiB. Pack it: a .zip as the form's 'file'.")
Only = Literal["all", "changed"]
ONLY = "all (the default), or changed: pictures that came back as they were are passed over"
KINDS = "label_studio, yolo, coco or labelme"
ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}}}


class CorrectionOptions(EmptyIsAbsent):
    format: Format | None = Field(None, description=f"one of: {', '.join(FORMATS)}")
    only: Only | None = Field(None, description=ONLY)


class CorrectionForm(CorrectionOptions):
    file: str = Field(
        description="a .json document, or a zip of documents or label files, with new pictures "
        "if there are some",
        json_schema_extra={"format": "binary"},
    )


class Row(BaseModel):
    revision: int = Field(description="0: an upload as it came")
    data_path: str = Field(description="what trainings and evaluations take")
    created_at: str
    task: str
    pictures: int | None
    annotated: int | None = Field(description="pictures with a person's word since the upload")
    to_review: int = Field(description="pictures left out of training until a person has looked")
    objects: int | None
    kept: bool = Field(description="false: makes room for newer ones, unless something names it")


class Revisions(BaseModel):
    dataset_id: str
    revisions: list[Row] = Field(description="the newest first")


class Corrected(Row):
    dataset_id: str
    received: int = Field(description="pictures whose annotations were taken")
    new_pictures: int
    unchanged: int = Field(
        description="pictures that came back as they were; counted as accepted, unless only=changed"
    )
    unmatched_count: int
    unmatched: list[str] = Field(description="names that are no picture's here, or several's")
    new_classes: list[str]
    corrections: dict[str, Any] = Field(
        description="of the whole revision: by who spoke before, what people changed"
    )


class Diff(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    dataset_id: str
    revision: int
    accepted_iou: float = Field(description="from which an object counts as not moved")
    compared: list[dict[str, Any]] = Field(
        description="by who spoke before (a model, `original`): pictures, accepted, moved, "
        "relabelled, added, removed, precision and recall, the same for each class, and the "
        "precision of each confidence band"
    )
    changed_count: int
    changed: list[dict[str, Any]] = Field(description="pictures with changes, the first 200")


@router.get("/{dataset_id}/revisions", response_model=Revisions, responses=errors(404))
async def list_revisions(dataset_id: str, gateway: Wired) -> Any:
    """Everything that the data set has been."""
    rows = await asyncio.to_thread(revision_rows, gateway.datasets, dataset_id)
    return {"dataset_id": dataset_id, "revisions": rows}


@router.get(
    "/{dataset_id}/revisions/{revision}/diff",
    response_model=Diff,
    responses=errors(400, 404, 503),
)
async def show_diff(
    dataset_id: str,
    revision: int,
    gateway: Wired,
    iou: float = Query(ACCEPTED, ge=PAIRED, le=1, description="from which nothing was moved"),
    against: int | None = Query(None, ge=0, description="another revision; else the pre-labels"),
) -> Any:
    """What people made of the pre-labels: accepted, moved, relabelled, added, removed; from it
    the precision and recall of the model, as annotators see them."""

    def compare() -> dict[str, Any]:
        return diff(
            gateway.datasets,
            dataset_id,
            revision,
            accepted=iou,
            bands=_bands(gateway, dataset_id),
            against=against,
        )

    return await slow_work.run(compare)


@router.post(
    "/{dataset_id}/annotations",
    status_code=201,
    response_model=Corrected,
    responses=errors(400, 403, 404, 413, 503),
    dependencies=[Depends(require_admin)],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"description": SHAPES}},
                MULTIPART: {"schema": CorrectionForm.model_json_schema()},
            },
        }
    },
)
async def take_annotations(
    request: Request,
    dataset_id: str,
    gateway: Wired,
    form: Format | None = Query(None, alias="format", description="default: what it looks like"),
    only: Only = Query("all", description=ONLY),
) -> Any:
    """Take corrected annotations, as JSON or as a form with a file, and make a revision of them.

    Pictures are known by file name, or by the SHA-256 of their content as name. All of it is
    taken, or nothing. What comes back as it was counts as looked at and accepted: say
    `only=changed` where not every picture of an export was.
    """
    if content_type(request) != MULTIPART:
        if content_type(request) != "application/json":
            raise ValidationFailed(
                f"'Content-Type' must be application/json or {MULTIPART}; "
                f"got {content_type(request)!r:.60}."
            )
        body = await _body(request)
        return await slow_work.run(
            partial(_take_json, gateway, dataset_id, body, form, only == "changed")
        )
    sent = await read_form(request, IN_MEMORY)
    try:
        options = check(CorrectionOptions, fields(sent))
        chosen, changed = options.format or form, (options.only or only) == "changed"
        file = sent.get("file")
        if not isinstance(file, UploadFile):
            raise NoFileUploaded("Send a .json or .zip as the form's file 'file'.")
        if (file.filename or "").lower().endswith(".json"):
            if (file.size or 0) > MOST_JSON:
                raise TOO_LARGE
            body = await file.read()
            return await slow_work.run(
                partial(_take_json, gateway, dataset_id, body, chosen, changed)
            )
        return await slow_work.run(
            partial(_take_zip, gateway, dataset_id, file.file, chosen, changed)
        )
    finally:
        await sent.close()


@router.get(
    "/{dataset_id}/export", response_class=StreamingResponse, responses=errors(400, 404, 503) | ZIP
)
async def export(
    dataset_id: str,
    gateway: Wired,
    form: Format | None = Query(
        None, alias="format", description=f"{KINDS}; default: what it was annotated for, or yolo"
    ),
    revision: int | None = Query(None, ge=0, description="default: the newest; 0: as uploaded"),
    images: bool = Query(True, description="with the pictures"),
) -> StreamingResponse:
    """A data set as a zip, in the form that a tool reads."""

    def begin() -> tuple[str, Iterator[bytes]]:
        number = newest(gateway.datasets, dataset_id) if revision is None else revision
        data = exported(gateway.datasets, dataset_id, number)
        kind = form or _format(gateway, dataset_id)
        pieces = zipped(entries(data, kind, images))
        first = next(pieces, b"")  # what cannot be written is told before the answer begins
        return f"{dataset_id}-{number}-{kind}.zip", chain((first,), pieces)

    name, pieces = await slow_work.run(begin)
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(pieces, media_type="application/zip", headers=disposition)


async def _body(request: Request) -> bytes:
    """Into memory, as far as that is reasonable."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_JSON:
            raise TOO_LARGE
    return bytes(body)


def _take_json(
    gateway: Gateway, dataset_id: str, body: bytes, form: Format | None, only_changed: bool
) -> dict[str, Any]:
    names, points = _names(gateway, dataset_id)
    marks = from_json(parse(body, "The body"), form, names, points)
    return _take(gateway, dataset_id, Sent(marks, {}), only_changed)


def _take_zip(
    gateway: Gateway, dataset_id: str, file: IO[bytes], form: Format | None, only_changed: bool
) -> dict[str, Any]:
    names, points = _names(gateway, dataset_id)
    uploads = gateway.settings.home / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="dataset-", dir=uploads))
    try:
        root = archive.unpack(file, folder, gateway.settings.max_upload_bytes).root
        return _take(gateway, dataset_id, from_folder(root, form, names, points), only_changed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take(gateway: Gateway, dataset_id: str, sent: Sent, only_changed: bool) -> dict[str, Any]:
    names, _ = _names(gateway, dataset_id)
    dataset = _growing(gateway, dataset_id)
    correction = read_correction(gateway.annotated, dataset, sent, names, only_changed)
    with corrected(gateway.annotated, dataset, correction):
        number = _revise(gateway, dataset)["revision"]
    revision = get_revision(gateway.datasets.folder / dataset_id, number)
    found = correction.to_json()
    return {
        "dataset_id": dataset_id,
        **revision_row(dataset_id, revision),
        "received": found.pop("annotated"),
        **found,
        "corrections": revision.corrections,
    }


def _growing(gateway: Gateway, dataset_id: str) -> AnnotatedDataset:
    """The data set's row; an upload gets one."""
    if is_upload(gateway.datasets, dataset_id):
        return adopt(gateway.annotated, gateway.datasets, dataset_id)
    return gateway.annotated.get(dataset_id)


def _revise(gateway: Gateway, dataset: AnnotatedDataset) -> dict[str, Any]:
    """A new revision that stays; its card. Raises BackendUnavailable: others take too long."""
    try:
        return _build(gateway, dataset)
    except Timeout:
        raise BackendUnavailable(
            f"'{dataset.id}' is being written by others for minutes. Nothing was taken: try again."
        ) from None


def _build(gateway: Gateway, dataset: AnnotatedDataset) -> dict[str, Any]:
    options = dataset.options
    if "names" not in options:  # of a tool's project, which knows better how to
        return gateway.inbox.build_now(dataset, keep=True)
    return build(
        gateway.annotated,
        dataset,
        task=options.get("task") or gateway.datasets.get(dataset.id)["task"],
        names=options["names"],
        keypoint_names=options["keypoint_names"],
        keep=True,
    )


def _names(gateway: Gateway, dataset_id: str) -> tuple[list[str], list[str]]:
    """Class and key point names that the data set has."""
    card = gateway.datasets.get(dataset_id)
    source = card.get("source") or f"{UPLOAD}{dataset_id}"
    dataset = gateway.annotated.find(source)
    options = dataset.options if dataset is not None else {}
    names = list(options.get("names") or card["classes"])
    points = list(options.get("keypoint_names") or ())
    if not points and card.get("keypoints"):
        points = list(map(str, range(card["keypoints"][0])))
    return names, points


def _bands(gateway: Gateway, dataset_id: str) -> Bands | None:
    dataset = gateway.annotated.find(gateway.datasets.get(dataset_id).get("source") or "")
    bands = dataset.options.get("bands") if dataset is not None else None
    return Bands.model_validate(bands) if bands else None


def _format(gateway: Gateway, dataset_id: str) -> Format:
    dataset = gateway.annotated.find(gateway.datasets.get(dataset_id).get("source") or "")
    found: Format = dataset.options.get("format", "yolo") if dataset is not None else "yolo"
    return found
