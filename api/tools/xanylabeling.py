"""`/v1`: the protocol of X-AnyLabeling's remote server (as of client 4.2.1)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import GatewayDep
from api.groups import TOOLS
from api.middleware.auth import require_use
from api.predictions import AnnotateOptions, prelabel
from api.requests import json_body
from api.responses import JSON, unless_gone
from api.schemas import RequestFields, Unit, errors, json_request_body
from errors import NoFileUploaded
from formats.annotation_tools import TOOL_OF
from formats.annotations import Annotations
from formats.xanylabeling import description, to_shapes
from models_store.description import Task
from models_store.versions import ModelVersion
from serving.base64_images import decoded

MOST_CLASSES = 10_000  # in a request

router = APIRouter(tags=[TOOLS])

SHAPES: dict[Task, list[str]] = {
    "detect": ["rectangle"],
    "segment": ["polygon"],
    "pose": ["rectangle", "point"],
    "classify": [],
}


class Healthy(BaseModel):
    status: str = Field(examples=["healthy"])
    models_loaded: int = Field(description="models that can be selected")
    timestamp: str


class Widget(BaseModel):
    name: str
    value: Any = None


class Listed(BaseModel):
    """A model as the client shows it, with its widgets."""

    display_name: str
    widgets: list[Widget]
    params: dict[str, Any]
    capabilities: dict[str, Any]
    classes: list[str]
    batch_processing_mode: str = "default"


class ServedModels(BaseModel):
    success: bool = True
    data: dict[str, Listed]


class Info(BaseModel):
    success: bool = True
    data: dict[str, Any]


class Params(RequestFields):
    """Values of the client's widgets; its other parameters have no meaning here."""

    unknown = "pass"

    conf_threshold: Unit | None = Field(None, description="a number from 0 to 1")
    iou_threshold: Unit | None = Field(None, description="a number from 0 to 1")
    filter_classes: list[str] = Field(
        [],
        max_length=MOST_CLASSES,
        description=f"a list of at most {MOST_CLASSES:,} class names; empty: all",
    )


class Asked(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str = Field("", max_length=200, description="a model's id; empty: the active model")
    image: str = Field("", description="base64 text, with or without 'data:image/…;base64,'")
    params: Params = Field(default_factory=Params, description="an object")


class FoundShapes(BaseModel):
    shapes: list[dict[str, Any]] = Field(
        description="the shapes, with points in pixels; a rectangle has four corners"
    )
    description: str = Field(description="the predicted class, for a classification")
    replace: bool | None = Field(None, description="null: the choice of the client's user applies")


class Answer(BaseModel):
    success: bool = True
    data: FoundShapes


@router.get("/health", response_model=Healthy)
async def health(gateway: GatewayDep) -> Any:
    """Health of the service. Needs no token."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Healthy(status="healthy", models_loaded=len(_offered(gateway)), timestamp=stamp)


@router.get("/v1/models", dependencies=[Depends(require_use)], response_model=ServedModels)
async def models(gateway: GatewayDep) -> Any:
    """The active and the promoted models, the active one first."""
    return ServedModels(data={model.id: _listed(model) for model in _offered(gateway)})


@router.get(
    "/v1/models/{model_id}/info",
    dependencies=[Depends(require_use)],
    response_model=Info,
    responses=errors(404),
)
async def info(model_id: str, gateway: GatewayDep) -> Any:
    """One model."""
    model = gateway.registry.get(model_id)
    return Info(data={"model_id": model.id, **_listed(model).model_dump()})


@router.post(
    "/v1/predict",
    dependencies=[Depends(require_use)],
    response_model=Answer,
    responses=errors(400, 404, 413, 503, 504),
    openapi_extra=json_request_body(Asked),
)
async def predict(request: Request, gateway: GatewayDep) -> Response:
    """Shapes for one image."""
    asked = await json_body(request, Asked)
    if not asked.image:
        raise NoFileUploaded("Send the image as 'image'.")
    model = gateway.registry.resolve(asked.model)
    options = AnnotateOptions(
        tool=TOOL_OF[model.description.task].value,
        confidence=asked.params.conf_threshold,
        iou=asked.params.iou_threshold,
    )
    image = await decoded(asked.image, "image")

    async def work() -> dict[str, Any]:
        _, found = await prelabel(gateway, image, options, model)
        kept = _only(found, asked.params.filter_classes)
        await asyncio.to_thread(
            gateway.prelabels.add, image, kept, options.tool, model.id, options.confidence
        )
        shapes = {
            "shapes": await asyncio.to_thread(to_shapes, kept),
            "description": description(kept),
            "replace": None,
        }
        return {"success": True, "data": shapes}

    return JSON(await unless_gone(request.receive, work()))


def _offered(gateway: Any) -> list[ModelVersion]:
    listed = sorted(gateway.registry.list(), key=lambda model: (not model.active, model.name))
    return [model for model in listed if model.active or model.promoted]


def _listed(model: ModelVersion) -> Listed:
    about = model.description
    widgets = [Widget(name="button_run")]
    if about.task != "classify":
        widgets += [
            Widget(name="edit_conf", value=about.confidence),
            Widget(name="edit_iou", value=about.iou),
            Widget(name="button_classes_filter"),
            Widget(name="toggle_preserve_existing_annotations", value=False),
        ]
    return Listed(
        display_name=f"{model.name} ({about.type})",
        widgets=widgets,
        params={"conf_threshold": about.confidence, "iou_threshold": about.iou},
        capabilities={"type": about.type, "shape_types": SHAPES[about.task]},
        classes=list(about.names),
    )


def _only(found: Annotations, classes: list[str]) -> Annotations:
    if not classes:
        return found
    wanted = frozenset(classes)
    return replace(found, objects=tuple(o for o in found.objects if o.label in wanted))
