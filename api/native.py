"""BentoML's native routes, for `bentoml.SyncHTTPClient`, with the responses of our own routes."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentoml.exceptions import BadInput
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse

from api.middleware.errors import check, explain
from api.schemas import InferOptions, RequestFields
from errors import ValidationFailed, VisionLoopError
from field_names import Unknown, UnknownField, notes_on
from serving import bentoml_patches

if TYPE_CHECKING:
    from serving.gateway import Gateway


log = logging.getLogger("visionloop")

_notes: ContextVar[list[str]] = ContextVar("notes")  # notes on the request being handled

LEGAL = {name: field.description or "" for name, field in InferOptions.model_fields.items()}
LEGAL |= {"return_annotated_image": "0 or 1"}


class Predict(BaseModel):
    """The form of `/predict`: the fields of `/infer`."""

    model_config = ConfigDict(protected_namespaces=())

    image: Path
    model_id: str = ""
    draw_boxes: bool = False
    confidence: float | None = None
    iou: float | None = None
    max_det: int | None = None
    classes: str = ""


class Annotate(BaseModel):
    """The form of `/annotate`: the fields of `/api/auto_annotate`, which checks them."""

    image: Path
    tool: str
    model: str = ""
    confidence: float | None = None
    iou: float | None = None
    return_annotated_image: bool = False
    format: str = ""
    tiles: str = ""


def check_names(request: Request, names: list[str], cls: type[BaseModel]) -> None:
    """Check the names of a request's body fields and query parameters.

    A name without effect is listed in the request's notes. These routes have no query parameters.

    Raises:
        BadInput: A name is refused, or a body field was sent in the query.
    """
    known = list(cls.model_fields)
    policy: Unknown = "note" if "image" in known else "refuse"
    query = list(request.query_params)
    if wrong := next((name for name in query if name in known), None):
        raise BadInput(f"{wrong!r} belongs in the body, not in the query: send it there.")
    try:
        notes = notes_on(names + query, known, policy)
    except UnknownField as error:
        raise BadInput(str(error)) from None
    if notes:
        log.info("%s: %s", request.url.path, " ".join(notes))
    _notes.set(notes)


def _noted(answer: dict[str, Any], options: RequestFields) -> dict[str, Any]:
    notes = _notes.get([]) + options.notes
    return answer | {"notes": notes} if notes else answer


bentoml_patches.refuse_urls_as_files()
bentoml_patches.check_fields(
    check_names, lambda error: explain(error.errors(include_url=False), LEGAL)
)


async def predict(gateway: Gateway, image: Path, **options: Any) -> Any:
    """The response of `/infer`, or its error response (BentoML would turn an exception to 500)."""
    from api import predictions  # late: the runners import this file, but must not import FastAPI

    try:
        data = await asyncio.to_thread(image.read_bytes)
        asked = check(InferOptions, options)
        return _noted(await predictions.predict(gateway, data, asked), asked)
    except VisionLoopError as error:
        return bentoml_patches.RaisingResponse(error)


async def annotate(gateway: Gateway, image: Path, **options: Any) -> Any:
    """The response of `/api/auto_annotate`, or its error response."""
    from api import predictions
    from api.predictions import AnnotateOptions

    try:
        data = await asyncio.to_thread(image.read_bytes)
        asked = check(AnnotateOptions, options)
        return _noted(await predictions.annotate(gateway, data, asked), asked)
    except VisionLoopError as error:
        return bentoml_patches.RaisingResponse(error)


async def train(gateway: Gateway, parameters: dict[str, Any]) -> Any:
    """The response of `/tasks/train`: the ended job in the form of `/jobs`, or an error.

    `parameters` are the body of `/train`, or the fields of the second client family with a `mode`.
    """
    from api.job_control import check_promotion, ended, start_training, view
    from api.training_fields import Train, request_of, request_with

    try:
        if {"model_id", "dataset_path"} & set(parameters):
            body = check(Train, parameters)
            wanted, base = request_of(body), body.model_id
        else:
            wanted, base = request_with(parameters), None
        check_promotion(wanted)
        job = await start_training(gateway, wanted, parameters, base)
        return view(gateway, await ended(gateway, job.id))
    except VisionLoopError as error:
        return JSONResponse(error.to_json(), error.status)


async def evaluate(gateway: Gateway, parameters: dict[str, Any]) -> Any:
    """The response of `/tasks/evaluate`: the ended job in the form of `/jobs`, or an error."""
    from api.evaluation_jobs import Evaluate, start_evaluation
    from api.job_control import ended, view

    try:
        model_id = parameters.get("model_id")
        if not isinstance(model_id, str) or not model_id.strip():
            raise ValidationFailed("'model_id' is required: the id of the model to evaluate.")
        more = {name: value for name, value in parameters.items() if name != "model_id"}
        fields = check(Evaluate, more)
        job = await start_evaluation(gateway, model_id, fields)
        return view(gateway, await ended(gateway, job.id))
    except VisionLoopError as error:
        return JSONResponse(error.to_json(), error.status)
