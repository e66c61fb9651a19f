"""What one training job is going to do: `plan` turns a request into a checked `Recipe`.

Everything that can be known before a job waits in the queue is decided here: paths, base model,
name, sizes. A recipe is stored as JSON in the job's row; the trainers read nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from errors import ValidationFailed
from models_store.description import Family, Task
from models_store.names import check_name
from models_store.registry import Registry
from settings import Settings
from training.base_models import Base, choose_base
from training.data_roots import data_roots
from training.hyperparameters import check_hyperparameters

Mode = Literal["regular", "freeze_strategy", "incremental", "distillation"]
AVAILABLE: tuple[Mode, ...] = ("regular", "freeze_strategy")
TASKS: tuple[Task, ...] = ("detect", "segment", "classify", "pose")

EPOCHS = range(1, 100_001)
IMGSZ = range(32, 4097)
BATCH = range(1, 1025)
PATIENCE = range(10_001)  # 0: never stop early
STAGE_EPOCHS = range(1, 10_001)
STAGES = 3  # of the freeze strategy: head, neck, backbone


class TrainingRequest(BaseModel):
    """What both client families ask for, under neutral names; the views only rename fields.

    An empty text is the same as None. `model` is a scale (`n s m l x`), an architecture by name
    (`yolo11n`, `mobilenet`), a model id or a path. `imgsz` None: the base model's size, else 640,
    or 224 for classification. `task` None: the base model's task, else detect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "regular"
    task: str | None = None
    model: str = "s"
    weights: str | None = None  # resume_weights: start from these instead of `model`
    data: str | None = None  # path, or the id of an uploaded data set
    name: str | None = None  # of the published model
    epochs: int = 50
    imgsz: int | None = None
    batch: int = 8
    patience: int = 15
    use_freeze_strategy: bool = True
    min_epochs_per_stage: int = 15
    promote: bool = False
    hyper: dict[str, Any] = Field(default_factory=dict)


class Recipe(BaseModel):
    """The checked, resolved description of one training job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode
    family: Family
    task: Task
    base: Base
    dataset: str  # absolute path of the data.yaml or class-folder root
    name: str
    epochs: int
    imgsz: int
    batch: int
    patience: int
    use_freeze_strategy: bool = True
    min_epochs_per_stage: int = 15
    promote: bool = False
    hyper: dict[str, Any] = Field(default_factory=dict)  # only what was asked for
    notes: tuple[str, ...] = ()  # sentences for the log and the answer's config

    @property
    def parent(self) -> str | None:
        """The id of the registry's model that this one is made from."""
        return self.base.value if self.base.kind == "model" else None

    @property
    def seed(self) -> int:
        return int(self.hyper.get("seed", 0))


class Datasets(Protocol):
    """The part of `training.datasets.DatasetStore` that planning needs."""

    def resolve(self, reference: str) -> Path:
        """The path that an id or a path means, confined to the allowed roots."""


def plan(
    request: TrainingRequest, registry: Registry, datasets: Datasets, settings: Settings
) -> Recipe:
    """Resolve and check a request.

    The data set itself is read too (labels, class names), so call this off the event loop.

    Raises:
        ValidationFailed: A field is missing or out of range; the message names it.
        ModelNotFound, InvalidModelFile: The base model is not there, or cannot be one.
        DatasetInvalid, DatasetNotFound, Forbidden: The data set is not there, wrong, or outside
            the allowed roots.
    """
    from training.datasets import check

    _check_mode(request.mode)
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
    base = choose_base(request.model, request.weights, task, registry, settings)
    task = base.task
    if base.family == "mobilenet" and request.mode != "regular":
        raise ValidationFailed(
            f"mode {request.mode} is for YOLO models; train a MobileNet with mode regular."
        )
    hyper = check_hyperparameters(request.hyper, base.family, task)
    name = check_name((request.name or "").strip() or base.default_name)
    path = datasets.resolve((request.data or "").strip())
    check(path, task, data_roots(settings))
    imgsz, notes = _imgsz(request.imgsz, base)
    notes = (base.sentence, *notes)
    stage = request.min_epochs_per_stage
    if request.mode == "freeze_strategy" and request.use_freeze_strategy:
        stage, more = _stage_epochs(stage, request.epochs)
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
        notes=notes,
    )


def _check_mode(mode: Mode) -> None:
    if mode not in AVAILABLE:
        raise ValidationFailed(
            f"training mode {mode!r} is not available yet; available: {', '.join(AVAILABLE)}."
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


def _imgsz(wanted: int | None, base: Base) -> tuple[int, tuple[str, ...]]:
    size = wanted or base.imgsz or (224 if base.task == "classify" else 640)
    if base.family == "mobilenet":
        return size, ()
    rounded = -(-size // 32) * 32
    if rounded == size:
        return size, ()
    return rounded, (f"imgsz {size} was rounded up to {rounded}, a multiple of the stride 32.",)


def _stage_epochs(wanted: int, epochs: int) -> tuple[int, tuple[str, ...]]:
    """Three stages must fit in."""
    possible = max(1, min(wanted, epochs // STAGES))
    if possible == wanted:
        return wanted, ()
    return possible, (
        f"min_epochs_per_stage was lowered from {wanted} to {possible}, so that {STAGES} stages "
        f"fit into {epochs} epochs.",
    )


def shown_config(recipe: Recipe) -> Mapping[str, Any]:
    """The recipe as clients are shown it: what was decided, without paths of base models."""
    config = recipe.model_dump(mode="json", exclude={"base"})
    return config | {"base": {"kind": recipe.base.kind, "from": recipe.base.shown}}
