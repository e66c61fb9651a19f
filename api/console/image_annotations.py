"""`GET /api/datasets/{id}/images/{content}/annotations`: an image's objects, for the annotator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from annotation.confidence_bands import Bands
from annotation.drafts.image_state import ImageReader
from api.console.shapes import Shape
from api.dependencies import GatewayDep
from api.groups import DATASETS
from api.middleware.auth import require_use
from api.middleware.request_state import address_of
from api.schemas import errors
from api.thread_pool import slow_reads

router = APIRouter(prefix="/api/datasets", tags=[DATASETS], dependencies=[Depends(require_use)])


class ImageAnnotations(BaseModel):
    """An image with what people and models say of it."""

    model_config = ConfigDict(protected_namespaces=())

    dataset_id: str = Field(description="the dataset")
    content: str = Field(description="SHA-256 of the image file")
    name: str = Field(description="the image's path as it was sent")
    split: str | None = Field(description="train, val or test; null: not assigned yet")
    width: int = Field(description="pixels, after EXIF rotation")
    height: int = Field(description="pixels, after EXIF rotation")
    url: str = Field(description="URL of the image")
    task: str = Field(description="the dataset's task: detect, segment, pose or classify")
    classes: list[str] = Field(description="the dataset's classes in order of id")
    keypoint_names: list[str] = Field(description="the dataset's keypoints in order; or none")
    revision: int | None = Field(
        description="the asked revision, else the newest one; null: there is none yet"
    )
    base: str = Field(
        description="names the annotations in `objects`; a draft says on which it was drawn"
    )
    annotated: bool = Field(
        description="whether a person or the upload has annotated the image; an empty `objects` "
        "then says that nothing is there"
    )
    by: str | None = Field(
        description="the person's name, `person` if it is not known, or `original`: as uploaded; "
        "null: nobody has annotated the image"
    )
    at: str | None = Field(
        description="when the annotations arrived, ISO 8601, UTC; null: with the upload"
    )
    model_id: str | None = Field(description="the model of `suggestions`; null: there are none")
    bands: Bands = Field(description="the lowest scores of the confidence bands")
    objects: list[Shape] = Field(description="the annotations by a person or of the upload")
    suggestions: list[Shape] = Field(description="the newest prediction of a model")


Result = TypeVar("Result")


async def read_image(reader: ImageReader, dataset_id: str, read: Callable[[], Result]) -> Result:
    """Read something about one image: quick, unless the upload's own files have to be read."""
    if await asyncio.to_thread(reader.known, dataset_id) is not None:
        return await asyncio.to_thread(read)
    return await slow_reads.run(read)


@router.get(
    "/{dataset_id}/images/{content}/annotations",
    response_model=ImageAnnotations,
    responses=errors(400, 404, 503),
)
async def image_annotations(
    request: Request,
    dataset_id: str,
    content: str,
    gateway: GatewayDep,
    revision: int | None = Query(
        None, ge=0, description="number of a revision, 0: as uploaded; by default the newest state"
    ),
    source: Literal["all", "person", "model"] = Query(
        "all", description="whose objects to answer: `objects`, `suggestions` or both"
    ),
) -> Any:
    """The annotations of one image by people and by models, side by side.

    By default they are the newest ones, which a revision may not contain yet.
    """
    reader = ImageReader(gateway.datasets, gateway.annotated)
    read = partial(reader.describe, dataset_id, content, revision, source)
    found = await (
        slow_reads.run(read) if revision is not None else read_image(reader, dataset_id, read)
    )
    url = address_of(request, f"/api/datasets/{dataset_id}/pictures/{content}")
    return found | {"url": url}
