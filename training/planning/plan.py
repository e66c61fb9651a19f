"""What one training job is going to do: `plan` turns a request into a checked `Recipe`.

Everything that can be known before a job waits in the queue is decided here: paths, base model,
name, sizes. A recipe is stored as JSON in the job's row; the trainers read nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dataset.allowed_roots import data_roots
from dataset.store import Datasets
from errors import ModelNotFound, ValidationFailed, VisionLoopError
from jobs.store import JOB_ID, JobStore
from models_store.description import Task
from models_store.names import check_name
from models_store.registry import Registry
from settings import Settings
from training.planning.base_models import BaseNetwork, architecture_yaml, choose_base
from training.planning.compatibility import check_lesson, check_teacher
from training.planning.hyperparameters import check_hyperparameters
from training.planning.options import (
    MAX_REPLAY_RATIO,
    DistillationOptions,
    IncrementalOptions,
    ReplayOptions,
)
from training.planning.recipe import TASKS, Recipe, TrainingRequest

if TYPE_CHECKING:
    from dataset.dataset import Dataset


EPOCHS = range(1, 100_001)
IMGSZ = range(32, 4097)
BATCH = range(1, 1025)
PATIENCE = range(10_001)  # 0: never stop early
STAGE_EPOCHS = range(1, 10_001)
STAGES: dict[Task, int] = dict.fromkeys(TASKS, 3) | {"classify": 2}
"""Of the freeze strategy: head, neck, backbone; a classifier has no neck."""


def plan(
    request: TrainingRequest, registry: Registry, datasets: Datasets, settings: Settings
) -> Recipe:
    """Resolve and check a request.

    The data set itself is read too (labels, class names), so call this off the event loop.

    Raises:
        ValidationFailed: A field is missing or out of range; the message names it.
        ModelNotFound, JobNotFound, InvalidModelFile: The base model is not there, or cannot be
            one.
        DatasetInvalid, DatasetNotFound, Forbidden: The data set is not there, wrong, or outside
            the allowed roots.
    """
    from dataset.inspection import check  # OpenCV; a worker that reads its recipe needs none yet

    task = _task(request.task)
    for field, allowed in {"epochs": EPOCHS, "batch": BATCH, "patience": PATIENCE}.items():
        _in_range(field, getattr(request, field), allowed)
    _in_range("min_epochs_per_stage", request.min_epochs_per_stage, STAGE_EPOCHS)
    if request.imgsz is not None:
        _in_range("imgsz", request.imgsz, IMGSZ)
    if not (request.data or "").strip():
        raise ValidationFailed(
            "data_path (dataset_path) is missing: give a data.yaml, a folder with one folder per "
            "class, or the id of an uploaded data set."
        )
    base, notes = _base(request, task, registry, settings)
    task = base.task
    if base.family == "mobilenet" and request.mode != "regular":
        raise ValidationFailed(
            f"mode {request.mode} is for YOLO models; train a MobileNet with mode regular."
        )
    hyper = check_hyperparameters(request.hyper, base.family, task)
    name = check_name((request.name or "").strip() or base.default_name)
    path = datasets.resolve((request.data or "").strip())
    incremental = distillation = teacher = old = None
    if request.mode == "incremental":
        options = request.incremental or IncrementalOptions()
        incremental, old = _replay(options, task, datasets, settings)
    elif request.mode == "distillation":
        distillation = request.distillation or DistillationOptions()
        teacher = _teacher(distillation, task, registry, settings)
        distillation, old = _replay(distillation, task, datasets, settings)
    replay = incremental or distillation
    if replay is not None and replay.replays and hyper.get("fraction", 1.0) != 1.0:
        raise ValidationFailed(
            f"fraction is {hyper['fraction']:g}: with old_data_path it would leave out the old "
            "pictures first. Give a smaller data set, or max_replay_samples."
        )
    found = check(path, task, data_roots(settings), 1 if incremental else 2)
    old_base = None
    if incremental is not None and base.kind == "job":
        old_base, told = _held(base, registry, settings)
        notes += (told,)
    origin = old_base or base
    known = registry.get(origin.value).description if origin.kind == "model" else None
    if incremental is not None:
        check_lesson(found, old, known, incremental.new_classes)
        if old is None:
            notes += _old_data_at_hand(origin, path, registry, datasets)
    if teacher is not None and teacher.kind == "model" and distillation is not None:
        student = architecture_yaml(base.value) if base.kind == "scratch" else None
        student = known.architecture if known else student
        taught = registry.get(teacher.value).description
        check_teacher(found, old if distillation.replays else None, student, taught)
    imgsz, more = _imgsz(request.imgsz, base)
    notes = (base.sentence, *notes, *more)
    stage = request.min_epochs_per_stage
    if request.mode == "freeze_strategy" and request.use_freeze_strategy:
        stage, more = _stage_epochs(stage, request.epochs, STAGES[task])
        notes += more
    return Recipe(
        mode=request.mode,
        family=base.family,
        task=task,
        base=base,
        dataset=str(path),
        name=name,
        epochs=request.epochs,
        imgsz=imgsz,
        batch=request.batch,
        patience=request.patience,
        use_freeze_strategy=request.use_freeze_strategy,
        min_epochs_per_stage=stage,
        promote=request.promote,
        hyper=hyper,
        incremental=incremental,
        old_base=old_base,
        distillation=distillation,
        teacher=teacher,
        notes=notes,
    )


def _base(
    request: TrainingRequest, task: Task | None, registry: Registry, settings: Settings
) -> tuple[BaseNetwork, tuple[str, ...]]:
    """What is trained on; in the learning modes `base_model` goes before the other fields."""
    wanted = (request.base_model or "").strip()
    if request.mode == "incremental":
        if not wanted:
            raise ValidationFailed(
                "base_model_path is missing: incremental training goes on from a model. Give its "
                f"id ({_known(registry)}) or the path of a weights file."
            )
        notes: tuple[str, ...] = ()
        resumed = (request.weights or "").strip()
        if JOB_ID.fullmatch(resumed):  # an interrupted lesson goes on
            return choose_base(None, resumed, task, registry, settings), ()
        if resumed:
            notes = ("resume_weights is not used: incremental starts from base_model_path.",)
        with _about("base_model_path"):
            return choose_base(None, wanted, task, registry, settings), notes
    if request.mode == "distillation" and wanted and not (request.weights or "").strip():
        with _about("base_model_path"):
            return choose_base(request.model, wanted, task, registry, settings), ()
    return choose_base(request.model, request.weights, task, registry, settings), ()


def _held(
    base: BaseNetwork, registry: Registry, settings: Settings
) -> tuple[BaseNetwork | None, str]:
    """What an interrupted lesson began with, if it is still there; and a sentence about it."""
    recipe = JobStore(registry.database).get(base.value).recipe
    if recipe.get("mode") == "incremental":
        origin = BaseNetwork.model_validate(recipe.get("old_base") or recipe["base"])
        try:
            if origin.kind == "model":
                registry.get(origin.value)
            return origin, f"It holds on to {origin.shown}, which that job began with."
        except ModelNotFound:
            pass
    return None, "It will hold on to what these weights know, not to base_model_path."


def _teacher(
    options: DistillationOptions, task: Task, registry: Registry, settings: Settings
) -> BaseNetwork:
    if task == "pose":
        raise ValidationFailed(
            "Distillation is for detect, segment and classify, not for pose. Train with mode "
            "regular, which may start from the larger model's weights."
        )
    wanted = (options.teacher or "").strip()
    if not wanted:
        raise ValidationFailed(
            "teacher_model_path is missing: distillation follows a teacher. Give the id of a "
            f"larger model ({_known(registry)}) or the path of a weights file."
        )
    with _about("teacher_model_path"):
        return choose_base(None, wanted, task, registry, settings)


@contextmanager
def _about(field: str) -> Iterator[None]:
    """Say of which field an error speaks."""
    try:
        yield
    except VisionLoopError as error:
        raise type(error)(f"{field}: {error.message}") from error


def _known(registry: Registry) -> str:
    names = sorted({version.name for version in registry.list()})
    return f"GET /models has {', '.join(names[:8])}" if names else "GET /models lists them"


Options = TypeVar("Options", bound=ReplayOptions)


def _replay(
    options: Options, task: Task, datasets: Datasets, settings: Settings
) -> tuple[Options, Dataset | None]:
    """With the old data's path found; and the old data."""
    from dataset.inspection import check  # OpenCV, as above

    if options.replay_ratio > MAX_REPLAY_RATIO:
        raise ValidationFailed(
            f"replay_ratio is {options.replay_ratio:g}; allowed is 0 to {MAX_REPLAY_RATIO:g}, "
            "which is nine old pictures for each new one."
        )
    if not (old := (options.old_data or "").strip()):
        return options.model_copy(update={"old_data": None}), None
    with _about("old_data_path"):
        path = datasets.resolve(old)
        found = check(path, task, data_roots(settings), min_classes=1)
    return options.model_copy(update={"old_data": str(path)}), found


def _old_data_at_hand(
    origin: BaseNetwork, path: Path, registry: Registry, datasets: Datasets
) -> tuple[str, ...]:
    """Where the old pictures are that nobody gave, if a model was trained here on an upload."""
    source = registry.get(origin.value).source if origin.kind == "model" else {}
    known = str(source.get("dataset") or "")
    try:
        if not known or datasets.resolve(known) == path:
            return ()
    except VisionLoopError:  # deleted, or only a folder's name is known
        return ()
    return (
        f"No old pictures are replayed. {origin.shown} was trained on '{known}', which is "
        "still there: give it as old_data_path to forget less.",
    )


def _task(text: str | None) -> Task | None:
    wanted = (text or "").strip().lower()
    if not wanted:
        return None
    for task in TASKS:
        if task == wanted:
            return task
    raise ValidationFailed(f"task is {wanted[:40]!r}; allowed are {', '.join(TASKS)}.")


def _in_range(field: str, value: int, allowed: range) -> None:
    if value not in allowed:
        raise ValidationFailed(f"{field} is {value}; allowed is {allowed[0]} to {allowed[-1]}.")


def _imgsz(wanted: int | None, base: BaseNetwork) -> tuple[int, tuple[str, ...]]:
    size = wanted or base.imgsz or (224 if base.task == "classify" else 640)
    if base.family == "mobilenet":
        return size, ()
    rounded = -(-size // 32) * 32
    if rounded == size:
        return size, ()
    return rounded, (f"imgsz {size} was rounded up to {rounded}, a multiple of the stride 32.",)


def _stage_epochs(wanted: int, epochs: int, stages: int) -> tuple[int, tuple[str, ...]]:
    """All stages must fit in."""
    possible = max(1, min(wanted, epochs // stages))
    if possible == wanted:
        return wanted, ()
    return possible, (
        f"min_epochs_per_stage was lowered from {wanted} to {possible}, so that {stages} stages "
        f"fit into {epochs} epochs.",
    )
