"""`/models/{id}/live`: statistics of a model's live traffic, and its drift."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from annotation.revision_records import live_corrections
from api.dependencies import GatewayDep
from api.groups import QUALITY
from api.middleware.auth import require_admin, require_annotate, require_use
from api.middleware.request_state import address_of, changed
from api.schemas import errors
from errors import NotFound
from models_store.versions import ModelVersion
from monitoring.live_stats import KEPT_HOURS, total
from monitoring.prediction_counts import BINS, LOW_BINS, PredictionCounts
from serving.gateway import Gateway
from serving.live_traffic import drift, training_counts

router = APIRouter(tags=[QUALITY], dependencies=[Depends(require_use)])


class Confidence(BaseModel):
    edges: list[float] = Field(description="edges of the bins, one more than counts")
    counts: list[int]
    low: int = Field(description="number of predictions with a confidence below 0.5")
    low_share: float | None


class ClassShare(BaseModel):
    class_id: int
    name: str
    count: int
    share: float | None
    training_count: int | None
    training_share: float | None


class Drift(BaseModel):
    index: float | None = Field(description="population stability index; null: see `message`")
    by_chance: float | None = Field(
        description="95th percentile of the index when there is no drift"
    )
    verdict: str | None
    message: str


class LiveHour(BaseModel):
    hour: str = Field(examples=["2026-11-21T10"], description="start of the hour, UTC")
    images: int
    predictions: int


class Kept(BaseModel):
    images: int
    size_bytes: int
    below: float = Field(
        description="images with a prediction below this confidence are kept; 0: none"
    )


class Live(BaseModel):
    """Statistics of live traffic.

    An object counts if it reaches the model's serving confidence. In a classification the best
    class counts.
    """

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    hours: int
    images: int
    images_without_predictions: int
    predictions: int
    predictions_per_image: float | None
    confidence: Confidence
    classes: list[ClassShare]
    drift: Drift
    by_hour: list[LiveHour]
    kept: Kept
    corrections: dict[str, Any] | None = Field(
        description=(
            "how annotators changed the model's pre-labels in the newest revisions: counts, "
            "precision and recall, in total and by class; null: no corrections"
        )
    )


class KeptPicture(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    id: str
    model_id: str
    kept_at: str
    confidence: float = Field(description="the lowest confidence among the image's predictions")
    size_bytes: int
    url: str = Field(description="URL of the image")


class KeptPictures(BaseModel):
    kept: list[KeptPicture] = Field(description="the kept images, the newest first")


@router.get(
    "/models/{model_id}/live/kept",
    response_model=KeptPictures,
    responses=errors(403, 404),
    dependencies=[Depends(require_annotate)],
)
async def list_kept(model_id: str, request: Request, gateway: GatewayDep) -> Any:
    """The kept images of live traffic that a model version answered."""
    model = gateway.registry.get(model_id)
    found = await asyncio.to_thread(gateway.live.kept.list, model.id)
    fields = ("id", "model_id", "kept_at", "confidence", "size_bytes")
    rows = [{name: getattr(image, name) for name in fields} for image in found]
    folder = address_of(request, "/api/annotation/kept")
    return {"kept": [row | {"url": f"{folder}/{row['id']}"} for row in rows]}


@router.delete(
    "/models/{model_id}/live/kept",
    status_code=204,
    responses=errors(403, 404),
    dependencies=[Depends(require_admin)],
)
async def delete_kept(
    model_id: str,
    gateway: GatewayDep,
    image: str = Query(
        "", max_length=80, description="an image's id; empty: all images of the model"
    ),
) -> None:
    """Delete one kept image of a model version, or all of its kept images."""
    model = gateway.registry.get(model_id)
    found = await asyncio.to_thread(gateway.live.kept.list, model.id)
    ids = [kept.id for kept in found if image in ("", kept.id)]
    if image and not ids:
        raise NotFound(
            f"No kept image {image!r} of {model.id}. GET /models/{model.id}/live/kept lists them."
        )
    for kept in ids:
        with contextlib.suppress(NotFound):  # deleted to make room for newer ones
            await asyncio.to_thread(gateway.live.kept.remove, kept)
    changed(f"deleted {len(ids)} kept images", model.id)


@router.get("/models/{model_id}/live", response_model=Live, responses=errors(400, 404))
async def live(
    model_id: str,
    gateway: GatewayDep,
    hours: int = Query(
        24, ge=1, le=KEPT_HOURS, description="number of hours, including the current one"
    ),
) -> Any:
    """Traffic, confidences and classes of one model version over some hours."""
    model = gateway.registry.get(model_id)
    await gateway.live.flush()
    return await asyncio.to_thread(_report, gateway, model, hours)


def _report(gateway: Gateway, model: ModelVersion, hours: int) -> dict[str, Any]:
    by_hour = gateway.live.store.hours(model.id, hours)
    counts = total(by_hour.values(), len(model.description.names))
    kept = gateway.live.kept.list(model.id)
    return {
        "model_id": model.id,
        "hours": hours,
        "images": counts.images,
        "images_without_predictions": counts.empty,
        "predictions": counts.predictions,
        "predictions_per_image": _share(counts.predictions, counts.images),
        "confidence": {
            "edges": np.round(np.linspace(0, 1, BINS + 1), 2).tolist(),
            "counts": counts.confidence.tolist(),
            "low": int(counts.confidence[:LOW_BINS].sum()),
            "low_share": _share(counts.low, counts.predictions),
        },
        "classes": _classes(model, counts),
        "drift": _drift(model, counts),
        "by_hour": [
            {"hour": hour, "images": found.images, "predictions": found.predictions}
            for hour, found in by_hour.items()
        ],
        "kept": {
            "images": len(kept),
            "size_bytes": sum(image.size_bytes for image in kept),
            "below": gateway.settings.keep_below,
        },
        "corrections": live_corrections(gateway.datasets.newest_revisions(), model.id),
    }


def _classes(model: ModelVersion, counts: PredictionCounts) -> list[dict[str, Any]]:
    trained = training_counts(model)
    return [
        {
            "class_id": class_id,
            "name": name,
            "count": int(counts.classes[class_id]),
            "share": _share(int(counts.classes[class_id]), counts.predictions),
            "training_count": trained[class_id] if trained else None,
            "training_share": _share(trained[class_id], sum(trained)) if trained else None,
        }
        for class_id, name in enumerate(model.description.names)
    ]


def _drift(model: ModelVersion, counts: PredictionCounts) -> dict[str, Any]:
    found = drift(model, counts)
    if found is not None:
        return {
            "index": round(found.index, 4),
            "by_chance": round(found.by_chance, 4),
            "verdict": found.verdict,
            "message": (
                f"{counts.predictions} live predictions compared with the training data: "
                f"{found.verdict}."
            ),
        }
    if training_counts(model) is None:
        message = (
            "The class counts of this model's training data are unknown, because the model was "
            "imported or trained by an older version."
        )
    elif len(model.description.names) < 2:
        message = "A single class has no distribution to compare."
    else:
        message = "There were no predictions in these hours."
    return {"index": None, "by_chance": None, "verdict": None, "message": message}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
