"""`/api/annotation/queue/…`: claim, skip and release images; take live ones into a dataset."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from annotation.queue.kept_intake import KeptIntake
from api.console.annotation_queue import QueueEntry, with_urls
from api.console.author import AuthorDep
from api.dependencies import GatewayDep
from api.groups import ANNOTATE
from api.middleware.auth import require_annotate, require_annotate_to_read
from api.middleware.request_state import changed
from api.requests import json_body
from api.schemas import RequestFields, errors, json_request_body
from api.thread_pool import slow_reads, slow_work

router = APIRouter(prefix="/api/annotation", tags=[ANNOTATE])

Content = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ClaimBody(RequestFields):
    """How many images a person wants to work on next."""

    count: int = Field(1, ge=1, le=50, description="how many images, with those claimed already")
    dataset: str = Field("", max_length=80, description="a dataset's id; empty: all")
    kept: bool = Field(
        True, description="whether kept images of live traffic may be among them; not in a dataset"
    )


class Claimed(BaseModel):
    lease_seconds: float = Field(
        description="how long the claims last; each draft of an image begins its time again"
    )
    queue: list[QueueEntry] = Field(description="the images, those claimed before first")


class SkipBody(RequestFields):
    content: Content = Field(description="SHA-256 of the image file")
    reason: str = Field("", max_length=500, description="why, for whoever sees it next")


class ContentsBody(RequestFields):
    contents: list[Content] = Field(
        min_length=1, max_length=1000, description="SHA-256 of the image files"
    )


class Changed(BaseModel):
    """How many images it was about."""

    images: int = Field(description="images that were claimed by the caller, or skipped")


class TakeBody(RequestFields):
    dataset_id: str = Field(min_length=1, max_length=80, description="the dataset to copy it into")


class TakenImage(BaseModel):
    """An image of live traffic that is in a dataset now."""

    dataset_id: str = Field(description="the dataset")
    content: str = Field(description="SHA-256 of the image file")
    name: str = Field(description="the image's path in the dataset")
    new: bool = Field(description="false: the dataset had it already")


@router.post(
    "/queue/claim",
    response_model=Claimed,
    responses=errors(400, 403, 404, 503),
    dependencies=[Depends(require_annotate_to_read)],
    openapi_extra=json_request_body(ClaimBody, required=False),
)
async def claim_images(request: Request, gateway: GatewayDep, author: AuthorDep) -> Any:
    """Claim the next images of the queue for the caller, who gets them alone for some minutes.

    Others are not given them meanwhile, but can open them. A claim expires by itself; drafts of an
    image renew it.
    """
    body = await json_body(request, ClaimBody)
    claim = partial(gateway.review.claim, author, body.count, body.dataset, body.kept)
    found = await slow_reads.run(claim)
    with_urls(request, found["queue"])
    return found


@router.post(
    "/queue/release",
    response_model=Changed,
    responses=errors(400, 403, 503),
    dependencies=[Depends(require_annotate_to_read)],
    openapi_extra=json_request_body(ContentsBody),
)
async def release_images(request: Request, gateway: GatewayDep, author: AuthorDep) -> Any:
    """Give up the caller's claims of images; drafts of them stay."""
    body = await json_body(request, ContentsBody)
    count = await asyncio.to_thread(gateway.review.claims.release, author, body.contents)
    return {"images": count}


@router.post(
    "/queue/skip",
    response_model=Changed,
    responses=errors(400, 403, 503),
    dependencies=[Depends(require_annotate_to_read)],
    openapi_extra=json_request_body(SkipBody),
)
async def skip_image(request: Request, gateway: GatewayDep, author: AuthorDep) -> Any:
    """Put an image at the end of the queue, for everybody; a draft of it stays."""
    body = await json_body(request, SkipBody)
    skip = gateway.review.claims.skip
    await asyncio.to_thread(skip, author, body.content, body.reason)
    return {"images": 1}


@router.post(
    "/queue/unskip",
    response_model=Changed,
    responses=errors(400, 403, 503),
    dependencies=[Depends(require_annotate_to_read)],
    openapi_extra=json_request_body(ContentsBody),
)
async def unskip_images(request: Request, gateway: GatewayDep) -> Any:
    """Bring skipped images back to their places in the queue."""
    body = await json_body(request, ContentsBody)
    count = await asyncio.to_thread(gateway.review.claims.bring_back, body.contents)
    return {"images": count}


@router.post(
    "/kept/{image_id}/dataset",
    response_model=TakenImage,
    responses=errors(400, 403, 404, 503),
    dependencies=[Depends(require_annotate)],
    openapi_extra=json_request_body(TakeBody),
)
async def take_kept_image(request: Request, image_id: str, gateway: GatewayDep) -> Any:
    """Copy a kept image of live traffic into a dataset, where it waits for annotation.

    What the model answered are its suggestions. The image is in the dataset's next revision.
    """
    body = await json_body(request, TakeBody)
    intake = KeptIntake(gateway.live.kept, gateway.datasets, gateway.annotated, gateway.prelabels)
    found = await slow_work.run(partial(intake.take, image_id, body.dataset_id))
    changed("copied a kept image of live traffic", body.dataset_id)
    return found
