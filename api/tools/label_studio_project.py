"""Events of a Label Studio project: storing annotations in its dataset, and training on it."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from annotation.entries import EXTRA_IMAGE
from annotation.tables import AnnotatedDataset
from api.job_control import start_training
from api.middleware.errors import check
from api.schemas import RequestFields
from api.tools.label_studio_annotations import (
    ReadAnnotation,
    many,
    pairs_of,
    read_annotation,
    summary,
    text_id,
)
from disk_space import check_room
from errors import ValidationFailed
from formats.label_studio_config import check_size, parse_label_config
from jobs.job import Job
from models_store.description import Task
from models_store.names import suggest_name
from models_store.versions import ModelVersion
from nesting import check_json_depth
from serving.annotation_inbox import LEFT_OUT
from serving.gateway import Gateway
from training.planning.options import IncrementalOptions
from training.planning.recipe import Promote, TrainingRequest

log = logging.getLogger("visionloop")

SOURCE = "label_studio:"
LARGEST_EXTRA = 64 * 1024  # characters of the extra parameters
LONGEST_ID = 100  # characters of a project's id in a request
FETCH_PATIENCE = 20.0  # seconds for which a training request waits for images being fetched

CREATED = frozenset({"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED"})
DELETED = frozenset({"ANNOTATION_DELETED", "ANNOTATIONS_DELETED"})


class Extra(RequestFields):
    """The extra parameters of a project's connection."""

    unknown = "note"

    model: str | None = Field(None, max_length=200, description="a model's id or name")
    name: str | None = Field(None, max_length=63, description="a name for the trained model")
    epochs: int = Field(50, ge=1, le=100_000, description="a whole number from 1 (default: 50)")
    imgsz: int | None = Field(None, ge=32, le=4096, description="a whole number from 32 to 4096")
    batch: int = Field(8, ge=1, le=1024, description="a whole number from 1 to 1024 (default: 8)")
    patience: int = Field(15, ge=0, le=10_000, description="a whole number from 0 (default: 15)")
    promote: Promote = Field("never", description="never or auto")
    old_data_path: str | None = Field(
        None,
        max_length=4096,
        description="a data.yaml, a folder with one folder per class, or a dataset's id",
    )

    @classmethod
    def read(cls, given: Any) -> Extra:
        """The parameters from an object, or from JSON text, which Label Studio's form sends.

        Raises:
            ValidationFailed: The value is neither, or a parameter is invalid.
        """
        if isinstance(given, str) and len(given) > LARGEST_EXTRA:
            raise ValidationFailed(
                f"'extra_params' has more than {LARGEST_EXTRA:,} characters. Leave out what is not "
                "a training parameter."
            )
        if isinstance(given, str) and given.strip():
            check_json_depth(given, "'extra_params'")
            try:
                given = json.loads(given)
            except ValueError:
                raise ValidationFailed("'extra_params' must be a JSON object.") from None
        if given and not isinstance(given, dict):
            raise ValidationFailed("'extra_params' must be a JSON object.")
        return check(cls, given or {})


class Incoming(BaseModel):
    """An event of Label Studio's webhooks."""

    model_config = ConfigDict(extra="ignore")

    action: str = Field(max_length=80, description="ANNOTATION_CREATED, START_TRAINING, …")
    project: dict[str, Any] | None = Field(
        None, description="the project, as Label Studio describes it"
    )
    annotation: Any = Field(None, description="an annotation, or a list of them")
    annotations: Any = Field(None, description="a list of deleted annotations")
    task: Any = Field(None, description="the annotation's task, or a list of tasks")
    tasks: Any = Field(None, description="a list of deleted tasks")


def project_source(project: str | dict[str, Any] | None) -> str:
    """The `source` of a project's dataset: the project's id and creation time in epoch seconds.

    Empty if the project is unknown.

    Raises:
        ValidationFailed: The id is neither a number nor a short text.
    """
    if isinstance(project, dict):
        number = project.get("id")
        if not isinstance(number, int | str | None) or len(str(number)) > LONGEST_ID:
            raise ValidationFailed(
                "The project's id must be a number, or a text of at most "
                f"{LONGEST_ID} characters; it is {str(number)[:40]!r}."
            )
        made = str(project.get("created_at") or "")
        try:
            seconds = int(datetime.fromisoformat(made).timestamp())
        except ValueError:
            return f"{SOURCE}{project['id']}" if project.get("id") else ""
        return f"{SOURCE}{project.get('id')}.{seconds}"
    return f"{SOURCE}{project}" if project else ""


def remember(gateway: Gateway, source: str, options: dict[str, Any]) -> AnnotatedDataset:
    """Store the options of a project's connection, if they have changed. Returns its dataset.

    Raises:
        InsufficientStorage: They have changed, and the disk has only the reserve left.
    """
    dataset = gateway.inbox.store.find(source)
    if dataset and all(dataset.options.get(k) == v for k, v in options.items()):
        return dataset
    check_room(gateway.settings)
    number = source[len(SOURCE) :].partition(".")[0]
    name = dataset.name if dataset else f"Label Studio project {number}"
    return gateway.inbox.store.ensure(source, name, options)


async def take(gateway: Gateway, event: Incoming) -> dict[str, Any]:
    """Store the changes of an event; images are fetched after the response.

    Raises:
        ValidationFailed: The event does not have the form of Label Studio's events.
    """
    source = project_source(event.project)
    if not source:
        log.warning("Label Studio sent %s without its content.", event.action)
        return _taken(
            f"{event.action} was sent without its content. Turn on 'Send payload' in the webhook."
        )
    try:
        message, dataset = await asyncio.to_thread(_take, gateway, event, source)
    finally:
        gateway.inbox.wake()
    return _taken(message, dataset)


async def pull(gateway: Gateway, number: int) -> dict[str, Any]:
    """Import a project's finished annotations, such as those made before its webhook was set.

    Annotations that are stored already are not changed.

    Raises:
        Forbidden: VISIONLOOP_LABEL_STUDIO_URL is not set.
        ValidationFailed: Label Studio has no such project, or refuses the token.
        BackendTimeout: Label Studio takes too long.
    """
    images = gateway.inbox.images
    project = await images.document(f"/api/projects/{number}/")
    tasks = await images.document(f"/api/projects/{number}/export?exportType=JSON")
    pairs = [
        {"annotation": annotation, "task": {**task, "annotations": []}}
        for task in many(tasks)
        for annotation in many(task.get("annotations") or [])
    ]
    if not pairs:
        return _taken(f"Project {number} has no finished annotation.")
    event = Incoming(
        action="ANNOTATIONS_CREATED",
        project=project if isinstance(project, dict) else None,
        annotation=[pair["annotation"] for pair in pairs],
        task=[pair["task"] for pair in pairs],
    )
    return await take(gateway, event)


def _take(gateway: Gateway, event: Incoming, source: str) -> tuple[str, AnnotatedDataset | None]:
    store = gateway.inbox.store
    dataset = store.find(source)
    if event.action in CREATED:
        pairs = pairs_of(event.action, event.annotation, event.task)
        dataset = _project(gateway, event, source)
        config = parse_label_config(str(dataset.options.get("label_config") or ""))
        read = [read_annotation(annotation, task, config) for annotation, task in pairs]
        for one in read:  # stored only after all were read without an error
            _receive(gateway, dataset, one)
        return summary(read), dataset
    if dataset is None:
        return f"{event.action} requires no action.", None
    if event.action in DELETED:
        keys = _ids(event.annotations if event.annotations is not None else event.annotation)
        return f"{store.entries.remove(dataset.id, keys=keys)} annotations were removed.", dataset
    if event.action == "TASKS_DELETED":
        gone = store.entries.remove(dataset.id, tasks=_ids(event.tasks))
        return f"{gone} annotations were removed.", dataset
    if event.action == "PROJECT_UPDATED":
        return "The project was updated.", _project(gateway, event, source)
    return f"{event.action} requires no action.", dataset


def _project(gateway: Gateway, event: Incoming, source: str) -> AnnotatedDataset:
    """The dataset of an event's project, with the project's current title and configuration."""
    project = event.project or {}
    title = str(project.get("title") or f"Label Studio project {project.get('id')}")
    options = {}
    if project.get("label_config"):
        options["label_config"] = str(project["label_config"])
        check_size(options["label_config"])
    return gateway.inbox.store.ensure(source, title, options)


def _receive(gateway: Gateway, dataset: AnnotatedDataset, one: ReadAnnotation) -> None:
    """Store an annotation, one row per image; the key of a further image has a suffix."""
    store = gateway.inbox.store
    if one.skipped:
        store.entries.remove(dataset.id, keys=[one.key])
        return
    held = {LEFT_OUT: one.left_out} if one.left_out else {}
    for place, image in enumerate(one.images):
        store.entries.receive(
            dataset.id,
            f"{one.key}{EXTRA_IMAGE}{place}" if place else one.key,
            {"regions": list(image.regions), "by": one.by} | held,
            task=one.task,
            address=image.address,
            rank=one.rank,
            stamp=one.stamp,
        )


async def train(gateway: Gateway, event: Incoming) -> dict[str, Any]:
    """Queue a training on the annotations of a project.

    Raises:
        ValidationFailed, DatasetInvalid: There are no annotations, or too few.
    """
    source = project_source(event.project)
    dataset = await asyncio.to_thread(gateway.inbox.store.find, source) if source else None
    if dataset is None or not await asyncio.to_thread(
        gateway.inbox.store.entries.count, dataset.id
    ):
        raise ValidationFailed(
            "No finished annotation of this project has been received yet, so there is nothing "
            "to train on. Submit some annotations. If there are some already, check the "
            "project's webhook: its URL must be this server's, it must send its payload, and it "
            "must send the admin token as a header if there is one."
        )
    try:
        async with asyncio.timeout(FETCH_PATIENCE):
            await gateway.inbox.bring(dataset.id, again=True)
    except TimeoutError:
        log.warning("Dataset %s: some images are still being fetched.", dataset.id)
    card = await gateway.inbox.build(dataset)
    if waiting := await asyncio.to_thread(_queued, gateway, dataset):
        return _taken("A training of this project is already queued.", dataset, waiting)
    base = gateway.inbox.base(dataset, card["task"])
    wanted, message = training_request(dataset, card["task"], base)
    sent = {"source": dataset.source, "dataset": dataset.id, "message": message}
    job = await start_training(gateway, wanted, sent, base.id if base else None)
    log.info("Label Studio: job %s. %s", job.id, message)
    if left := card["waiting"]:
        message += (
            f" {left} annotations are not included, because their images could not be fetched or "
            f"some of their regions cannot be stored: GET /api/datasets/{dataset.id}/waiting."
        )
    return _taken(message, dataset, job)


def training_request(
    dataset: AnnotatedDataset, task: Task, base: ModelVersion | None
) -> tuple[TrainingRequest, str]:
    """The training request for a project, and a sentence that describes it."""
    extra = check(Extra, {k: v for k, v in dataset.options.items() if k in Extra.model_fields})
    common: dict[str, Any] = {
        "task": task,
        "data": dataset.id,
        "name": suggest_name(extra.name) if extra.name else None,
        "epochs": extra.epochs,
        "imgsz": extra.imgsz,
        "batch": extra.batch,
        "patience": extra.patience,
        "promote": extra.promote,
    }
    if base is None:
        common["name"] = common["name"] or suggest_name(dataset.name)
        return (
            TrainingRequest(mode="regular", model="n", **common),
            f"Regular training: no {task} model is active or promoted to continue from.",
        )
    if base.description.family != "yolo":
        return (
            TrainingRequest(mode="regular", model=base.id, **common),
            f"Regular training from {base.id}, because incremental training needs a YOLO model. "
            "The new version knows only this project's classes and forgets the others.",
        )
    options = IncrementalOptions(old_data=extra.old_data_path)
    return (
        TrainingRequest(mode="incremental", base_model=base.id, incremental=options, **common),
        f"Incremental training from {base.id}.",
    )


def _queued(gateway: Gateway, dataset: AnnotatedDataset) -> Job | None:
    folder = gateway.datasets.folder / dataset.id
    for job in gateway.jobs.list("training", "queued"):
        if Path(job.recipe.get("dataset") or "/").is_relative_to(folder):
            return job
    return None


def _taken(
    message: str, dataset: AnnotatedDataset | None = None, job: Job | None = None
) -> dict[str, Any]:
    named = {"dataset": dataset.id} if dataset else {}
    return {"message": message, **named, **({"job": job.id} if job else {})}


def _ids(value: Any) -> list[str]:
    return [str(row["id"]) for row in many(value) if "id" in row]


def address_of(task: dict[str, Any], key: str) -> str:
    """The URL of a task's image.

    Raises:
        ValidationFailed: The task's data contains no URL.
    """
    data = task.get("data")
    address: Any = data
    for part in key.split("."):
        address = address.get(part) if isinstance(address, dict) else None
    if not isinstance(address, str) or not address:
        has = ", ".join(map(str, data)) if isinstance(data, dict) else "nothing"
        raise ValidationFailed(
            f"Task {text_id(task.get('id'))[:40]} has no image: its data needs '{key[:60]}', as "
            f"the configuration says; it has {has[:200]}."
        )
    return address.strip()
