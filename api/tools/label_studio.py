"""`/label-studio`: the protocol of Label Studio's ML backends (as of 1.23.2).

Label Studio's timeouts: health 1 s, setup 3 s, webhook 1 s for an annotation and 100 s for a
training, predict 100 s for all selected tasks. It requests a prediction again if its version
differs from the one that `setup` returns.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from annotation.preannotation import Preannotation, Share, near
from api.dependencies import GatewayDep
from api.middleware.auth import is_admin, require_admin
from api.predictions import AnnotateOptions, prelabel
from api.requests import json_body
from api.responses import JSON, unless_gone
from api.schemas import errors, json_request_body
from api.tools.label_studio_project import (
    LONGEST_ID,
    Extra,
    Incoming,
    address_of,
    project_source,
    pull,
    remember,
    take,
    train,
)
from errors import BackendTimeout, ValidationFailed, VisionLoopError, our_fault
from formats.annotation_tools import TOOL_OF
from formats.annotations import Annotations
from formats.label_studio import Region
from formats.label_studio_config import check_size, parse_label_config
from formats.label_studio_names import training_names
from models_store.versions import ModelVersion
from serving.annotation_inbox import CONFIG
from serving.gateway import Gateway

router = APIRouter(prefix="/label-studio", tags=["Annotation tools"])

log = logging.getLogger("visionloop")

CONCURRENCY = 8  # maximum number of images fetched and predicted at the same time
TIMEOUT = 85.0  # seconds for all tasks of a request; the results so far are returned then
NOT_STORED = (
    "The labelling configuration and the extra params were not stored, because that needs the "
    "admin token. Predictions do not need them; the project's webhook sends the configuration "
    "with each annotation."
)
FAILED = "failed"  # version of failed predictions, so that Label Studio requests them again


class Health(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    status: str = Field("UP", examples=["UP"])
    model_class: str = "VisionLoop"


class Setup(BaseModel):
    """The request when a project is connected, and often after that."""

    model_config = ConfigDict(extra="ignore")

    project: str = Field("", max_length=LONGEST_ID, description="text, such as 12.1700000000")
    label_config: str | None = Field(None, alias="schema", description="the configuration's XML")
    extra_params: Any = Field(None, description="an object; see Extra")


class Version(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_version: str = Field(description="the models that predict for this project")
    message: str = Field(
        "", description="why some labels are not predicted, and what was not stored"
    )
    dataset: str | None = Field(
        None,
        description=(
            "the dataset of the project's annotations, if this call stored the configuration: "
            "with the admin token"
        ),
    )


class VersionList(BaseModel):
    versions: list[str]


class Predict(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    tasks: list[dict[str, Any]] = Field(description="a list of tasks with their data")
    label_config: str | None = Field(None, description="the configuration's XML")
    project: str | None = Field(None, max_length=LONGEST_ID, description="text")
    model_version: str | None = Field(None, description="id of the preferred model")
    params: dict[str, Any] | None = Field(None, description="an object, of which `context` is used")


class Predicted(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    result: list[dict[str, Any]] = Field(description="regions")
    score: float
    model_version: str
    message: str = Field("", description="why there are no regions")


class Predictions(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    results: list[Predicted] = Field(description="predictions, one per task")
    model_version: str
    message: str = ""


class Taken(BaseModel):
    """How an event was handled."""

    message: str
    dataset: str | None = Field(None, description="the dataset of the annotations")
    job: str | None = Field(None, description="the training that was queued")


@router.get("", response_model=Health)
@router.get("/", response_model=Health, include_in_schema=False)
@router.get("/health", response_model=Health)
async def health() -> Any:
    """Health of the service."""
    return Health()


@router.post(
    "/setup",
    response_model=Version,
    responses=errors(400),
    openapi_extra=json_request_body(Setup),
)
async def setup(request: Request, gateway: GatewayDep) -> Any:
    """The models that would predict for a project. No model is loaded.

    The configuration and the extra params determine what is trained and promoted, so they are
    stored with the admin token only.
    """
    body = await json_body(request, Setup)
    extra = Extra.read(body.extra_params)
    if not body.label_config:
        return Version(model_version="", message="The project has no labelling configuration yet.")
    check_size(body.label_config)
    config = parse_label_config(body.label_config)
    project = gateway.inbox.preannotation(config, extra.model)
    message = " ".join([_log_reasons(body.project, project), *extra.notes]).strip()
    source = project_source(body.project)
    if not source:
        return Version(model_version=project.version, message=message)
    if not is_admin(request):
        return Version(model_version=project.version, message=f"{message} {NOT_STORED}".strip())
    options = {CONFIG: body.label_config, **extra.model_dump()}
    dataset = await asyncio.to_thread(remember, gateway, source, options)
    return Version(model_version=project.version, message=message, dataset=dataset.id)


@router.get("/versions", response_model=VersionList)
async def versions(gateway: GatewayDep) -> Any:
    """The models that are active or promoted."""
    listed = gateway.registry.list()
    return {"versions": [model.id for model in listed if model.active or model.promoted]}


@router.post(
    "/predict",
    response_model=Predictions,
    responses=errors(400, 503, 504),
    openapi_extra=json_request_body(Predict),
)
async def predict(request: Request, gateway: GatewayDep) -> Response:
    """Pre-annotations of tasks: one result per task, also for a task that failed."""
    body = await json_body(request, Predict)
    if not body.label_config:
        raise ValidationFailed("'label_config' is required: the project's labelling interface.")
    check_size(body.label_config)
    config = parse_label_config(body.label_config)
    wanted = body.model_version or await _chosen(gateway, body.project)
    project = gateway.inbox.preannotation(config, wanted)
    _log_reasons(body.project or "", project)
    return JSON(await unless_gone(request.receive, _predictions(gateway, project, body)))


@router.post(
    "/webhook",
    status_code=201,
    response_model=Taken,
    responses=errors(400, 401, 403),
    dependencies=[Depends(require_admin)],
    openapi_extra=json_request_body(Incoming),
)
async def webhook(request: Request, gateway: GatewayDep) -> Any:
    """Store finished annotations in the project's dataset; START_TRAINING trains on it.

    It changes training data, so it needs the admin token, if there is one.
    """
    event = await json_body(request, Incoming)
    if event.action == "START_TRAINING":
        return await train(gateway, event)
    return await take(gateway, event)


@router.post(
    "/pull/{project}",
    status_code=201,
    response_model=Taken,
    responses=errors(400, 401, 403, 504),
    dependencies=[Depends(require_admin)],
)
async def pull_project(project: Annotated[int, Path(ge=1)], gateway: GatewayDep) -> Any:
    """Import annotations from before the project's webhook was connected.

    Needs `VISIONLOOP_LABEL_STUDIO_URL` and its token. Annotations that are already stored are
    not changed.
    """
    return await pull(gateway, project)


async def _chosen(gateway: Gateway, project: str | None) -> str | None:
    """The model in a project's extra parameters; None: none is given."""
    source = project_source(project or "")
    dataset = await asyncio.to_thread(gateway.inbox.store.find, source) if source else None
    return dataset.options.get("model") if dataset else None


def _log_reasons(name: str, project: Preannotation) -> str:
    """Log the reasons why labels are not predicted. Returns them as one text."""
    message = " ".join(project.reasons)
    if message:
        log.warning("Label Studio project %s: %s", name or "?", message)
    return message


async def _predictions(gateway: Gateway, project: Preannotation, body: Predict) -> dict[str, Any]:
    message = " ".join(project.reasons)
    if not project.shares:
        empty = _empty(project.version, message)
        return {"results": [empty] * len(body.tasks)} | _head(project, message)
    gate = asyncio.Semaphore(CONCURRENCY)
    context = (body.params or {}).get("context") or {}
    drawn = context.get("result") if isinstance(context, dict) else None
    work = [
        asyncio.create_task(_guarded(gate, gateway, project, task, drawn or []))
        for task in body.tasks
    ]
    try:
        if work:
            await asyncio.wait(work, timeout=TIMEOUT)
    finally:
        for unfinished in work:
            unfinished.cancel()
    late = BackendTimeout(
        f"The predictions took longer than {TIMEOUT:g} seconds. Request them again."
    )
    results: list[dict[str, Any] | VisionLoopError] = [
        done.result() if done.done() and not done.cancelled() else late for done in work
    ]
    for task, fault in zip(body.tasks, results, strict=True):
        if isinstance(fault, VisionLoopError):
            log.warning("Label Studio task %s: %s", task.get("id"), fault)
    faults = [result for result in results if isinstance(result, VisionLoopError)]
    if faults and len(faults) == len(results):  # all failed: Label Studio must store no result
        raise faults[0]
    rows = [
        _empty(FAILED, str(result)) if isinstance(result, VisionLoopError) else result
        for result in results
    ]
    return {"results": rows} | _head(project, message)


def _head(project: Preannotation, message: str) -> dict[str, Any]:
    return {"model_version": project.version, "message": message}


def _empty(version: str, message: str) -> dict[str, Any]:
    return {"result": [], "score": 0.0, "model_version": version, "message": message}


async def _guarded(
    gate: asyncio.Semaphore,
    gateway: Gateway,
    project: Preannotation,
    task: dict[str, Any],
    drawn: Sequence[dict[str, Any]],
) -> dict[str, Any] | VisionLoopError:
    async with gate:
        try:
            return await _one(gateway, project, task, drawn)
        except VisionLoopError as error:
            return error
        except Exception as error:  # one task's failure must not fail the others
            return our_fault(error, f"Label Studio task {task.get('id')}")


async def _one(
    gateway: Gateway,
    project: Preannotation,
    task: dict[str, Any],
    drawn: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    address = address_of(task, project.config.image_key)
    image = await gateway.inbox.images.get(address)
    regions: list[Region] = []
    notes = list(project.reasons)
    for share in project.shares:
        found = await _prelabels(gateway, share, image, address)
        if drawn and share.kind != "choices":
            found = near(found, drawn)
        elif not drawn:
            await _store(gateway, project, share, image, found)
        written = await asyncio.to_thread(project.regions, share, found)
        regions += written
        if not written:
            notes.append(_why_nothing(share.model, found))
    scores = [float(r["score"]) for r in regions if "score" in r and "parentID" not in r]
    message = " ".join(notes) if not regions else ""
    if message:
        log.info("Label Studio task %s: %s", task.get("id"), message)
    return {
        "result": regions,
        "score": sum(scores) / len(scores) if scores else 0.0,
        "model_version": project.version,
        "message": message,
    }


async def _prelabels(gateway: Gateway, share: Share, image: bytes, address: str) -> Annotations:
    """A model's pre-labels of an image."""
    tool = TOOL_OF[share.task]
    options = AnnotateOptions(tool=tool.value, confidence=share.confidence)
    name = address[-200:] if address[:5] != "data:" else ""
    _, found = await prelabel(gateway, image, options, share.model, name)
    return found


async def _store(
    gateway: Gateway, project: Preannotation, share: Share, image: bytes, found: Annotations
) -> None:
    """Store the pre-labels that an annotator is shown, to compare them with the annotation.

    They are stored with the class names used in training.
    """
    about, tool = share.model.description, TOOL_OF[share.task]
    names = training_names(project.config, about.names, about.keypoint_names or ())
    shown = names.apply(share.write(found))
    await asyncio.to_thread(
        gateway.prelabels.add, image, shown, tool.value, share.model.id, share.confidence
    )


def _why_nothing(model: ModelVersion, found: Annotations) -> str:
    if not len(found):
        return f"{model.id} finds no object in the image."
    counts = Counter(thing.label for thing in found.objects)
    listed = ", ".join(f"{count} × {name}" for name, count in counts.most_common(5))
    return f"{model.id} finds {listed}, which no label of the project maps to."
