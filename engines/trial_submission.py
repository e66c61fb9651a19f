"""Trials of engines in the job queue: on request, and by themselves where one is due."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from pydantic import BaseModel, ConfigDict

from errors import Conflict, VisionLoopError
from evaluation.lookup import dataset_reference
from evaluation.recipe import EvaluationRecipe
from evaluation.submission import EvaluationStores
from inference.cpu.engine_choice import choice_folder, onnx_digest, read_choice
from inference.device import device
from inference.engine_files import is_outdated
from jobs.job import Job, Kind
from jobs.states import LIVE
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import Settings

KIND: Kind = "engine"
NEVER_IDLE = "The machine was never idle for long enough to measure the engines."
REPEATS = 5  # of trials that ended so, by themselves
PAUSE = timedelta(hours=1)  # before the first repeat; twice as long before each further one
NO_DATA = (
    "int8 was not tried: the model was not evaluated on a dataset with a train split here. "
    "Evaluate it (POST /metrics/{model_id}/evaluate), and int8 is tried by itself."
)


class TrialRecipe(BaseModel):
    """What the worker reads.

    Attributes:
        model_id: The exact `name:version`.
        evaluation: The data for int8; None: there is none.
        why_not: Why there is none.
        machine: Key of the machine and the ONNX file that it was queued for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: str
    evaluation: EvaluationRecipe | None
    why_not: str = ""
    machine: str


def check_tried_here(settings: Settings) -> None:
    """Check that engines are chosen by measurement here.

    Raises:
        Conflict: They are not: a GPU runs the models.
    """
    if device(settings) != "cpu":
        raise Conflict(
            "A GPU runs the models of this server, and engines are tried on a CPU only. Set "
            "VISIONLOOP_DEVICE=cpu to serve from the CPU."
        )


def submit_trial(stores: EvaluationStores, model_id: str, sent: Mapping[str, Any]) -> Job:
    """The job that tries a model's engines: the one that waits or runs, or a new one.

    Reads the labels of the dataset: call it off the event loop.

    Raises:
        ModelNotFound: There is no such version.
        Conflict: As `check_tried_here`.
        InsufficientStorage, RateLimited: As `JobStore.create`.
    """
    registry = stores.registry
    check_tried_here(registry.settings)
    model = registry.get(model_id)
    for job in stores.jobs.list(KIND, "queued", *LIVE):
        if job.recipe.get("model_id") == model.id and job.status != "stopping":
            return job
    evaluation, why_not = _evaluation(stores, model)
    recipe = TrialRecipe(
        model_id=model.id,
        evaluation=evaluation,
        why_not=why_not,
        machine=_machine(model, registry.settings),
    )
    job = stores.jobs.create(
        KIND,
        config=dict(sent),
        recipe=recipe.model_dump(mode="json"),
        task=model.description.task,
        base_model=model.id,
        model_name=model.name,
    )
    stores.jobs.log_writer(job.id).say(f"Queued: the engines of {model.id} are tried.")
    return job


def submit_due(stores: EvaluationStores) -> list[Job]:
    """Queue the trials that are due; returns their jobs.

    Due is every version that a request can get without naming its version, and the newest of each
    name, unless it has a choice for this CPU and these versions of the programs, or a trial of it
    was queued here before. A version that had no data for int8 is due again once it has, and one
    whose choice was lost. A trial that only failed because the machine was never idle is repeated
    after an hour, and up to `REPEATS` times after ever longer pauses. A version whose ONNX file is
    outdated has to wait until it is made again.
    """
    settings = stores.registry.settings
    if device(settings) != "cpu":
        return []
    stores.registry.refresh()
    jobs = stores.jobs.list(KIND)
    queued = []
    for model in serving_versions(stores.registry):
        if not model.is_here:
            continue  # it is tried where it serves
        if is_outdated(model.path, model.description) and os.access(model.path, os.W_OK):
            continue  # its ONNX file is made again first
        machine = _machine(model, settings)
        before = [
            job
            for job in jobs
            if (job.recipe.get("model_id"), job.recipe.get("machine")) == (model.id, machine)
        ]
        choice = read_choice(model.path, settings)
        if choice is None and before and before[0].status == "completed":  # the newest
            before = []  # its choice was lost: it is in no backup
        if _is_to_be_repeated(before):
            before = []
        if before or choice is not None:
            had_data = any(job.recipe.get("evaluation") for job in before)
            if had_data or (choice is not None and choice.dataset) or not _data_came(stores, model):
                continue
        queued.append(submit_trial(stores, model.id, {}))
    return queued


def _is_to_be_repeated(before: Sequence[Job]) -> bool:
    """Whether the last trials failed for a busy machine only, and another one is due.

    `before` are the trials of a model on this machine, the newest first.
    """
    in_vain = len(list(takewhile(_found_no_rest, before)))
    if not 0 < in_vain <= REPEATS or before[0].finished_at is None:
        return False
    ended = datetime.fromisoformat(before[0].finished_at)
    return datetime.now(UTC) - ended >= PAUSE * 2 ** (in_vain - 1)


def _found_no_rest(job: Job) -> bool:
    return job.status == "failed" and (job.error or "").startswith(NEVER_IDLE)


def serving_versions(registry: Registry) -> Iterator[ModelVersion]:
    """The active version, and the promoted and the newest one of each name, each once."""
    seen: set[str] = set()
    newest: set[str] = set()
    for model in registry.list():  # by name, the newest first
        wanted = model.active or model.promoted or model.name not in newest
        newest.add(model.name)
        if wanted and model.id not in seen:
            seen.add(model.id)
            yield model


def _machine(model: ModelVersion, settings: Settings) -> str:
    """A key of this machine and of the model's ONNX file, which may be made again."""
    return f"{choice_folder(model.path, settings).name}-{onnx_digest(model.files())[:16]}"


def _data_came(stores: EvaluationStores, model: ModelVersion) -> bool:
    """Whether a model without a dataset of its own has been evaluated on one."""
    if not stores.evaluations.history(model.id):
        return False
    return _evaluation(stores, model)[0] is not None


def _evaluation(
    stores: EvaluationStores, model: ModelVersion
) -> tuple[EvaluationRecipe | None, str]:
    """What int8 is evaluated on, or why there is nothing.

    The val split of the model's own data; for a model without such data the dataset of its newest
    evaluation that has a train split.
    """
    reasons = []
    try:
        return stores.plan(model.id, None, None), ""
    except VisionLoopError as error:
        reasons.append(error.message)
    for row in stores.evaluations.history(model.id):
        if row.split == "train":
            continue
        try:
            return stores.plan(model.id, dataset_reference(stores, row), row.split), ""
        except VisionLoopError as error:
            reasons.append(error.message)
    if len(reasons) > 1 or model.source.get("kind") == "train":
        return None, f"int8 was not tried: {reasons[-1]}"
    return None, NO_DATA.format(model_id=model.id)
