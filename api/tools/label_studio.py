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

from access.scopes import ADMIN, ANNOTATE, TRAIN
from annotation.preannotation import Preannotation, Share, near
from api.dependencies import GatewayDep
from api.groups import TOOLS
from api.middleware.auth import allows, require_annotate, require_for, require_use
from api.middleware.request_state import changed
from api.predictions import AnnotateOptions, prelabel
from api.requests import json_body
from api.responses import JSON, unless_gone
from api.schemas import errors, json_request_body
from api.tools.label_studio_annotations import text_id
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
from serving.fetch import held_briefly
from serving.gateway import Gateway

router = APIRouter(prefix="/label-studio", tags=[TOOLS], dependencies=[Depends(require_use)])

log = logging.getLogger("visionloop")

CONCURRENCY = 8  # maximum number of images fetched and predicted at the same time
TIMEOUT = 85.0  # seconds for all tasks of a request; the results so far are returned then
NOT_STORED = (
    "The labelling configuration and the extra params were not stored, because that needs the "
    "admin token or one with the scope '{scope}'. Predictions do not need them; the project's "
    "webhook sends the configuration with each annotation."
)
FAILED = "failed"  # version of failed predictions, so that Label Studio requests them again
MOST_TASKS = 1000  # in a request
# Maximum number of JSON values in a request: its tasks, with the annotations they already have.
MOST_VALUES = 300_000
MOST_EVENT_VALUES = 1_000_000  # the same for a webhook's event; a mask alone has thousands
MOST_CONTROLS = 64  # of a configuration, that models can fill
MOST_POINTS = 10_000  # of a region that an annotator has drawn
MOST_ANNOTATIONS = 10_000  # of a webhook's event
MESSAGE, TASK_MESSAGE = 4000, 300  # most characters of a message, and of one on a single task
NO_MODEL = "No model fits the project: the 'message' beside 'results' says why."


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
            "the dataset of the project's annotations; only given if this call stored the "
            "configuration, which needs the scope annotate"
        ),
    )


class VersionList(BaseModel):
    versions: list[str]


class Predict(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    tasks: list[dict[str, Any]] = Field(
        max_length=MOST_TASKS,
        description=f"a list of at most {MOST_TASKS:,} tasks with their data",
    )
    label_config: str | None = Field(None, description="the configuration's XML")
    project: str | None = Field(None, max_length=LONGEST_ID, description="text")
    model_version: str | None = Field(None, description="id of the preferred model")
    params: dict[str, Any] | None = Field(None, description="an object, of which `context` is used")


class Predicted(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    result: list[dict[str, Any]] = Field(description="regions")
    score: float
    model_version: str
    message: str = Field("", description="why this task has no regions")


class Predictions(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    results: list[Predicted] = Field(description="predictions, one per task")
    model_version: str
    message: str = Field("", description="why some labels are not predicted")


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

    The configuration and the extra params determine what is trained, so they are stored with the
    admin token or one of the scope `annotate` only; `promote` in them needs the scope `admin`.
    """
    body = await json_body(request, Setup)
    extra = Extra.read(body.extra_params)
    if not body.label_config:
        return Version(model_version="", message="The project has no labelling configuration yet.")
    project = await asyncio.to_thread(_planned, gateway, body.label_config, extra.model)
    message = " ".join([_log_reasons(body.project, project), *extra.notes]).strip()
    source = project_source(body.project)
    if not source:
        return Version(model_version=project.version, message=message)
    needed = ADMIN if extra.promote != "never" else ANNOTATE
    if not allows(request, needed):
        refusal = NOT_STORED.format(scope=needed)
        return Version(model_version=project.version, message=f"{message} {refusal}".strip())
    options = {CONFIG: body.label_config, **extra.model_dump()}
    dataset = await asyncio.to_thread(remember, gateway, source, options)
    changed("stored the configuration of a Label Studio project", dataset.id)
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
    body = await json_body(request, Predict, most=MOST_VALUES)
    if not body.label_config:
        raise ValidationFailed("'label_config' is required: the project's labelling interface.")
    drawn = _drawn(body)
    wanted = body.model_version or await _chosen(gateway, body.project)
    project = await asyncio.to_thread(_planned, gateway, body.label_config, wanted)
    _log_reasons(body.project or "", project)
    return JSON(await unless_gone(request.receive, _predictions(gateway, project, body, drawn)))


@router.post(
    "/webhook",
    status_code=201,
    response_model=Taken,
    responses=errors(400, 401, 403),
    dependencies=[Depends(require_annotate)],
    openapi_extra=json_request_body(Incoming),
)
async def webhook(request: Request, gateway: GatewayDep) -> Any:
    """Store finished annotations in the project's dataset; START_TRAINING trains on it.

    It changes training data, so it needs the admin token or one of the scope `annotate`, if the
    server needs tokens; START_TRAINING needs the scope `train`.
    """
    event = await json_body(request, Incoming, most=MOST_EVENT_VALUES)
    if event.action == "START_TRAINING":
        require_for(TRAIN, "START_TRAINING")
        return await train(gateway, event)  # the audit trail has it as a training
    if isinstance(event.annotation, list) and len(event.annotation) > MOST_ANNOTATIONS:
        raise ValidationFailed(
            f"The event has more than {MOST_ANNOTATIONS:,} annotations. To import all of a "
            "project: POST /label-studio/pull/{project}."
        )
    taken = await take(gateway, event)
    changed(event.action, taken.get("dataset"))
    return taken


@router.post(
    "/pull/{project}",
    status_code=201,
    response_model=Taken,
    responses=errors(400, 401, 403, 504),
    dependencies=[Depends(require_annotate)],
)
async def pull_project(project: Annotated[int, Path(ge=1)], gateway: GatewayDep) -> Any:
    """Import annotations from before the project's webhook was connected.

    Needs `VISIONLOOP_LABEL_STUDIO_URL` and its token. Annotations that are already stored are
    not changed.
    """
    taken = await pull(gateway, project)
    changed(f"pulled the annotations of project {project}", taken.get("dataset"))
    return taken


async def _chosen(gateway: Gateway, project: str | None) -> str | None:
    """The model in a project's extra parameters; None: none is given."""
    source = project_source(project or "")
    dataset = await asyncio.to_thread(gateway.inbox.store.find, source) if source else None
    return dataset.options.get("model") if dataset else None


def _planned(gateway: Gateway, text: str, wanted: str | None) -> Preannotation:
    """The models for a labelling configuration.

    Raises:
        ValidationFailed: It is invalid, too long, or has too many controls.
    """
    check_size(text)
    config = parse_label_config(text)
    if len(config.controls) > MOST_CONTROLS:
        raise ValidationFailed(
            f"The labelling configuration has {len(config.controls):,} controls that models can "
            f"fill; {MOST_CONTROLS} are allowed. Divide the project, or remove controls."
        )
    return gateway.inbox.preannotation(config, wanted)


def _drawn(body: Predict) -> Sequence[dict[str, Any]]:
    """The last region that the annotator has drawn, as a list; empty if there is none.

    Raises:
        ValidationFailed: It has too many points.
    """
    context = (body.params or {}).get("context")
    regions = context.get("result") if isinstance(context, dict) else None
    last = regions[-1] if isinstance(regions, list) and regions else None
    if not isinstance(last, dict):
        return []
    value = last.get("value")
    points = value.get("points") if isinstance(value, dict) else None
    if isinstance(points, list) and len(points) > MOST_POINTS:
        raise ValidationFailed(
            f"The drawn region has more than {MOST_POINTS:,} points. Draw it with fewer."
        )
    return [last]


def _log_reasons(name: str, project: Preannotation) -> str:
    """Log the reasons why labels are not predicted. Returns them as one text."""
    message = _reasons(project)
    if message:
        log.warning("Label Studio project %s: %s", name or "?", message)
    return message


def _reasons(project: Preannotation) -> str:
    return _short(" ".join(project.reasons), MESSAGE)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


async def _predictions(
    gateway: Gateway, project: Preannotation, body: Predict, drawn: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    head = {"model_version": project.version, "message": _reasons(project)}
    if not project.shares:
        return {"results": [_empty(project.version, NO_MODEL)] * len(body.tasks)} | head
    late = BackendTimeout(
        f"The predictions took longer than {TIMEOUT:g} seconds. Request them again."
    )
    results: list[dict[str, Any] | VisionLoopError] = [late] * len(body.tasks)
    waiting = iter(enumerate(body.tasks))

    async def work() -> None:
        for place, task in waiting:
            async with gateway.tool_tasks:
                results[place] = await _guarded(gateway, project, task, drawn)

    workers = [asyncio.create_task(work()) for _ in range(min(CONCURRENCY, len(body.tasks)))]
    try:
        if workers:
            await asyncio.wait(workers, timeout=TIMEOUT)
    finally:
        for worker in workers:
            worker.cancel()
    _log_results(body, results)
    faults = [result for result in results if isinstance(result, VisionLoopError)]
    if faults and len(faults) == len(results):  # all failed: Label Studio must store no result
        raise faults[0]
    rows = [
        _empty(FAILED, str(result)) if isinstance(result, VisionLoopError) else result
        for result in results
    ]
    return {"results": rows} | head


def _log_results(body: Predict, results: Sequence[dict[str, Any] | VisionLoopError]) -> None:
    """Log how many tasks failed, and how many have no regions, each with the first one's reason.

    At most one line for the failed tasks and one for those without regions, not one per task: a
    small request can have very many tasks.
    """
    failed: list[str] = []
    without: list[str] = []
    for task, result in zip(body.tasks, results, strict=True):
        if isinstance(result, VisionLoopError):
            failed.append(f"task {_id(task)}: {_short(str(result), TASK_MESSAGE)}")
        elif result["message"]:
            without.append(f"task {_id(task)}: {result['message']}")
    name, total = body.project or "?", len(results)
    if failed:
        first = "Label Studio project %s: %d of %d tasks failed, the first is %s"
        log.warning(first, name, len(failed), total, failed[0])
    if without:
        first = "Label Studio project %s: %d of %d tasks have no regions, the first is %s"
        log.info(first, name, len(without), total, without[0])


def _id(task: dict[str, Any]) -> str:
    return text_id(task.get("id"))[:40] or "?"


def _empty(version: str, message: str) -> dict[str, Any]:
    return {"result": [], "score": 0.0, "model_version": version} | {
        "message": _short(message, TASK_MESSAGE)
    }


async def _guarded(
    gateway: Gateway,
    project: Preannotation,
    task: dict[str, Any],
    drawn: Sequence[dict[str, Any]],
) -> dict[str, Any] | VisionLoopError:
    try:
        return await _one(gateway, project, task, drawn)
    except VisionLoopError as error:
        return error
    except Exception as error:  # one task's failure must not fail the others
        return our_fault(error, f"Label Studio task {_id(task)}")


async def _one(
    gateway: Gateway,
    project: Preannotation,
    task: dict[str, Any],
    drawn: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    address = address_of(task, project.config.image_key)
    with held_briefly():
        image = await gateway.inbox.images.get(address)
        return await _of_image(gateway, project, address, image, drawn)


async def _of_image(
    gateway: Gateway,
    project: Preannotation,
    address: str,
    image: bytes,
    drawn: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    regions: list[Region] = []
    notes: list[str] = []
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
    message = _short(" ".join(notes), TASK_MESSAGE) if not regions else ""
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

    def store() -> None:
        names = training_names(project.config, about.names, about.keypoint_names or ())
        shown = names.apply(share.write(found))
        gateway.prelabels.add(image, shown, tool.value, share.model.id, share.confidence)

    await asyncio.to_thread(store)


def _why_nothing(model: ModelVersion, found: Annotations) -> str:
    if not len(found):
        return f"{model.id} finds no object in the image."
    counts = Counter(thing.label for thing in found.objects)
    listed = ", ".join(f"{count} × {name}" for name, count in counts.most_common(5))
    return f"{model.id} finds {listed}, which no label of the project maps to."
