"""`/api/annotation/queue`: the images to annotate next, in order, with reasons."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse

from annotation.drafts.image_state import ImageReader
from annotation.queue.review_queue import QueuePage
from api.console.image_annotations import read_image
from api.console.image_files import (
    NOSNIFF,
    DecodingRules,
    content_type,
    content_type_of,
    has_it,
    headers_of_decoded,
    headers_of_file,
)
from api.dependencies import GatewayDep
from api.groups import ANNOTATE
from api.middleware.auth import require_annotate, require_use
from api.middleware.request_state import address_of
from api.schemas import errors
from api.thread_pool import slow_reads, whole_images
from errors import without_server_paths

router = APIRouter(prefix="/api", tags=[ANNOTATE], dependencies=[Depends(require_use)])

IMAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": {}}}}


class QueueEntry(BaseModel):
    """An image that waits for review."""

    model_config = ConfigDict(protected_namespaces=())

    image: str = Field(description="the image's name")
    content: str = Field(
        description="SHA-256 of the image file; annotations may use it as the image's name"
    )
    source: Literal["dataset", "live"]
    dataset_id: str | None
    url: str = Field(description="URL of the image")
    width: int = Field(description="pixels, after EXIF rotation; 0: not known")
    height: int = Field(description="pixels, after EXIF rotation; 0: not known")
    model_id: str | None = Field(
        description="the model that pre-labelled the image; null: none has"
    )
    prelabels: int = Field(description="number of objects that the model found")
    priority: float = Field(description="the number by which the queue is sorted")
    doubt: float = Field(description="expected number of corrections")
    novelty: float = Field(
        description=(
            "how much the image differs from every image that is annotated or ahead in the queue, "
            "from 0 (the same) to 1"
        )
    )
    objects_to_review: int
    reason: str
    claimed_by: str | None = Field(description="who works on the image; null: nobody")
    claimed_until: str | None = Field(
        description="when that claim expires by itself, ISO 8601, UTC"
    )
    skipped_by: str | None = Field(description="who skipped the image; null: nobody")
    skip_reason: str | None = Field(description="why; may be empty")


def with_urls(request: Request, rows: list[dict[str, Any]]) -> None:
    """Add the URL of its image to each row of the queue."""
    for row in rows:
        path = (
            f"/api/datasets/{row['dataset_id']}/pictures/{row['content']}"
            if row["source"] == "dataset"
            else f"/api/annotation/kept/{row['image']}"
        )
        row["url"] = address_of(request, path)


class AnnotationQueue(BaseModel):
    waiting: int = Field(description="images in the whole queue")
    annotated: int = Field(description="pre-labelled images that people have annotated")
    accepted: int = Field(
        description="images with an accepted draft, which are not in the queue: they wait for "
        "their commit"
    )
    skipped: int = Field(description="images that were skipped")
    queue: list[QueueEntry]


@router.get("/annotation/queue", response_model=AnnotationQueue, responses=errors(400, 404, 503))
async def queue(
    request: Request,
    gateway: GatewayDep,
    dataset: str = Query("", max_length=80, description="a dataset's id; empty: all"),
    limit: int = Query(20, ge=1, le=500),
    offset: int = Query(0, ge=0, le=10**6, description="number of images before the first"),
    kept: bool = Query(
        True,
        description="whether to include kept images of live traffic; false if dataset is given",
    ),
    skipped: Literal["last", "only", "none"] = Query(
        "last", description="whether skipped images follow the others, come alone, or stay out"
    ),
) -> Any:
    """Images that no person has annotated, the most useful first.

    These are images in which the model is uncertain, and which are unlike those that are annotated
    or ahead in the queue.
    """
    page = QueuePage(dataset, limit, offset, kept, skipped)
    found = await slow_reads.run(partial(gateway.review.page, page))
    with_urls(request, found["queue"])
    return found


@router.get(
    "/datasets/{dataset_id}/pictures/{content}",
    response_class=FileResponse,
    responses=errors(400, 404, 413, 429, 503) | IMAGE,
)
async def picture(
    request: Request,
    dataset_id: str,
    content: str,
    gateway: GatewayDep,
    shown: Literal["file", "browser"] = Query(
        "file",
        alias="as",
        description="file: the file as it is; browser: a PNG of the pixels that training reads, "
        "unless browsers show the file just so",
    ),
    decoding: DecodingRules = None,
) -> Response:
    """An image of a dataset, by its content.

    As `browser` it is always in a format that browsers show, without loss, and has the size that
    annotations refer to: a TIFF is its first page, 16 bits are reduced to 8 and an orientation in
    EXIF is applied as for training.
    """
    reader = ImageReader(gateway.datasets, gateway.annotated)
    path = await read_image(reader, dataset_id, partial(reader.file, dataset_id, content))
    headers = headers_of_file(content)
    if shown == "browser":
        headers = headers_of_decoded(content, shown, decoding)
    if has_it(request, headers):
        return Response(status_code=304, headers=headers)
    if shown == "browser":
        make = partial(gateway.thumbnails.for_browsers, content, path)
        found = await whole_images.run(make)
        if isinstance(found, bytes):
            return Response(found, media_type="image/png", headers=headers)
        path = found
    kind = await asyncio.to_thread(content_type_of, path)
    return FileResponse(path, media_type=kind, headers=headers)


class Held(BaseModel):
    """An annotation that a tool sent and that is not in a revision yet."""

    annotation: str = Field(description="the annotation's number in the tool")
    task: str
    address: str = Field(
        description="URL of the annotation's image; empty: the image was sent with the annotation"
    )
    since: str
    reason: str = Field(
        description="why the annotation is not in a revision; empty: its image is being fetched"
    )


class HeldBack(BaseModel):
    dataset_id: str
    waiting: list[Held] = Field(description="the annotations, the oldest first")


@router.get("/datasets/{dataset_id}/waiting", response_model=HeldBack, responses=errors(404))
async def held_back(dataset_id: str, gateway: GatewayDep) -> Any:
    """Annotations that were sent and are not in the dataset, with the reasons.

    Reasons are images that could not be fetched and regions that cannot be stored.
    """

    def rows() -> list[Held]:
        gateway.annotated.get(dataset_id)
        return [
            Held(
                annotation=entry.key,
                task=entry.task,
                address=entry.address[:200] if entry.address[:5] != "data:" else "",
                since=entry.updated_at,
                reason=without_server_paths(entry.error or ""),
            )
            for entry in gateway.annotated.entries.waiting(dataset_id)
        ]

    return {"dataset_id": dataset_id, "waiting": await asyncio.to_thread(rows)}


@router.get(
    "/annotation/kept/{image_id}",
    response_class=Response,
    responses=errors(403, 404) | IMAGE,
    dependencies=[Depends(require_annotate)],
)
async def kept_picture(image_id: str, gateway: GatewayDep) -> Response:
    """A kept image of live traffic.

    It needs the scope `annotate`, because its sender may not want others to see it.
    """
    data = await asyncio.to_thread(gateway.live.kept.open, image_id)
    return Response(data, media_type=content_type(data), headers=NOSNIFF)
