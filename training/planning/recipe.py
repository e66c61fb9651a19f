"""The request for a training, and the recipe that it is resolved to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models_store.description import Family, Task
from training.planning.base_models import BaseNetwork
from training.planning.options import DistillationOptions, IncrementalOptions

Mode = Literal["regular", "freeze_strategy", "incremental", "distillation"]


Promote = Annotated[
    Literal["never", "auto"],
    BeforeValidator(lambda value: "never" if value is False else value),  # stored by older versions
]


TASKS: tuple[Task, ...] = ("detect", "segment", "classify", "pose")


STAGE_EPOCHS = 15
"""Default of `min_epochs_per_stage`, which the form of old clients sends in every request. So this
number does not show that a person chose it."""


class TrainingRequest(BaseModel):
    """A training request, independent of the API: each API maps its own field names to these.

    An empty string means the same as None. `model` is a scale (`n s m l x`), the name of an
    architecture (`yolo11n`, `mobilenet`), a model id or a path. `imgsz` None: the base model's
    size, else 640, or 224 for classification. `task` None: the base model's task, else detect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "regular"
    task: str | None = None
    model: str = "s"
    weights: str | None = None  # resume_weights: path, model id or job id, instead of `model`
    base_model: str | None = None  # base_model_path: the model to extend, or the student
    data: str | None = None  # path, or the id of an uploaded dataset
    name: str | None = None  # name of the model to publish
    epochs: int = 50
    imgsz: int | None = None
    batch: int = 8
    patience: int = 15
    use_freeze_strategy: bool = True
    min_epochs_per_stage: int = STAGE_EPOCHS
    promote: Promote = "never"
    hyper: dict[str, Any] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()  # of the API, on what the client sent
    incremental: IncrementalOptions | None = None  # for mode incremental; None: the defaults
    distillation: DistillationOptions | None = None


class Recipe(BaseModel):
    """The checked, resolved description of one training job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode
    family: Family
    task: Task
    base: BaseNetwork
    dataset: str  # absolute path of the data.yaml or class-folder root
    name: str
    epochs: int
    imgsz: int
    batch: int
    patience: int
    use_freeze_strategy: bool = True
    min_epochs_per_stage: int = STAGE_EPOCHS
    promote: Promote = "never"
    hyper: dict[str, Any] = Field(default_factory=dict)  # only requested values
    incremental: IncrementalOptions | None = None  # in mode incremental only
    old_base: BaseNetwork | None = (
        None  # if incremental training resumes from a job's weights: the model that job extended
    )
    distillation: DistillationOptions | None = None  # in mode distillation only
    teacher: BaseNetwork | None = None  # in mode distillation only
    gpus: int = 1  # of one machine; see `training.planning.gpus`
    notes: tuple[str, ...] = ()  # sentences for the log and for the config in the response
    decisions: tuple[str, ...] = ()  # those notes that the evaluation report repeats: what was
    # chosen or changed in place of the requested values

    @property
    def parent(self) -> str | None:
        """The id of the registry model that training starts from; None if it is no such model."""
        return self.origin.value if self.origin.kind == "model" else None

    @property
    def origin(self) -> BaseNetwork:
        """The base model; if training resumes from an interrupted job, that job's base model."""
        return self.old_base or self.base

    @property
    def seed(self) -> int:
        return int(self.hyper.get("seed", 0))


def shown_config(recipe: Recipe) -> Mapping[str, Any]:
    """The recipe as shown to clients: without the paths of base models."""
    bases = {"base": recipe.base, "old_base": recipe.old_base, "teacher": recipe.teacher}
    hidden = {*bases} | ({"incremental", "distillation"} - {recipe.mode})
    config = recipe.model_dump(mode="json", exclude=hidden)
    for name, base in bases.items():
        if base is not None:
            config[name] = {"kind": base.kind, "from": base.shown}
    return config
