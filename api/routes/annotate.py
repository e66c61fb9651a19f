"""`/api/auto_annotate`: pre-labels of one image, in the format of an annotation tool."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import GatewayDep
from api.groups import ANNOTATE
from api.middleware.auth import require_use
from api.predictions import AnnotateOptions, annotate
from api.requests import image_form
from api.responses import JSON, noted, unless_gone
from api.schemas import FromUrl, Size, errors, form_body
from formats.annotation_tools import TOOLS

router = APIRouter(prefix="/api", tags=[ANNOTATE], dependencies=[Depends(require_use)])


class AnnotateForm(AnnotateOptions, FromUrl):
    """The form of `/api/auto_annotate`."""


class DatabaseInfo(BaseModel):
    image_id: int = Field(description="id of the stored image; equal files have the same id")
    annotation_count: int = Field(description="objects that were found")


class AnnotateAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    annotations: list[Any] = Field(
        description="Label Studio's regions (percent), COCO's annotations, LabelMe's shapes "
        "(pixels), or YOLO's lines (fractions)"
    )
    annotated_image: str | None = Field(
        description="the image with the objects drawn in, as a data URI; only if requested"
    )
    database_info: DatabaseInfo
    model_id: str
    tool: str
    format: str
    image: Size
    document: Any = Field(
        description="the same annotations as a complete file that the tool imports"
    )
    inference_time: float = Field(description="time in the neural network, in milliseconds")
    notes: list[str] = Field(
        [], description="sentences about fields that had no effect; absent if there are none"
    )


class ToolAnswer(BaseModel):
    value: str
    label: str


@router.get("/tools", response_model=list[ToolAnswer])
async def list_tools() -> Any:
    """The values of `tool`."""
    return [{"value": tool.value, "label": tool.label} for tool in TOOLS.values()]


@router.post(
    "/auto_annotate",
    response_model=AnnotateAnswer,
    responses=errors(400, 403, 404, 413, 503, 504),
    openapi_extra=form_body(AnnotateForm),
)
async def auto_annotate(request: Request, gateway: GatewayDep) -> Response:
    """Boxes, polygons, key points or the class of an image, as pre-labels to correct."""
    image, name, options = await image_form(request, gateway, AnnotateForm)
    work = annotate(gateway, image, options, name)
    return JSON(await unless_gone(request.receive, work) | noted(request, options))
