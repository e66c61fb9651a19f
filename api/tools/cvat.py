"""`/api/functions`: models as detector functions for CVAT, with the API of a Nuclio dashboard.

A pose model has two functions. One returns the keypoints as one shape; the other, whose name ends
with `.skeleton`, returns a skeleton with named elements.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import GatewayDep
from api.groups import TOOLS
from api.middleware.auth import require_use
from api.predictions import AnnotateOptions, point_names, prelabel
from api.requests import json_body
from api.responses import JSON, unless_gone
from api.schemas import RequestFields, Unit, errors, json_request_body
from errors import ModelNotFound, NoFileUploaded, ValidationFailed
from formats.annotation_tools import TOOL_OF
from formats.cvat import label_spec, to_cvat
from models_store.registry import Registry
from models_store.versions import ModelVersion
from serving.base64_images import decoded

router = APIRouter(prefix="/api", tags=[TOOLS], dependencies=[Depends(require_use)])

SKELETON = ".skeleton"


class Metadata(BaseModel):
    name: str = Field(description="the name with which the function is invoked")
    annotations: dict[str, str] = Field(description="`name`, `type`, `spec` (labels, as JSON text)")


class FunctionSpec(BaseModel):
    description: str


class Status(BaseModel):
    state: str = "ready"
    httpPort: int  # named by Nuclio


class Function(BaseModel):
    """A function as CVAT reads it."""

    metadata: Metadata
    spec: FunctionSpec
    status: Status


class Invocation(RequestFields):
    unknown = "pass"

    image: str = Field("", description="base64 text")
    threshold: Unit | None = Field(None, description="a number from 0 to 1")


class Item(BaseModel):
    """One annotation; further fields as CVAT's types need them."""

    model_config = ConfigDict(extra="allow")

    label: str
    type: str = Field(description="rectangle, polygon, points, skeleton or tag")
    points: list[float] = Field([], description="x1, y1, x2, y2 … in pixels")
    confidence: str
    attributes: list[Any] = []


@router.get("/functions", response_model=dict[str, Function])
async def functions(request: Request, gateway: GatewayDep) -> Any:
    """The promoted models and the active one, by the names of their functions."""
    found = {}
    for model in gateway.registry.list():
        if model.promoted or model.active:
            for function in _functions(model, request):
                found[function.metadata.name] = function
    return found


@router.get("/functions/{name}", response_model=Function, responses=errors(404))
async def function(name: str, request: Request, gateway: GatewayDep) -> Any:
    """One model as a function."""
    model, skeletons = _find(gateway.registry, name)
    return _function(model, request, skeletons, name)


@router.post(
    "/function_invocations",
    response_model=list[Item],
    responses=errors(400, 404, 413, 503, 504),
    openapi_extra=json_request_body(Invocation),
)
async def invoke(
    request: Request,
    gateway: GatewayDep,
    x_nuclio_function_name: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """A model's annotations of an image."""
    if not x_nuclio_function_name:
        raise ValidationFailed(
            "The header 'x-nuclio-function-name' must name a function. GET /api/functions lists "
            "them."
        )
    model, skeletons = _find(gateway.registry, x_nuclio_function_name)
    asked = await json_body(request, Invocation)
    if not asked.image:
        raise NoFileUploaded("Send the image as 'image', base64 text.")
    image = await decoded(asked.image, "image")
    tool = TOOL_OF[model.description.task]
    options = AnnotateOptions(tool=tool.value, confidence=asked.threshold)

    async def work() -> list[dict[str, Any]]:
        _, found = await prelabel(gateway, image, options, model)
        await asyncio.to_thread(
            gateway.prelabels.add, image, found, tool.value, model.id, asked.threshold
        )
        return await asyncio.to_thread(to_cvat, found, skeletons)

    return JSON(await unless_gone(request.receive, work()))


def _functions(model: ModelVersion, request: Request) -> list[Function]:
    made = [_function(model, request, False, _name(model))]
    if model.description.task == "pose":
        made.append(_function(model, request, True, _name(model) + SKELETON))
    return made


def _name(model: ModelVersion) -> str:
    """A model's function name, without colon, which CVAT refuses; the bare name if promoted."""
    return model.name if model.promoted else f"{model.name}.{model.version}"


def _function(model: ModelVersion, request: Request, skeletons: bool, name: str) -> Function:
    about = model.description
    labels = label_spec(about.names, about.task, point_names(model), skeletons)
    shown = f"{model.name} ({'skeletons' if skeletons else about.type})"
    annotations = {
        "name": shown,
        "type": "detector",
        "framework": about.family,
        "spec": json.dumps(labels, ensure_ascii=False),
        "version": "1",
    }
    text = f"{about.description or shown} · {model.id}"
    return Function(
        metadata=Metadata(name=name, annotations=annotations),
        spec=FunctionSpec(description=text),
        status=Status(httpPort=_port(request)),
    )


def _port(request: Request) -> int:
    return request.url.port or (443 if request.url.scheme == "https" else 80)


def _find(registry: Registry, name: str) -> tuple[ModelVersion, bool]:
    """The model of a function, and whether the function returns skeletons.

    Raises:
        ModelNotFound: There is no such function.
    """
    plain = name.removesuffix(SKELETON)
    model = _registered(registry, plain)
    if plain != name and model.description.task != "pose":
        raise ModelNotFound(
            f"{model.id} has no key points, so there is no function {name!r:.80}. GET "
            "/api/functions lists those that exist."
        )
    return model, plain != name


def _registered(registry: Registry, name: str) -> ModelVersion:
    try:
        return registry.get(name)
    except ModelNotFound:
        head, dot, version = name.rpartition(".")
        if not dot:
            raise
        return registry.get(f"{head}:{version}")
