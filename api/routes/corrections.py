"""`POST /api/datasets/{id}/annotations`: corrected annotations of a dataset."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from annotation.corrections.submission import CorrectionPolicy, CorrectionSubmission
from api.accounting import Corrected
from api.dependencies import GatewayDep
from api.groups import DATASETS
from api.middleware.auth import require_annotate, require_use
from api.middleware.errors import check
from api.middleware.request_state import changed, exchange, unchanged
from api.requests import MULTIPART, UPLOAD_IN_MEMORY, content_type, fields, read_form
from api.schemas import RequestFields, errors, form_schema
from api.thread_pool import slow_work
from dataset.documents.reader import SHAPES
from errors import NoFileUploaded, PayloadTooLarge, ValidationFailed
from formats.annotations import FORMATS, Format
from serving.gateway import Gateway

router = APIRouter(prefix="/api/datasets", tags=[DATASETS], dependencies=[Depends(require_use)])

DOCUMENTS = (".json", ".xml", ".txt")  # suffixes of documents that can be sent without a zip
MAX_DOCUMENT = 128 * 2**20  # maximum bytes of a document that is not zipped
TOO_LARGE = PayloadTooLarge(
    "The document is over 128 MiB. Send it in a zip, as a file *.zip in the form field 'file'."
)
Only = Literal["all", "changed"]
Empty = Literal["unstated", "background"]
NewClasses = Literal["add", "refuse"]
ONLY = "all (the default), or changed: images with unchanged annotations are skipped"
EMPTY = (
    "unstated (the default): images that a COCO or CVAT document lists without annotations are "
    "not changed; background: they are stored as images without objects"
)
NEW = "add (the default), or refuse: classes that the dataset does not have are an error"
CONFIRM = (
    "true: allow the removal of more than half of the objects, or of all objects of a class "
    "with five or more"
)
DRY_RUN = "true: change nothing, and return what would change"


class CorrectionOptions(RequestFields):
    """How a correction is applied."""

    files = ("file",)

    format: Format | None = Field(None, description=f"one of: {', '.join(FORMATS)}")
    only: Only | None = Field(None, description=ONLY)
    empty: Empty | None = Field(None, description=EMPTY)
    new_classes: NewClasses | None = Field(None, description=NEW)
    confirm: bool | None = Field(None, description=CONFIRM)
    dry_run: bool | None = Field(None, description=DRY_RUN)


class CorrectionQuery(BaseModel):
    """The same options in the query, with their defaults."""

    format: Format | None = Field(
        None, description="the document's format; by default it is detected from the content"
    )
    only: Only = Field("all", description=ONLY)
    empty: Empty = Field("unstated", description=EMPTY)
    new_classes: NewClasses = Field("add", description=NEW)
    confirm: bool = Field(False, description=CONFIRM)
    dry_run: bool = Field(False, description=DRY_RUN)


class CorrectionForm(CorrectionOptions):
    file: str = Field(
        description=(
            "a .json, .xml or .txt document, or a zip of documents or label files, which may "
            "also contain new images"
        ),
        json_schema_extra={"format": "binary"},
    )


@router.post(
    "/{dataset_id}/annotations",
    status_code=201,
    response_model=Corrected,
    responses=errors(400, 403, 404, 409, 413, 503)
    | {
        200: {
            "model": Corrected,
            "description": (
                "No revision was made, because it is a dry run or everything was stored already"
            ),
        }
    },
    dependencies=[Depends(require_annotate)],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"description": SHAPES}},
                MULTIPART: {"schema": form_schema(CorrectionForm)},
            },
        }
    },
)
async def take_annotations(
    request: Request,
    response: Response,
    dataset_id: str,
    gateway: GatewayDep,
    query: Annotated[CorrectionQuery, Query()],
) -> Any:
    """Make a revision of corrected annotations, sent as JSON or as a form with a file.

    Images are matched by content (of images in the zip, or a SHA-256 as name), else by path, else
    by file name. Either all of it is stored, or nothing. An image that comes back unchanged counts
    as reviewed and accepted: send `only=changed` if not every image of an export was reviewed.
    """
    if content_type(request) != MULTIPART:
        if content_type(request) != "application/json":
            raise ValidationFailed(
                f"'Content-Type' must be application/json or {MULTIPART}; "
                f"got {content_type(request)!r:.60}."
            )
        body = await _body(request)
        sent = _submission(request, gateway, dataset_id, _options(query))
        found = await slow_work.run(partial(sent.take_json, body))
    else:
        found = await _take_form(request, gateway, dataset_id, query)
    if found["dry_run"] or found["repeated"]:
        response.status_code = 200
        unchanged()
    else:
        response.status_code = 201
        changed("corrected annotations", dataset_id)
    return found


async def _take_form(
    request: Request, gateway: Gateway, dataset_id: str, query: CorrectionQuery
) -> dict[str, Any]:
    form = await read_form(request, UPLOAD_IN_MEMORY)
    try:
        options = _options(query, fields(form, "file"))
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise NoFileUploaded(
                f"Send a zip, or one of {', '.join(DOCUMENTS)}, as a file in the form field 'file'."
            )
        name = PurePosixPath((file.filename or "").replace("\\", "/")).name
        alone = PurePosixPath(name).suffix.lower() in DOCUMENTS
        if alone and (file.size or 0) > MAX_DOCUMENT:
            raise TOO_LARGE
        sent = _submission(request, gateway, dataset_id, options)
        if alone:
            return await slow_work.run(partial(sent.take_document, file.file, name))
        return await slow_work.run(partial(sent.take_zip, file.file))
    finally:
        await form.close()


def _options(query: CorrectionQuery, sent: dict[str, Any] | None = None) -> CorrectionPolicy:
    """The correction policy of a request; fields of the form override those of the query."""
    given = check(CorrectionOptions, sent or {}).model_dump(exclude_none=True)
    chosen = query.model_copy(update=given)
    return CorrectionPolicy(
        form=chosen.format,
        only_changed=chosen.only == "changed",
        background=chosen.empty == "background",
        refuse_new=chosen.new_classes == "refuse",
        confirm=chosen.confirm,
        dry_run=chosen.dry_run,
    )


async def _body(request: Request) -> bytes:
    """Read the request's body into memory.

    Raises:
        PayloadTooLarge: The body is larger than MAX_DOCUMENT.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_DOCUMENT:
            raise TOO_LARGE
    return bytes(body)


def _submission(
    request: Request, gateway: Gateway, dataset_id: str, policy: CorrectionPolicy
) -> CorrectionSubmission:
    token = exchange(request.scope).token
    return CorrectionSubmission(
        dataset_id,
        replace(policy, author=token.name if token is not None else ""),
        gateway.datasets,
        gateway.annotated,
        gateway.settings,
        partial(gateway.inbox.build_now, keep=True),
    )
