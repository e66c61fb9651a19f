"""`/infer`: what a model sees in one picture."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request, Response

from api import schemas
from api.dependencies import GatewayDep
from api.middleware.errors import check
from api.predictions import predict
from api.requests import content_type, picture_form
from api.responses import JSON, noted, unless_gone
from api.schemas import (
    InferBase64,
    InferForm,
    errors,
    form_body,
    json_request_body,
)
from errors import NoFileUploaded, ValidationFailed
from serving.base64_images import from_base64

router = APIRouter(tags=["Inference"])


log = logging.getLogger("visionloop")

HINT = " For JSON there is /infer/base64."


@router.post(
    "/infer",
    response_model=schemas.InferAnswer,
    responses=errors(400, 403, 404, 413, 503, 504),
    openapi_extra=form_body(InferForm),
)
async def infer(request: Request, gateway: GatewayDep) -> Response:
    """Predict from an uploaded file, or from an address where the operator allows it."""
    image, _, options = await picture_form(request, gateway, InferForm, HINT)
    answer = await unless_gone(request.receive, predict(gateway, image, options))
    return JSON(answer | noted(request, options))


@router.post(
    "/infer/base64",
    response_model=schemas.InferAnswer,
    responses=errors(400, 404, 413, 503, 504),
    openapi_extra=json_request_body(InferBase64),
)
async def infer_base64(request: Request, gateway: GatewayDep) -> Response:
    """Predict from an image inside the JSON body."""
    kind = content_type(request)
    if kind != "application/json":
        raise ValidationFailed(f"'Content-Type' must be application/json; got {kind!r:.60}.")
    options = check(InferBase64, await request.body() or b"{}")
    if not options.image_base64:
        raise NoFileUploaded("Send the picture as 'image_base64'.")
    image = from_base64(options.image_base64)
    answer = await unless_gone(request.receive, predict(gateway, image, options))
    return JSON(answer | noted(request, options))
