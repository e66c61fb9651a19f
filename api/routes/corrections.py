"""`POST /api/datasets/{id}/annotations`: corrections that come back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from filelock import Timeout
from pydantic import Field
from starlette.datastructures import UploadFile

from annotation.corrections.application import corrected, preview
from annotation.corrections.correction import Correction, CorrectionRules
from annotation.corrections.reader import read_correction
from annotation.history import is_upload, newest, revision_row
from annotation.image_records import ImageRecord
from annotation.originals import adopt, originals
from annotation.revision_builder import build
from annotation.store import AnnotatedDataset, upload_source
from api.accounting import Corrected
from api.dependencies import GatewayDep
from api.middleware.auth import require_admin
from api.middleware.errors import check
from api.requests import MULTIPART, content_type, fields, read_form
from api.schemas import RequestFields, errors, form_schema
from api.thread_pool import slow_work
from dataset import zip_archive
from dataset.documents.reader import SHAPES, from_folder, from_json, parse
from dataset.documents.submission import Submission
from dataset.revisions import get_revision
from errors import BackendUnavailable, NoFileUploaded, PayloadTooLarge, ValidationFailed
from formats.annotations import FORMATS, Format, keypoint_labels
from serving.gateway import Gateway

router = APIRouter(prefix="/api/datasets", tags=["Data sets"])

IN_MEMORY = 1024 * 1024
ALONE = (".json", ".xml", ".txt")  # documents that need not be packed
MOST_JSON = 128 * 2**20  # bytes of a document that is not packed
TOO_LARGE = PayloadTooLarge("The document is over 128 MiB. Pack it: a .zip as the form's 'file'.")
Only = Literal["all", "changed"]
Empty = Literal["unstated", "background"]
NewClasses = Literal["add", "refuse"]
ONLY = "all (the default), or changed: images that came back as they were are passed over"
EMPTY = (
    "unstated (the default): images that a COCO or CVAT document lists without a mark stay as "
    "they are; background: they have no objects"
)
NEW = "add (the default), or refuse: classes that the data set does not have are a 400"
CONFIRM = "true: remove more than half of the objects, or all of a class of five or more"
DRY_RUN = "true: answer what would happen, and change nothing"


class CorrectionOptions(RequestFields):
    files = ("file",)

    format: Format | None = Field(None, description=f"one of: {', '.join(FORMATS)}")
    only: Only | None = Field(None, description=ONLY)
    empty: Empty | None = Field(None, description=EMPTY)
    new_classes: NewClasses | None = Field(None, description=NEW)
    confirm: bool | None = Field(None, description=CONFIRM)
    dry_run: bool | None = Field(None, description=DRY_RUN)


class CorrectionForm(CorrectionOptions):
    file: str = Field(
        description="a .json, .xml or .txt document, or a zip of documents or label files, with "
        "new images if there are some",
        json_schema_extra={"format": "binary"},
    )


@dataclass(frozen=True)
class Options:
    """How a request wants its correction taken."""

    form: Format | None
    only_changed: bool
    background: bool
    refuse_new: bool
    confirm: bool
    dry_run: bool

    def rules(self, gateway: Gateway, dataset_id: str, names: list[str]) -> CorrectionRules:
        return CorrectionRules(
            dataset=dataset_id,
            names=names,
            task=gateway.datasets.get(dataset_id)["task"],
            max_pixels=gateway.annotated.max_pixels,
            only_changed=self.only_changed,
            background=self.background,
            refuse_new=self.refuse_new,
        )


@router.post(
    "/{dataset_id}/annotations",
    status_code=201,
    response_model=Corrected,
    responses=errors(400, 403, 404, 409, 413, 503)
    | {200: {"model": Corrected, "description": "nothing was made: a dry run, or a repetition"}},
    dependencies=[Depends(require_admin)],
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
    form: Format | None = Query(None, alias="format", description="default: what it looks like"),
    only: Only = Query("all", description=ONLY),
    empty: Empty = Query("unstated", description=EMPTY),
    new_classes: NewClasses = Query("add", description=NEW),
    confirm: bool = Query(False, description=CONFIRM),
    dry_run: bool = Query(False, description=DRY_RUN),
) -> Any:
    """Take corrected annotations, as JSON or as a form with a file, and make a revision of them.

    Images are known by their content (of the images that come, or the SHA-256 as name), else by
    path, else by file name. All of it is taken, or nothing. What comes back as it was counts as
    looked at and accepted: say `only=changed` where not every image of an export was.
    """
    query = {
        "format": form,
        "only": only,
        "empty": empty,
        "new_classes": new_classes,
        "confirm": confirm,
        "dry_run": dry_run,
    }
    if content_type(request) != MULTIPART:
        if content_type(request) != "application/json":
            raise ValidationFailed(
                f"'Content-Type' must be application/json or {MULTIPART}; "
                f"got {content_type(request)!r:.60}."
            )
        body = await _body(request)
        found = await slow_work.run(partial(_take_json, gateway, dataset_id, body, _options(query)))
    else:
        found = await _take_form(request, gateway, dataset_id, query)
    response.status_code = 200 if found["dry_run"] or found["repeated"] else 201
    return found


async def _take_form(
    request: Request, gateway: Gateway, dataset_id: str, query: dict[str, Any]
) -> dict[str, Any]:
    sent = await read_form(request, IN_MEMORY)
    try:
        options = _options(query, fields(sent, "file"))
        file = sent.get("file")
        if not isinstance(file, UploadFile):
            raise NoFileUploaded(f"Send a zip, or one of {', '.join(ALONE)}, as the form's 'file'.")
        name = PurePosixPath((file.filename or "").replace("\\", "/")).name
        alone = PurePosixPath(name).suffix.lower() in ALONE
        if alone and (file.size or 0) > MOST_JSON:
            raise TOO_LARGE
        take = _take_file if alone else _take_zip
        return await slow_work.run(partial(take, gateway, dataset_id, file.file, name, options))
    finally:
        await sent.close()


def _options(query: dict[str, Any], sent: dict[str, Any] | None = None) -> Options:
    """Of the query; what the form says goes before it."""
    given = check(CorrectionOptions, sent or {}).model_dump(exclude_none=True)
    chosen = query | {name: value for name, value in given.items() if name in query}
    return Options(
        form=chosen["format"],
        only_changed=chosen["only"] == "changed",
        background=chosen["empty"] == "background",
        refuse_new=chosen["new_classes"] == "refuse",
        confirm=chosen["confirm"],
        dry_run=chosen["dry_run"],
    )


async def _body(request: Request) -> bytes:
    """Into memory, as far as that is reasonable."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_JSON:
            raise TOO_LARGE
    return bytes(body)


def _take_json(gateway: Gateway, dataset_id: str, body: bytes, options: Options) -> dict[str, Any]:
    names, points = _names(gateway, dataset_id)
    sent = from_json(parse(body, "The body"), options.form, names, points)
    return _take(gateway, dataset_id, sent, options)


def _take_file(
    gateway: Gateway, dataset_id: str, file: IO[bytes], name: str, options: Options
) -> dict[str, Any]:
    """A document that is not packed."""
    names, points = _names(gateway, dataset_id)
    with _folder(gateway) as folder:
        folder.joinpath(*zip_archive.safe_name(name)).write_bytes(file.read())
        return _take(gateway, dataset_id, from_folder(folder, options.form, names, points), options)


def _take_zip(
    gateway: Gateway, dataset_id: str, file: IO[bytes], _: str, options: Options
) -> dict[str, Any]:
    names, points = _names(gateway, dataset_id)
    classify = gateway.datasets.get(dataset_id)["task"] == "classify"
    with _folder(gateway) as folder:
        unpacked = zip_archive.unpack(file, folder, gateway.settings.max_upload_bytes)
        sent = from_folder(unpacked.root, options.form, names, points, classify)
        told = [finding.message for finding in unpacked.findings]
        sent = replace(sent, notes=[*told, *sent.notes])
        return _take(gateway, dataset_id, sent, options)


@contextmanager
def _folder(gateway: Gateway) -> Iterator[Path]:
    """An empty folder for the time of a request."""
    uploads = gateway.settings.paths.uploads
    uploads.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="dataset-", dir=uploads))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take(gateway: Gateway, dataset_id: str, sent: Submission, options: Options) -> dict[str, Any]:
    names, _ = _names(gateway, dataset_id)
    pictures = _pictures(gateway, dataset_id)
    correction = read_correction(pictures, sent, options.rules(gateway, dataset_id, names))
    if options.dry_run:
        row = _foreseen(gateway, dataset_id, pictures, correction)
        needed = correction.needs_confirmation and not options.confirm
        return _answer(dataset_id, row, correction, dry_run=True, confirmation_required=needed)
    if correction.needs_confirmation and not options.confirm:
        raise correction.removes.error()
    if correction.repeated:
        number = newest(gateway.datasets, dataset_id)
    else:
        dataset = _growing(gateway, dataset_id)
        with corrected(gateway.annotated, dataset, correction):
            number = _revise(gateway, dataset)["revision"]
    revision = get_revision(gateway.datasets.folder / dataset_id, number)
    row = revision_row(dataset_id, revision)
    return _answer(dataset_id, row, correction, corrections=revision.corrections)


def _answer(
    dataset_id: str, row: dict[str, Any], correction: Correction, **more: Any
) -> dict[str, Any]:
    found = correction.to_json()
    standard = {
        "dry_run": False,
        "confirmation_required": False,
        "repeated": correction.repeated,
        "corrections": None,
    }
    return {"dataset_id": dataset_id, **row, **standard, **found, **more}


def _pictures(gateway: Gateway, dataset_id: str) -> list[ImageRecord]:
    """What the data set has, without making a row for an upload that has none yet."""
    source = gateway.datasets.get(dataset_id).get("source") or upload_source(dataset_id)
    dataset = gateway.annotated.find(source)
    if dataset is not None:
        return list(gateway.annotated.records(dataset.id))
    return list(originals(gateway.datasets.open(dataset_id)))


def _foreseen(
    gateway: Gateway,
    dataset_id: str,
    pictures: list[ImageRecord],
    correction: Correction,
) -> dict[str, Any]:
    """The row of the revision that a correction would make."""
    number = newest(gateway.datasets, dataset_id) + (not correction.repeated)
    after = preview(pictures, correction)
    return {
        "revision": number,
        "data_path": f"{dataset_id}@{number}",
        "created_at": None,
        "task": gateway.datasets.get(dataset_id)["task"],
        "pictures": len(after),
        "annotated": sum(by_person for _, by_person, _ in after),
        "to_review": sum(not trains for _, _, trains in after),
        "objects": sum(len(found) for found, _, _ in after),
        "kept": True,
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
    source = card.get("source") or upload_source(dataset_id)
    dataset = gateway.annotated.find(source)
    options = dataset.options if dataset is not None else {}
    names = list(options.get("names") or card["classes"])
    points = list(options.get("keypoint_names") or ())
    if not points and card.get("keypoints"):
        points = list(keypoint_labels(None, card["keypoints"][0]))
    return names, points
