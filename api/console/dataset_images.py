"""`/api/datasets/{id}/images`: the images of a dataset, one by one."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse

from annotation.uploads.new_images import ImageIntake
from api.console.image_files import (
    DecodingRules,
    content_type_of,
    has_it,
    headers_of_decoded,
    headers_of_file,
)
from api.console.uploads import read_upload, uploaded
from api.dependencies import GatewayDep
from api.groups import DATASETS
from api.middleware.auth import require_annotate, require_use
from api.middleware.errors import check
from api.middleware.request_state import address_of, changed, unchanged
from api.requests import fields
from api.schemas import RequestFields, errors, form_body
from api.thread_pool import slow_reads, slow_work, thumbnails
from dataset.browse.index import DRAFT, NO_SPLIT, STATES, ImageFilter, State
from inference.images import DECODING
from models_store.description import Task
from serving.gateways.one_process import OneAtATime

router = APIRouter(prefix="/api/datasets", tags=[DATASETS], dependencies=[Depends(require_use)])

IMAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": {}}},
    304: {"description": "the client has it already (`If-None-Match`)"},
}
STATE = (
    "unlabelled: nobody has annotated it; predicted: by a model alone; labelled: as uploaded; "
    "corrected: by a person; empty: checked, and without an object; unreadable: cannot be decoded"
)
Size = Literal["160", "320", "640", "1280", "2560"]

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
    reason: str = Field(description="why it was not taken, or under which other name; else empty")


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


class ListedImage(BaseModel):
    """An image of a revision."""

    content: str = Field(description="SHA-256 of its file; empty if the file cannot be read")
    name: str = Field(description="its path as users know it")
    url: str = Field(description="URL of the image; empty if the file cannot be read")
    thumbnail_url: str = Field(description="URL of a JPEG with at most 320 pixels a side")
    width: int = Field(description="pixels after EXIF rotation; 0 if it cannot be decoded")
    height: int = Field(description="pixels after EXIF rotation; 0 if it cannot be decoded")
    split: str = Field(description="train, val or test; empty: in none of them")
    state: str = Field(description=STATE)
    draft: bool = Field(description="whether a draft of its annotations waits to be committed")
    author: str = Field(
        description="original (as uploaded), person, a name, or a model's id; empty: nobody"
    )
    objects: int = Field(description="number of its objects; of its classes for task classify")
    classes: dict[str, int] = Field(description="class → number of its objects")
    boxes: list[tuple[str, float, float, float, float]] = Field(
        description="class and x1, y1, x2, y2 as fractions of the image, of the first 100 objects"
    )
    problems: dict[str, str] = Field(description="kind of a problem → what it is")


class ImageFacets(BaseModel):
    """Value of a filter → number of images that have it, and fit all other filters."""

    model_config = ConfigDict(populate_by_name=True)

    split: dict[str, int] = Field(description="by split; `none`: in none of them")
    label: dict[str, int] = Field(
        alias="class", description="by class: the number of images with an object of it"
    )
    state: dict[str, int] = Field(description="by state; `draft` as well")
    author: dict[str, int] = Field(description="by author")
    problem: dict[str, int] = Field(description="by kind of problem")


class ImageList(BaseModel):
    """A page of a revision's images."""

    dataset_id: str = Field(description="the dataset's id")
    revision: int = Field(description="number of the revision; 0: as uploaded")
    task: Task = Field(description="the revision's task")
    total: int = Field(description="number of images that fit the filters, on all pages")
    images: list[ListedImage] = Field(description="split by split")
    next: str | None = Field(description="`after` of the next page; null: this is the last one")
    facets: ImageFacets | None = Field(description="on the first page; null on the others")


REVISION = "number of the revision; 0: as uploaded; default: the newest"


class ImageQuery(BaseModel):
    """Which images of which revision are listed, and which page of them."""

    revision: int | None = Field(None, ge=0, le=999_999, description=REVISION)
    split: Literal["", "train", "val", "test", "none"] = Field(
        "", description=f"train, val, test, or {NO_SPLIT}: images in none of them"
    )
    label: str = Field("", alias="class", max_length=200, description="a class: images with it")
    state: Literal["", State, "draft"] = Field(
        "", description=f"one of {', '.join(STATES)}, or {DRAFT}: images with a draft"
    )
    author: str = Field("", max_length=140, description="original, person, a name, or a model's id")
    problem: str = Field("", max_length=40, description="a kind of problem")
    q: str = Field("", max_length=200, description="a part of the name")
    after: str = Field("", max_length=20, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=500, description="maximum number of images")

    def filter(self) -> ImageFilter:
        return ImageFilter(self.split, self.label, self.state, self.author, self.problem, self.q)


@router.get("/{dataset_id}/images", response_model=ImageList, responses=errors(400, 404, 429, 503))
async def list_images(
    request: Request,
    dataset_id: str,
    gateway: GatewayDep,
    wanted: Annotated[ImageQuery, Query()],
) -> Any:
    """The images of a revision, with filters, and on the first page the count of each filter.

    An image that a dataset has twice is listed twice. `after` stays with its revision, also when
    there is a newer one.
    """
    read = partial(
        gateway.browser.page,
        dataset_id,
        wanted.filter(),
        revision=wanted.revision,
        after=wanted.after,
        limit=wanted.limit,
    )
    found = await slow_reads.run(read)
    for row in found["images"]:
        _add_urls(request, dataset_id, row)
    return found


@router.get(
    "/{dataset_id}/images/{content}",
    response_class=Response,
    responses=errors(400, 404, 413, 429, 503) | IMAGE,
)
async def show_image(
    request: Request,
    dataset_id: str,
    content: str,
    gateway: GatewayDep,
    size: Annotated[
        Size | None,
        Query(description="pixels of the longer side of a JPEG; default: the file as it is"),
    ] = None,
    decoding: DecodingRules = None,
) -> Response:
    """An image of a dataset by its SHA-256, or a thumbnail of it: upright, and never enlarged.

    Browsers keep it: the URL names the content and the decoding rules, which never change.
    """
    path = await asyncio.to_thread(gateway.browser.path, dataset_id, content)
    if size is None:
        headers = headers_of_file(content)
    else:
        headers = headers_of_decoded(content, size, decoding)
    if has_it(request, headers):
        return Response(status_code=304, headers=headers)
    if size is None:
        kind = await asyncio.to_thread(content_type_of, path)
        return FileResponse(path, media_type=kind, headers=headers)
    side = int(size)
    found = await asyncio.to_thread(gateway.thumbnails.find, content, side)
    if found is None:
        found = await thumbnails.run(partial(gateway.thumbnails.make, content, path, side))
    return Response(found, media_type="image/jpeg", headers=headers)


class ClassBalance(BaseModel):
    """A class in the splits; `none` are images in no split."""

    name: str = Field(description="the class")
    objects: dict[str, int] = Field(description="split → number of its objects")
    images: dict[str, int] = Field(description="split → number of images with it")


class SplitHealth(BaseModel):
    """A split."""

    split: str = Field(description="train, val or test; empty: images in none of them")
    images: int = Field(description="number of its images")
    objects: int = Field(description="number of their objects")
    states: dict[str, int] = Field(description="state, as in the listing → number of images")


class Histogram(BaseModel):
    """Counts by bins."""

    edges: list[float] = Field(description="smallest value of each bin; the last has no largest")
    counts: list[int] = Field(description="count of each bin")


class ImageSize(BaseModel):
    """A size that several images may have."""

    width: int = Field(description="pixels")
    height: int = Field(description="pixels")
    images: int = Field(description="number of images")


class HealthProblem(BaseModel):
    """A problem of the dataset, with images that show it."""

    kind: str = Field(description="its kind; a value of the listing's filter `problem`")
    message: str = Field(description="a sentence that names files and lines")
    count: int = Field(description="number of occurrences")
    examples: list[str] = Field(description="places, such as a file and line")
    fatal: bool = Field(description="training refuses the dataset until this is fixed")
    images: int = Field(description="number of images that have it; 0: it is not about an image")
    shown: list[ListedImage] = Field(description="the first of these images")


class DatasetHealth(BaseModel):
    """Balance, sizes and problems of a revision."""

    dataset_id: str = Field(description="the dataset's id")
    revision: int = Field(description="number of the revision; 0: as uploaded")
    task: Task = Field(description="the revision's task")
    splits: list[SplitHealth] = Field(description="the splits")
    classes: list[ClassBalance] = Field(description="the classes in order of id")
    box_shares: Histogram = Field(
        description="objects by the root of their box's area, as a share of the image's"
    )
    box_sides: Histogram = Field(description="objects by the root of their box's area, in pixels")
    image_sides: Histogram = Field(description="images by their longer side in pixels")
    objects_per_image: Histogram = Field(description="annotated images by number of objects")
    image_sizes: list[ImageSize] = Field(description="the ten most frequent sizes")
    problems: list[HealthProblem] = Field(description="the problems")


@router.get(
    "/{dataset_id}/health", response_model=DatasetHealth, responses=errors(400, 404, 429, 503)
)
async def health(
    request: Request,
    dataset_id: str,
    gateway: GatewayDep,
    revision: Annotated[int | None, Query(ge=0, le=999_999, description=REVISION)] = None,
) -> Any:
    """Whether a dataset is fit to train on: classes by split, sizes, problems with their images."""
    found = await slow_reads.run(partial(gateway.browser.health, dataset_id, revision))
    for problem in found["problems"]:
        for row in problem["shown"]:
            _add_urls(request, dataset_id, row)
    return found


def _add_urls(request: Request, dataset_id: str, row: dict[str, Any]) -> None:
    path = f"/api/datasets/{dataset_id}/images/{row['content']}"
    row["url"] = address_of(request, path) if row["content"] else ""
    row["thumbnail_url"] = f"{row['url']}?size=320&decoding={DECODING}" if row["content"] else ""
