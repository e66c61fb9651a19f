"""Plans a training job: turns a request into a checked `Recipe`, with one planner for each mode.

Everything that can be known before a job is queued is decided here: paths, base model, name,
sizes. A recipe is stored as JSON in the job's row; the trainers read nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dataset.allowed_roots import data_roots
from dataset.store import Datasets
from errors import ModelNotFound, ValidationFailed, VisionLoopError
from jobs.store import JobStore
from models_store.description import ModelDescription, Task
from models_store.names import check_name
from models_store.registry import Registry
from settings import Settings
from training.planning.base_models import (
    SCALES,
    BaseNetwork,
    architecture_yaml,
    choose_base,
    job_named,
)
from training.planning.class_union import (
    note_on_lost_classes,
    notes_on_classes,
    unite,
)
from training.planning.compatibility import check_incremental, check_teacher, notes_on_teacher
from training.planning.gpus import with_gpus
from training.planning.hyperparameters import check_hyperparameters
from training.planning.options import (
    MAX_REPLAY_RATIO,
    DistillationOptions,
    IncrementalOptions,
    ReplayOptions,
)
from training.planning.recipe import STAGE_EPOCHS, TASKS, Mode, Recipe, TrainingRequest

if TYPE_CHECKING:
    from dataset.dataset import Dataset


EPOCHS = range(1, 100_001)
IMGSZ = range(32, 4097)
BATCH = range(1, 1025)
PATIENCE = range(10_001)  # 0: no early stopping
STAGE_RANGE = range(1, 10_001)
STAGES: dict[Task, int] = dict.fromkeys(TASKS, 3) | {"classify": 2}
"""Number of stages of the freeze strategy: head, neck, backbone; a classifier has no neck."""

Notes = tuple[str, ...]  # sentences for the log and the job's config


@dataclass(frozen=True)
class Stores:
    """Where planners look things up: models, datasets, settings."""

    registry: Registry
    datasets: Datasets
    settings: Settings

    def base(self, model: str | None, weights: str | None, task: Task | None) -> BaseNetwork:
        """The start weights; see `choose_base`."""
        return choose_base(model, weights, task, self.registry, self.settings)

    def read(self, path: Path, task: Task, min_classes: int) -> Dataset:
        """Read and check a dataset: labels and class names, not the images."""
        from dataset.inspection import check  # imports OpenCV; reading a recipe does not need it

        return check(path, task, data_roots(self.settings), min_classes)

    def description(self, base: BaseNetwork) -> ModelDescription | None:
        """The description of a registry model; None for weights from elsewhere."""
        return self.registry.get(base.value).description if base.kind == "model" else None


def plan(
    request: TrainingRequest, registry: Registry, datasets: Datasets, settings: Settings
) -> Recipe:
    """Resolve and check a request.

    Reads the dataset's labels and class names, so call this off the event loop.

    Raises:
        ValidationFailed: A field is missing or out of range; the message names it.
        ModelNotFound, JobNotFound, InvalidModelFile: The base model does not exist, or cannot be
            used.
        DatasetInvalid, DatasetNotFound, Forbidden: The dataset is invalid, does not exist, or is
            outside the allowed roots.
    """
    task = _check_request(request)
    recipe = PLANNERS[request.mode](request, task, Stores(registry, datasets, settings))
    return with_gpus(recipe, settings)


def plan_regular(request: TrainingRequest, task: Task | None, stores: Stores) -> Recipe:
    """Plan a training of all layers at once, of a YOLO model or a MobileNet."""
    common = Common.of(request, stores.base(request.model, request.weights, task), stores)
    data = stores.read(common.path, common.base.task, min_classes=2)
    return common.recipe(request, common.lost_classes(data.names, stores))


def plan_freeze_strategy(request: TrainingRequest, task: Task | None, stores: Stores) -> Recipe:
    """Plan a training that unfreezes head, neck and backbone in stages."""
    common = Common.of(request, stores.base(request.model, request.weights, task), stores)
    data = stores.read(common.path, common.base.task, min_classes=2)
    lost = common.lost_classes(data.names, stores)
    if not request.use_freeze_strategy:
        return common.recipe(request, lost)
    stages = STAGES[common.base.task]
    epochs, notes = _stage_epochs(request.min_epochs_per_stage, request.epochs, stages)
    return common.recipe(request, lost, notes, decisions=notes, min_epochs_per_stage=epochs)


def plan_incremental(request: TrainingRequest, task: Task | None, stores: Stores) -> Recipe:
    """Plan a training that adds classes or data to an existing model."""
    base, notes = _incremental_base(request, task, stores)
    common = Common.of(request, base, stores)
    if "label_smoothing" in common.hyper:
        raise ValidationFailed(
            "label_smoothing has no effect in mode incremental, whose loss has none. Leave it out."
        )
    options, old = _replay(request.incremental or IncrementalOptions(), base.task, stores)
    _check_fraction(options, common.hyper)
    new = stores.read(common.path, base.task, min_classes=1)
    original = None
    if base.kind == "job":
        original, note = _original_model(base, stores)
        notes += (note,)
    origin = original or base
    union = check_incremental(new, old, stores.description(origin), options.new_classes)
    if union is not None:
        notes += notes_on_classes(union, new, old, origin.shown)
    if old is None:
        notes += _old_data_hint(origin, common.path, stores)
    return common.recipe(request, notes, incremental=options, old_base=original)


def plan_distillation(request: TrainingRequest, task: Task | None, stores: Stores) -> Recipe:
    """Plan a training of a student that also learns from a teacher's outputs."""
    base = _student(request, task, stores)
    common = Common.of(request, base, stores)
    options = request.distillation or DistillationOptions()
    teacher = _teacher(options, base.task, stores)
    options, old = _replay(options, base.task, stores)
    _check_fraction(options, common.hyper)
    data = stores.read(common.path, base.task, min_classes=2)
    names = data.names
    if old is not None and options.replays:
        names = unite(names, old.names, old.counts["train"]).names
    notes = common.lost_classes(names, stores)
    if (taught := stores.description(teacher)) is not None:
        known = stores.description(base)
        fresh = base.kind in ("scratch", "download")
        is_yolo = base.family == "yolo"
        student = architecture_yaml(base.network) if fresh and is_yolo else None
        student = known.architecture if known else student
        check_teacher(names, base.task, student, taught)
        size, _ = _imgsz(request.imgsz, base)
        notes += notes_on_teacher(names, taught, teacher.shown, size)
    return common.recipe(request, notes, distillation=options, teacher=teacher)


PLANNERS: dict[Mode, Callable[[TrainingRequest, Task | None, Stores], Recipe]] = {
    "regular": plan_regular,
    "freeze_strategy": plan_freeze_strategy,
    "incremental": plan_incremental,
    "distillation": plan_distillation,
}


@dataclass(frozen=True)
class Common:
    """The fields that all modes resolve alike: base, hyperparameters, model name, dataset path."""

    base: BaseNetwork
    hyper: dict[str, Any]
    name: str
    path: Path

    @classmethod
    def of(cls, request: TrainingRequest, base: BaseNetwork, stores: Stores) -> Common:
        """Resolve and check these fields of a request.

        Raises:
            ValidationFailed: A field is wrong.
            DatasetNotFound: There is no such dataset.
        """
        hyper = check_hyperparameters(request.hyper, base.family, base.task)
        name = check_name((request.name or "").strip() or base.default_name)
        return cls(base, hyper, name, stores.datasets.resolve((request.data or "").strip()))

    def lost_classes(self, names: Sequence[str], stores: Stores) -> Notes:
        """A note if the result, with classes of these names, replaces a model that knows more."""
        known = stores.description(self.base)
        if known is None or self.base.value.partition(":")[0] != self.name:
            return ()
        return note_on_lost_classes(self.base.value, known.names, names)

    def recipe(
        self, request: TrainingRequest, notes: Notes = (), after: Notes = (), **fields: Any
    ) -> Recipe:
        """Create the recipe.

        Args:
            request: The request; fields that need no resolving are copied from it.
            notes: Notes of the mode; they come after the note on the base.
            after: Further notes of the mode; they come after the note on the image size.
            fields: Fields of the recipe that are specific to the mode.
        """
        imgsz, more = _imgsz(request.imgsz, self.base)
        own = {"min_epochs_per_stage": request.min_epochs_per_stage} | fields
        return Recipe(
            mode=request.mode,
            family=self.base.family,
            task=self.base.task,
            base=self.base,
            dataset=str(self.path),
            name=self.name,
            epochs=request.epochs,
            imgsz=imgsz,
            batch=request.batch,
            patience=request.patience,
            use_freeze_strategy=request.use_freeze_strategy,
            promote=request.promote,
            hyper=self.hyper,
            notes=(self.base.sentence, *notes, *more, *after, *request.notes),
            **own,
        )


def _check_request(request: TrainingRequest) -> Task | None:
    """Check the fields that depend on nothing else; returns the task, if one is given."""
    task = _task(request.task)
    for field, allowed in {"epochs": EPOCHS, "batch": BATCH, "patience": PATIENCE}.items():
        _in_range(field, getattr(request, field), allowed)
    _in_range("min_epochs_per_stage", request.min_epochs_per_stage, STAGE_RANGE)
    if request.imgsz is not None:
        _in_range("imgsz", request.imgsz, IMGSZ)
    if not (request.data or "").strip():
        raise ValidationFailed(
            "data_path (dataset_path) is missing: give a data.yaml, a folder with one folder per "
            "class, or the id of an uploaded dataset."
        )
    return task


def _incremental_base(
    request: TrainingRequest, task: Task | None, stores: Stores
) -> tuple[BaseNetwork, Notes]:
    """The model to extend, or the unsuccessful job to resume from; and notes."""
    wanted = (request.base_model or "").strip()
    if not wanted:
        raise ValidationFailed(
            "base_model_path is missing: incremental training extends a model. Give its id "
            f"({_known_models(stores.registry)}) or the path of a weights file."
        )
    notes: Notes = ()
    model = (request.model or "").strip()
    if model not in ("", wanted, *SCALES):  # the form of old clients always sends a scale
        notes = (f"The model {model!r} is not used: incremental extends base_model_path.",)
    resumed = (request.weights or "").strip()
    if job_id := job_named(resumed, stores.registry):
        return stores.base(None, job_id, task), notes
    if resumed:
        notes += ("resume_weights is not used: incremental starts from base_model_path.",)
    with _naming("base_model_path"):
        return stores.base(None, wanted, task), notes


def _original_model(base: BaseNetwork, stores: Stores) -> tuple[BaseNetwork | None, str]:
    """The model that an interrupted incremental training extends, and a note about it.

    The model is None if the job was of another mode, or if that model was deleted.
    """
    recipe = JobStore(stores.registry.database).get(base.value).recipe
    if recipe.get("mode") == "incremental":
        origin = BaseNetwork.model_validate(recipe.get("old_base") or recipe["base"])
        try:
            if origin.kind == "model":
                stores.registry.get(origin.value)
            return origin, (
                f"The training retains the classes of {origin.shown}, from which that job started."
            )
        except ModelNotFound:
            pass
    return None, "The training retains the classes of these weights, not those of base_model_path."


def _old_data_hint(origin: BaseNetwork, path: Path, stores: Stores) -> Notes:
    """A note that names the dataset a model was trained on, if that could be given as old data."""
    source = stores.registry.get(origin.value).source if origin.kind == "model" else {}
    known = str(source.get("dataset") or "")
    try:
        if not known or stores.datasets.resolve(known) == path:
            return ()
    except VisionLoopError:  # deleted, or only a folder's name is known
        return ()
    return (
        f"No old images are replayed. {origin.shown} was trained on '{known}', which still "
        "exists: give it as old_data_path to forget less.",
    )


def _student(request: TrainingRequest, task: Task | None, stores: Stores) -> BaseNetwork:
    """The student's start weights; `weights` takes precedence over `base_model`, and that over
    `model`.
    """
    wanted = (request.base_model or "").strip()
    if wanted and not (request.weights or "").strip():
        with _naming("base_model_path"):
            return stores.base(request.model, wanted, task)
    return stores.base(request.model, request.weights, task)


def _teacher(options: DistillationOptions, task: Task, stores: Stores) -> BaseNetwork:
    if task == "pose":
        raise ValidationFailed(
            "Distillation is for detect, segment and classify, not for pose. Train with mode "
            "regular, which may start from the larger model's weights."
        )
    wanted = (options.teacher or "").strip()
    if not wanted:
        raise ValidationFailed(
            "teacher_model_path is missing: distillation needs a teacher. Give the id of a "
            f"larger model ({_known_models(stores.registry)}) or the path of a weights file."
        )
    with _naming("teacher_model_path"):
        return stores.base(None, wanted, task)


Options = TypeVar("Options", bound=ReplayOptions)


def _replay(options: Options, task: Task, stores: Stores) -> tuple[Options, Dataset | None]:
    """The options with the path of the old data resolved, and the old dataset if there is one."""
    if options.replay_ratio > MAX_REPLAY_RATIO:
        raise ValidationFailed(
            f"replay_ratio is {options.replay_ratio:g}; allowed is 0 to {MAX_REPLAY_RATIO:g}, "
            "which is nine old images for each new one."
        )
    if not (old := (options.old_data or "").strip()):
        return options.model_copy(update={"old_data": None}), None
    with _naming("old_data_path"):
        path = stores.datasets.resolve(old)
        found = stores.read(path, task, min_classes=1)
    return options.model_copy(update={"old_data": str(path)}), found


def _check_fraction(options: ReplayOptions, hyper: dict[str, Any]) -> None:
    if options.replays and hyper.get("fraction", 1.0) != 1.0:
        raise ValidationFailed(
            f"fraction is {hyper['fraction']:g}, which is not allowed with old_data_path, "
            "because it would drop the old images first. Give a smaller dataset, or "
            "max_replay_samples."
        )


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """Context that puts the name of a request field before the message of an error."""
    try:
        yield
    except VisionLoopError as error:
        raise type(error)(f"{field}: {error.message}") from error


def _known_models(registry: Registry) -> str:
    names = sorted({version.name for version in registry.list()})
    return f"GET /models has {', '.join(names[:8])}" if names else "GET /models lists them"


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


def _imgsz(wanted: int | None, base: BaseNetwork) -> tuple[int, Notes]:
    """The image size, rounded up to the stride for YOLO, and a note if it was."""
    size = wanted or base.imgsz or (224 if base.task == "classify" else 640)
    if base.family == "mobilenet":
        return size, ()
    rounded = -(-size // 32) * 32
    if rounded == size:
        return size, ()
    return rounded, (f"imgsz {size} was rounded up to {rounded}, a multiple of the stride 32.",)


def _stage_epochs(wanted: int, epochs: int, stages: int) -> tuple[int, Notes]:
    """Epochs of each stage except the last, and a note if they are not the requested ones.

    The default is a tenth of all epochs. Other values are lowered so that all stages fit.
    """
    if epochs < stages:
        return 1, (
            f"epochs is {epochs}, so only {epochs} of the {stages} stages are trained: the layers "
            f"of the others stay as they are. Give at least {stages} epochs.",
        )
    if wanted == STAGE_EPOCHS:
        tenth = max(1, round(epochs / 10))
        if tenth >= wanted:
            return wanted, ()
        return tenth, (
            f"min_epochs_per_stage is {tenth}, a tenth of the {epochs} epochs, instead of the "
            f"default {wanted}: with three tenths in each stage, mAP50-95 was 2.8 points lower. "
            "Any other value is used as given.",
        )
    possible = max(1, min(wanted, epochs // stages))
    if possible == wanted:
        return wanted, ()
    return possible, (
        f"min_epochs_per_stage was lowered from {wanted} to {possible}, so that {stages} stages "
        f"fit into {epochs} epochs.",
    )
