"""`/infer`: what a model sees in one picture."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from api import schemas, telemetry
from api.answers import infer_answer
from api.errors import check
from api.exchange import exchange
from api.fetch import fetch
from api.forms import content_type, fields, read_form
from api.gateway import Gateway, Wired
from api.inline_images import from_base64
from api.schemas import (
    FromUrl,
    InferBase64,
    InferForm,
    InferOptions,
    RequestFields,
    errors,
    form_body,
    json_body,
)
from errors import NoFileUploaded, ValidationFailed
from inference.images import check_header
from inference.prediction import InferenceItem

router = APIRouter(tags=["Inference"])

T = TypeVar("T")
Form = TypeVar("Form", bound=FromUrl)

log = logging.getLogger("visionloop")

HINT = " For JSON there is /infer/base64."


class JSON(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content, inf_nan_mode="null")


@router.post(
    "/infer",
    response_model=schemas.InferAnswer,
    responses=errors(400, 403, 404, 413, 503, 504),
    openapi_extra=form_body(InferForm),
)
async def infer(request: Request, gateway: Wired) -> Response:
    """Predict from an uploaded file, or from an address where the operator allows it."""
    image, _, options = await picture_form(request, gateway, InferForm, HINT)
    answer = await unless_gone(request.receive, predict(gateway, image, options))
    return JSON(answer | noted(request, options))


@router.post(
    "/infer/base64",
    response_model=schemas.InferAnswer,
    responses=errors(400, 404, 413, 503, 504),
    openapi_extra=json_body(InferBase64),
)
async def infer_base64(request: Request, gateway: Wired) -> Response:
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


def noted(request: Request, options: RequestFields) -> dict[str, list[str]]:
    """For the answer: what of the request had no effect, if anything. It is logged, too."""
    if options.notes:
        log.info("%s: %s", request.scope["path"], " ".join(options.notes))
    notes = exchange(request.scope).notes + options.notes
    return {"notes": notes} if notes else {}


async def picture_form(
    request: Request, gateway: Gateway, form_of: type[Form], hint: str = ""
) -> tuple[bytes, str, Form]:
    """The picture of a form, its file name, and the form's other fields.

    Raises:
        NoFileUploaded: Neither 'image' nor 'image_url' is there.
        ValidationFailed: Both are, or a field has no legal value.
    """
    if not content_type(request) and not await request.body():
        raise NoFileUploaded("Send the picture as the form's file 'image'.")
    # In memory up to the body limit: spooling to disk from 1 MB on costs more than it saves.
    form = await read_form(request, gateway.settings.max_body_bytes, hint)
    options = check(form_of, fields(form))
    image, name = _uploaded(form)
    if image is not None and options.image_url:
        raise ValidationFailed("Send 'image' or 'image_url', not both.")
    if options.image_url:
        image = await fetch(options.image_url, gateway.settings)
        name = PurePosixPath(urlsplit(options.image_url).path).name
    if image is None:
        raise NoFileUploaded("Send the picture as the form's file 'image'.")
    return image, name, options


async def predict(gateway: Gateway, image: bytes, options: InferOptions) -> dict[str, Any]:
    """The answer of `/infer`: made by the model that is meant when the request comes in."""
    model = gateway.registry.resolve(options.model_id)
    await asyncio.to_thread(check_header, image, gateway.settings.max_pixels)
    item = InferenceItem(
        image,
        model.id,
        confidence=options.confidence,
        iou=options.iou,
        max_det=options.max_det,
        draw=options.draw_boxes,
    )
    result = await gateway.detector.predict(item)
    answer = infer_answer(model.id, result)
    telemetry.record(model.id, result.times)
    gateway.answered(model, item, result, answer)
    return answer


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which ends where the client hangs up: nobody would read it."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _uploaded(form: FormData) -> tuple[bytes | None, str]:
    """The bytes of the file 'image', and its name.

    Browsers send a nameless empty one where none was chosen.
    """
    images = form.getlist("image")
    if len(images) > 1:
        raise ValidationFailed(f"Send one 'image'; got {len(images)}.")
    if not images or images[0] == "":
        return None, ""
    upload = images[0]
    if not isinstance(upload, UploadFile):
        raise NoFileUploaded("'image' is text, not a file. With curl: -F image=@photo.jpg")
    data, name = upload.file.read(), upload.filename or ""
    return (data if data or name else None), PureWindowsPath(name).name
