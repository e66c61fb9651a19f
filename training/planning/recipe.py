"""What was asked of a training, and what it is going to do."""

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
    BeforeValidator(lambda value: "never" if value is False else value),  # of older jobs
]


TASKS: tuple[Task, ...] = ("detect", "segment", "classify", "pose")


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
    weights: str | None = None  # resume_weights: a path, model or job, instead of `model`
    base_model: str | None = None  # base_model_path: what learns on, or the student
    data: str | None = None  # path, or the id of an uploaded data set
    name: str | None = None  # of the published model
    epochs: int = 50
    imgsz: int | None = None
    batch: int = 8
    patience: int = 15
    use_freeze_strategy: bool = True
    min_epochs_per_stage: int = 15
    promote: Promote = "never"
    hyper: dict[str, Any] = Field(default_factory=dict)
    incremental: IncrementalOptions | None = None  # of that mode; None: its defaults
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
    min_epochs_per_stage: int = 15
    promote: Promote = "never"
    hyper: dict[str, Any] = Field(default_factory=dict)  # only what was asked for
    incremental: IncrementalOptions | None = None  # in that mode only
    old_base: BaseNetwork | None = (
        None  # of a lesson that goes on from a job's weights: its old model
    )
    distillation: DistillationOptions | None = None  # in that mode only
    teacher: BaseNetwork | None = None  # of a distillation
    notes: tuple[str, ...] = ()  # sentences for the log and the answer's config

    @property
    def parent(self) -> str | None:
        """The id of the registry's model that this one is made from."""
        return self.origin.value if self.origin.kind == "model" else None

    @property
    def origin(self) -> BaseNetwork:
        """What the model was before it learned, also where the lesson was interrupted."""
        return self.old_base or self.base

    @property
    def seed(self) -> int:
        return int(self.hyper.get("seed", 0))


def shown_config(recipe: Recipe) -> Mapping[str, Any]:
    """The recipe as clients are shown it: what was decided, without paths of base models."""
    bases = {"base": recipe.base, "old_base": recipe.old_base, "teacher": recipe.teacher}
    hidden = {*bases} | ({"incremental", "distillation"} - {recipe.mode})
    config = recipe.model_dump(mode="json", exclude=hidden)
    for name, base in bases.items():
        if base is not None:
            config[name] = {"kind": base.kind, "from": base.shown}
    return config
