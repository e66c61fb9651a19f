"""`/api/annotation/queue`: the images to annotate next, in order, with reasons."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse

from annotation.confidence_bands import Bands
from annotation.priority import Candidate, Descriptor, descriptor_of, order, uncertainty_of_scores
from annotation.review_queue import newest_of_each, queued_images
from api.dependencies import GatewayDep
from api.middleware.auth import require_admin
from api.schemas import errors
from api.thread_pool import slow_work
from dataset.image_files import suffix_of
from errors import NotFound, VisionLoopError
from inference.images import decode
from monitoring.kept_images import KeptImage
from serving.gateway import Gateway

router = APIRouter(prefix="/api", tags=["Annotation"])

MAX_KEPT = 500  # maximum number of kept images of live traffic in the queue, the newest
MAX_CACHED = 2000  # maximum number of kept images whose descriptors are cached
CONTENT_TYPES = {
    ".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp",
    ".tif": "image/tiff", ".avif": "image/avif",
}  # fmt: skip
IMAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": {}}}}


class QueueEntry(BaseModel):
    """An image that waits for review."""

    model_config = ConfigDict(protected_namespaces=())

    image: str = Field(description="its name")
    content: str = Field(description="SHA-256 of its file; annotations may use it as the name")
    source: Literal["dataset", "live"]
    dataset_id: str | None
    url: str = Field(description="where it can be seen")
    model_id: str = Field(description="the model that pre-labelled it")
    priority: float = Field(description="the number that decides its place")
    doubt: float = Field(description="expected number of corrections")
    novelty: float = Field(description="0: like one annotated or ahead in the queue; 1: unlike all")
    objects_to_review: int
    reason: str


class AnnotationQueue(BaseModel):
    waiting: int = Field(description="images in the whole queue")
    annotated: int = Field(description="pre-labelled images that people have annotated")
    queue: list[QueueEntry]


@dataclass(frozen=True)
class KeptFeatures:
    """SHA-256 and descriptor of a kept image."""

    content: str
    descriptor: Descriptor


_cache: OrderedDict[str, KeptFeatures] = OrderedDict()  # by the id of the kept image


@router.get("/annotation/queue", response_model=AnnotationQueue, responses=errors(400, 404, 503))
async def queue(
    gateway: GatewayDep,
    dataset: str = Query("", max_length=80, description="a dataset's id; empty: all"),
    limit: int = Query(20, ge=1, le=500),
    kept: bool = Query(
        True, description="with kept images of live traffic; not where dataset is given"
    ),
) -> Any:
    """Images that no person has annotated, the most useful first.

    These are images in which the model is uncertain, and which are unlike those that are annotated
    or ahead in the queue.
    """
    return await slow_work.run(lambda: _queue(gateway, dataset, limit, kept))


@router.get(
    "/datasets/{dataset_id}/pictures/{content}",
    response_class=FileResponse,
    responses=errors(404) | IMAGE,
)
async def picture(dataset_id: str, content: str, gateway: GatewayDep) -> FileResponse:
    """An image of a dataset that people annotate, by its content."""
    path = await asyncio.to_thread(gateway.annotated.entries.image_path, dataset_id, content)
    kind = CONTENT_TYPES.get(path.suffix, "application/octet-stream")
    return FileResponse(path, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})


class Held(BaseModel):
    """An annotation that a tool sent and that is not in a revision yet."""

    annotation: str = Field(description="its number in the tool")
    task: str
    address: str = Field(description="URL of its image; empty: it was sent along")
    since: str
    reason: str = Field(description="empty: its image is being fetched")


class HeldBack(BaseModel):
    dataset_id: str
    waiting: list[Held] = Field(description="the oldest first")


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
                reason=entry.error or "",
            )
            for entry in gateway.annotated.entries.waiting(dataset_id)
        ]

    return {"dataset_id": dataset_id, "waiting": await asyncio.to_thread(rows)}


@router.get(
    "/annotation/kept/{image_id}",
    response_class=Response,
    responses=errors(403, 404) | IMAGE,
    dependencies=[Depends(require_admin)],
)
async def kept_picture(image_id: str, gateway: GatewayDep) -> Response:
    """A kept image of live traffic.

    It needs the admin token, because its sender may not want others to see it.
    """
    data = await asyncio.to_thread(gateway.live.kept.open, image_id)
    try:
        kind = CONTENT_TYPES.get(suffix_of(data), "application/octet-stream")
    except VisionLoopError:
        kind = "application/octet-stream"
    return Response(data, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})


def _queue(gateway: Gateway, dataset: str, limit: int, kept: bool) -> dict[str, Any]:
    if dataset:
        gateway.datasets.get(dataset)
    found, looks = queued_images(gateway.annotated, dataset or None)
    entries = {}
    candidates = []
    for one in newest_of_each(found):
        document = one.document
        candidates.append(Candidate(one.content, float(document["doubt"]), one.descriptor))
        entries[one.content] = {
            "image": document["name"],
            "content": one.content,
            "source": "dataset",
            "dataset_id": one.dataset_id,
            "url": f"/api/datasets/{one.dataset_id}/pictures/{one.content}",
            "model_id": document["by"],
            "doubt": document["doubt"],
            "objects_to_review": document["review"],
            "reason": document["reason"],
        }
    for image, seen in _kept(gateway) if kept and not dataset else ():
        if seen.content not in entries:
            entries[seen.content] = _of_traffic(gateway, image, seen)
            doubt = float(entries[seen.content]["doubt"])
            candidates.append(Candidate(seen.content, doubt, seen.descriptor))
    chosen = order(candidates, looks, limit)
    rows = [entries[one.key] | {"priority": one.priority, "novelty": one.novelty} for one in chosen]
    return {"waiting": len(candidates), "annotated": len(looks), "queue": rows}


def _kept(gateway: Gateway) -> list[tuple[KeptImage, KeptFeatures]]:
    """The newest kept images that nobody has annotated, with their features."""
    known = gateway.annotated.entries.annotated_contents()
    found = []
    for image in gateway.live.kept.list()[:MAX_KEPT]:
        try:
            seen = _cache.get(image.id) or _features(gateway, image)
        except VisionLoopError:  # deleted to make room for newer ones
            continue
        if seen.content not in known:
            found.append((image, seen))
    return found


def _features(gateway: Gateway, image: KeptImage) -> KeptFeatures:
    data = gateway.live.kept.open(image.id)
    pixels = decode(data, gateway.settings.max_pixels)
    _cache[image.id] = KeptFeatures(sha256(data).hexdigest(), descriptor_of(pixels))
    while len(_cache) > MAX_CACHED:
        _cache.popitem(last=False)
    return _cache[image.id]


def _of_traffic(gateway: Gateway, image: KeptImage, seen: KeptFeatures) -> dict[str, Any]:
    scores = [float(row["confidence"]) for row in image.answer.get("predictions", ())]
    try:
        task = gateway.registry.get(image.model_id).description.task
    except NotFound:
        task = "detect"
    if task == "classify":  # the scores are of all classes; only that of the best one matters
        scores = scores[:1]
    doubt = uncertainty_of_scores(scores, Bands(review=0.0))
    return {
        "image": image.id,
        "content": seen.content,
        "source": "live",
        "dataset_id": None,
        "url": f"/api/annotation/kept/{image.id}",
        "model_id": image.model_id,
        "doubt": doubt.value,
        "objects_to_review": doubt.review,
        "reason": f"Live traffic with an answer at {image.confidence:.2f}. {doubt.reason}",
    }
