"""`/infer`: predictions for one image."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api import schemas
from api.dependencies import GatewayDep
from api.predictions import predict
from api.requests import image_form, json_body
from api.responses import JSON, noted, unless_gone
from api.schemas import (
    InferBase64,
    InferForm,
    errors,
    form_body,
    json_request_body,
)
from errors import NoFileUploaded
from serving.base64_images import decoded

router = APIRouter(tags=["Inference"])

HINT = " For JSON use /infer/base64."


@router.post(
    "/infer",
    response_model=schemas.InferAnswer,
    responses=errors(400, 403, 404, 413, 503, 504),
    openapi_extra=form_body(InferForm),
)
async def infer(request: Request, gateway: GatewayDep) -> Response:
    """Predict for an uploaded image, or for an image URL if the operator allows it."""
    image, _, options = await image_form(request, gateway, InferForm, HINT)
    answer = await unless_gone(request.receive, predict(gateway, image, options))
    return JSON(answer | noted(request, options))


@router.post(
    "/infer/base64",
    response_model=schemas.InferAnswer,
    responses=errors(400, 404, 413, 503, 504),
    openapi_extra=json_request_body(InferBase64),
)
async def infer_base64(request: Request, gateway: GatewayDep) -> Response:
    """Predict for an image inside the JSON body."""
    options = await json_body(request, InferBase64)
    if not options.image_base64:
        raise NoFileUploaded("Send the image as 'image_base64'.")
    image = await decoded(options.image_base64)
    answer = await unless_gone(request.receive, predict(gateway, image, options))
    return JSON(answer | noted(request, options))
