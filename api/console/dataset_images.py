"""`/api/datasets/{id}/images`: the images of a dataset, one by one."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from annotation.uploads.new_images import ImageIntake
from api.console.uploads import read_upload, uploaded
from api.dependencies import GatewayDep
from api.groups import DATASETS
from api.middleware.auth import require_annotate, require_use
from api.middleware.errors import check
from api.middleware.request_state import changed, unchanged
from api.requests import fields
from api.schemas import RequestFields, errors, form_body
from api.thread_pool import slow_work
from serving.gateways.one_process import OneAtATime

router = APIRouter(prefix="/api/datasets", tags=[DATASETS], dependencies=[Depends(require_use)])

_one_at_a_time = OneAtATime("images")  # held while new images are read and stored


class NoFields(RequestFields):
    """A form that has files only."""

    files: ClassVar[tuple[str, ...]] = ("file",)


class NewImagesForm(NoFields):
    file: str = Field(
        description="an image, or a zip of images; repeat the field for up to 256 images",
        json_schema_extra={"format": "binary"},
    )


class ReceivedImage(BaseModel):
    """What became of one image file."""

    name: str = Field(description="its name, or its path in the zip")
    outcome: Literal["taken", "duplicate", "refused"] = Field(
        description="duplicate: the dataset, or the upload, has the same file already"
    )
    content: str = Field(description="SHA-256 of the file; empty if it was refused")
    reason: str = Field(description="why it was not taken; empty if it was")


class NewImages(BaseModel):
    """What became of every file of an upload."""

    dataset_id: str = Field(description="the dataset's id")
    revision: int = Field(description="the newest revision, with the images that were taken")
    counts: dict[str, int] = Field(description="number of images taken, duplicate and refused")
    skipped_files: int = Field(description="hidden files, and files that are no data")
    images: list[ReceivedImage] = Field(description="a row for every image file")


@router.post(
    "/{dataset_id}/images",
    status_code=201,
    response_model=NewImages,
    responses=errors(400, 403, 404, 413, 503)
    | {200: {"model": NewImages, "description": "No image was new, so no revision was made"}},
    dependencies=[Depends(require_annotate)],
    openapi_extra=form_body(NewImagesForm),
)
async def add_images(
    request: Request, response: Response, dataset_id: str, gateway: GatewayDep
) -> Any:
    """Add images to a dataset. They wait in the annotation queue, and are in a new revision.

    Images that the dataset has already are not stored again: sending the same once more changes
    nothing.
    """
    form = await read_upload(request)
    try:
        check(NoFields, fields(form, "file"))
        content, _ = uploaded(form)
        intake = ImageIntake(
            gateway.datasets,
            gateway.annotated,
            gateway.settings,
            partial(gateway.inbox.build_now, keep=True),
        )
        async with _one_at_a_time:
            found = await slow_work.run(partial(intake.add, dataset_id, content))
    finally:
        await form.close()
    if found["counts"]["taken"]:
        changed(f"added {found['counts']['taken']} images", dataset_id)
    else:
        response.status_code = 200
        unchanged()
    return found
