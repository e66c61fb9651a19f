"""`/api/annotation/queue`: which pictures to annotate next, and why."""

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

MOST_KEPT = 500  # of live traffic that are looked at, the newest
REMEMBERED = 2000  # of which descriptors are remembered
TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp",
         ".tif": "image/tiff", ".avif": "image/avif"}  # fmt: skip
PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": {}}}}


class QueueEntry(BaseModel):
    """A picture that waits for a person."""

    model_config = ConfigDict(protected_namespaces=())

    image: str = Field(description="its name")
    content: str = Field(description="SHA-256 of its file; annotations may name it so")
    source: Literal["dataset", "live"]
    dataset_id: str | None
    url: str = Field(description="where it can be seen")
    model_id: str = Field(description="who pre-labelled it")
    priority: float = Field(description="what it stands in this place for")
    doubt: float = Field(description="corrections to expect")
    novelty: float = Field(description="0: like one annotated or further ahead; 1: unlike all")
    objects_to_review: int
    reason: str


class AnnotationQueue(BaseModel):
    waiting: int = Field(description="pictures in the whole queue")
    annotated: int = Field(description="pre-labelled pictures that people have annotated")
    queue: list[QueueEntry]


@dataclass(frozen=True)
class Seen:
    """Of a kept picture: SHA-256 of its file, and its descriptor."""

    content: str
    descriptor: Descriptor


_seen: OrderedDict[str, Seen] = OrderedDict()  # by the id of the kept picture


@router.get("/annotation/queue", response_model=AnnotationQueue, responses=errors(400, 404, 503))
async def queue(
    gateway: GatewayDep,
    dataset: str = Query("", max_length=80, description="a data set's id; empty: all"),
    limit: int = Query(20, ge=1, le=500),
    kept: bool = Query(
        True, description="with pictures of live traffic that were kept; not where dataset is given"
    ),
) -> Any:
    """Pictures without a person's word, the most helpful first: those about which the model is
    in doubt, and that are unlike those annotated or further ahead."""
    return await slow_work.run(lambda: _queue(gateway, dataset, limit, kept))


@router.get(
    "/datasets/{dataset_id}/pictures/{content}",
    response_class=FileResponse,
    responses=errors(404) | PICTURE,
)
async def picture(dataset_id: str, content: str, gateway: GatewayDep) -> FileResponse:
    """A picture of a data set that people annotate, by its content."""
    path = await asyncio.to_thread(gateway.annotated.image_path, dataset_id, content)
    kind = TYPES.get(path.suffix, "application/octet-stream")
    return FileResponse(path, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})


class Held(BaseModel):
    """An annotation that a tool sent and that no revision has yet."""

    annotation: str = Field(description="its number in the tool")
    task: str
    address: str = Field(description="of its picture; empty: it came along")
    since: str
    reason: str = Field(description="empty: its picture is on its way")


class HeldBack(BaseModel):
    dataset_id: str
    waiting: list[Held] = Field(description="the oldest first")


@router.get("/datasets/{dataset_id}/waiting", response_model=HeldBack, responses=errors(404))
async def held_back(dataset_id: str, gateway: GatewayDep) -> Any:
    """What annotators have sent and is not in the data set, and why: pictures that could not be
    fetched, regions that cannot be held."""

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
            for entry in gateway.annotated.waiting(dataset_id)
        ]

    return {"dataset_id": dataset_id, "waiting": await asyncio.to_thread(rows)}


@router.get(
    "/annotation/kept/{image_id}",
    response_class=Response,
    responses=errors(403, 404) | PICTURE,
    dependencies=[Depends(require_admin)],
)
async def kept_picture(image_id: str, gateway: GatewayDep) -> Response:
    """A picture of live traffic that was kept. Whoever sent it may not want others to see it:
    needs the admin token."""
    data = await asyncio.to_thread(gateway.live.kept.open, image_id)
    try:
        kind = TYPES.get(suffix_of(data), "application/octet-stream")
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


def _kept(gateway: Gateway) -> list[tuple[KeptImage, Seen]]:
    """Kept pictures that nobody has annotated."""
    known = gateway.annotated.annotated_contents()
    found = []
    for image in gateway.live.kept.list()[:MOST_KEPT]:
        try:
            seen = _seen.get(image.id) or _look(gateway, image)
        except VisionLoopError:  # it has made room for newer ones
            continue
        if seen.content not in known:
            found.append((image, seen))
    return found


def _look(gateway: Gateway, image: KeptImage) -> Seen:
    data = gateway.live.kept.open(image.id)
    pixels = decode(data, gateway.settings.max_pixels)
    _seen[image.id] = Seen(sha256(data).hexdigest(), descriptor_of(pixels))
    while len(_seen) > REMEMBERED:
        _seen.popitem(last=False)
    return _seen[image.id]


def _of_traffic(gateway: Gateway, image: KeptImage, seen: Seen) -> dict[str, Any]:
    scores = [float(row["confidence"]) for row in image.answer.get("predictions", ())]
    try:
        task = gateway.registry.get(image.model_id).description.task
    except NotFound:
        task = "detect"
    if task == "classify":  # of all classes; the doubt is about the best one
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
