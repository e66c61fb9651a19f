"""`/infer`: predictions for images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from api import schemas
from api.dependencies import GatewayDep
from api.groups import RECOGNISE
from api.middleware.auth import require_use
from api.negotiation import PICTURES, wanted_picture
from api.predictions import draw_predictions, predict, predict_each
from api.requests import images_form, json_body
from api.responses import JSON, noted, unless_gone
from api.schemas import (
    InferBase64,
    InferForm,
    InferOptions,
    errors,
    form_body,
    json_request_body,
    picture_answer,
)
from errors import NoFileUploaded, ValidationFailed
from serving.base64_images import decoded
from serving.gateway import Gateway

router = APIRouter(tags=[RECOGNISE], dependencies=[Depends(require_use)])

HINT = " For JSON use /infer/base64."
LONGEST_NOTES = 2000  # characters of the header with the notes; proxies limit all headers
BY_ACCEPT = {"Vary": "Accept"}


@router.post(
    "/infer",
    response_model=schemas.InferAnswer | list[schemas.InferAnswer | schemas.ErrorAnswer],
    responses=picture_answer(*PICTURES) | errors(400, 403, 404, 413, 503, 504),
    openapi_extra=form_body(InferForm),
)
async def infer(request: Request, gateway: GatewayDep) -> Response:
    """Predict for an uploaded image, or for an image URL if the operator allows it.

    Repeat `image` to send several images: the answer is a list in their order, and the entry of an
    image that failed is its error. If no image has a result, the whole answer is an error. With
    `Accept: image/jpeg`, `image/png` or `image/webp` it is the image with the predictions drawn in.
    """
    images, options = await images_form(request, gateway, InferForm, HINT)
    return await _respond(request, gateway, [image for image, _ in images], options)


@router.post(
    "/infer/base64",
    response_model=schemas.InferAnswer,
    responses=picture_answer(*PICTURES) | errors(400, 404, 413, 503, 504),
    openapi_extra=json_request_body(InferBase64),
)
async def infer_base64(request: Request, gateway: GatewayDep) -> Response:
    """Predict for an image inside the JSON body.

    With `Accept: image/jpeg`, `image/png` or `image/webp` the answer is the image with the
    predictions drawn in.
    """
    options = await json_body(request, InferBase64)
    if not options.image_base64:
        raise NoFileUploaded("Send the image as 'image_base64'.")
    return await _respond(request, gateway, [await decoded(options.image_base64)], options)


async def _respond(
    request: Request, gateway: Gateway, images: Sequence[bytes], options: InferOptions
) -> Response:
    picture = wanted_picture(", ".join(request.headers.getlist("accept")))
    answer: Any
    if picture is not None:
        if len(images) > 1:
            raise ValidationFailed(
                f"'Accept' wants {picture}, which holds one image; got {len(images)}. Send one "
                "image a request, or accept application/json."
            )
        work = draw_predictions(gateway, images[0], options, PICTURES[picture])
        drawn, answer = await unless_gone(request.receive, work)
        headers = _about(answer, **noted(request, options)) | BY_ACCEPT
        return Response(drawn, headers=headers, media_type=picture)
    if len(images) == 1:
        answer = await unless_gone(request.receive, predict(gateway, images[0], options))
        return JSON(answer | noted(request, options), headers=BY_ACCEPT)
    answer = await unless_gone(request.receive, predict_each(gateway, images, options))
    notes = noted(request, options)
    entries = [one if "error" in one else one | notes for one in answer]
    return JSON(entries, headers=BY_ACCEPT)


def _about(answer: dict[str, Any], notes: Sequence[str] = ()) -> dict[str, str]:
    """The headers of a drawn image."""
    headers = {
        "X-Model-Id": answer["model_id"],
        "X-Model-Version": answer["model_version"],
        "X-Prediction-Count": str(len(answer["predictions"])),
    }
    while notes and len(json.dumps(notes)) > LONGEST_NOTES:
        notes = notes[:-1]
    return headers | ({"X-Notes": json.dumps(notes)} if notes else {})
