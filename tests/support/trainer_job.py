"""A job handle that remembers, recipes, and small start networks in the registry."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from dataset.inspection import check
from models_store.description import ONNX_FILE, Task
from models_store.registry import Registry
from settings import get_settings
from tests.support.seeds import derived, drawing
from tests.support.shapes import write_shapes
from training.job import trainer
from training.planning.base_models import SUFFIXES, architecture_yaml
from training.planning.plan import plan
from training.planning.recipe import Recipe, TrainingRequest
from training.publish import Trained

BASE = 1  # where the weights of models to start from are drawn; trainings draw theirs at 0
NARROW = [0.33, 0.125, 1024]  # half of yolov8n's channels: twice as fast


class RecordingJob:
    """Keeps what a trainer reports. `stop_when` is asked at every check, `leave_when` after every
    batch."""

    resuming = False

    def __init__(self, folder: Path) -> None:
        self.id = uuid.uuid4().hex
        self.folder = folder
        self.lines: list[str] = []
        self.recipes: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []  # and as shown
        self.fractions: list[float] = []
        self.epochs: list[int] = []
        self.metrics: list[dict[str, float]] = []
        self.checkpoints: list[int] = []
        self.counted: list[tuple[int, int]] = []  # batches done of an epoch, and all of it
        self.history: dict[int, dict[str, float]] = {}
        self.batches: list[tuple[int, int]] = []  # checkpoints within an epoch
        self.stop_when: Callable[[RecordingJob], BaseException | None] = lambda _: None
        self.leave_when: Callable[[RecordingJob], bool] = lambda _: False
        folder.mkdir(parents=True, exist_ok=True)

    def report(
        self,
        *,
        fraction: float,
        epoch: int,
        epochs: int,
        metrics: Mapping[str, float] = {},
        batch: int = 0,
        batches: int = 0,
    ) -> None:
        self.fractions.append(fraction)
        self.epochs.append(epoch)
        self.counted.append((batch, batches))
        if metrics:
            self.metrics.append(dict(metrics))

    def advance(self, fraction: float, metrics: Mapping[str, float] = {}) -> None:
        self.fractions.append(fraction)
        if metrics:
            self.metrics.append(dict(metrics))

    def log(self, message: str) -> None:
        self.lines.append(message)

    def replace_recipe(self, recipe: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
        self.recipes.append((recipe, shown))

    def check(self) -> None:
        if (reason := self.stop_when(self)) is not None:
            raise reason

    def finished_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.history[epoch] = dict(metrics)

    def checkpointed(self, epoch: int, batch: int = 0) -> None:
        if batch:
            self.batches.append((epoch, batch))
        else:
            self.checkpoints.append(epoch)

    def graceful_stop(self) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def stop_requested(self) -> bool:
        return self.leave_when(self)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Paths:
    """The part of the data set store that planning uses."""

    def resolve(self, reference: str) -> Path:
        return Path(reference)


def drawn(task: Task, imgsz: int = 96, train: int = 64) -> Path:
    """A drawn data set in the datasets folder, made once."""
    folder = get_settings().home / "datasets" / f"drawn-{task}-{imgsz}-{train}"
    if not folder.exists():
        return write_shapes(folder, task, train=train, imgsz=imgsz)
    return folder if task == "classify" else folder / "data.yaml"


def recipe(registry: Registry, task: Task, **fields: Any) -> Recipe:
    """A planned recipe; small pictures, small batches."""
    size = 64 if task == "classify" else 96
    defaults = {"task": task, "data": str(drawn(task)), "imgsz": size, "batch": 8}
    hyper = {"seed": derived(0), **fields.pop("hyper", {})}
    request = TrainingRequest.model_validate(defaults | fields | {"hyper": hyper})
    return plan(request, registry, Paths(), get_settings())


def run(recipe: Recipe, job: RecordingJob) -> Trained:
    """What the worker does with a recipe, without publishing. Imports torch."""
    return trainer(recipe)(recipe, job)


def narrow_network(registry: Registry, task: Task, names: tuple[str, ...] = ()) -> str:
    """The id of a yolov8 of half the width, with fresh weights, in the registry.

    Its class names are those of the drawn data unless given.
    """
    from models_store.weights import build_model, describe_yolo, save_model

    yaml = architecture_yaml(f"yolov8n{SUFFIXES[task]}")
    yaml |= {"scales": {"t": NARROW}, "scale": "t", "nc": len(names) or 1}
    found = check(drawn(task), task, (get_settings().home / "datasets",))
    names = names or found.names
    yaml["nc"] = len(names)
    if found.keypoints:
        yaml["kpt_shape"] = list(found.keypoints.shape)
    description = describe_yolo(yaml, imgsz=96, names=names)
    with drawing(BASE):
        model = build_model(description)
    return _publish(registry, model, description, f"narrow-{task}", save_model)


def narrow_mobilenet(registry: Registry, names: tuple[str, ...]) -> str:
    """The id of a MobileNetV2 of a quarter of the width, with fresh weights."""
    from models_store.weights import build_model, describe_mobilenet, save_model
    from training.mobilenet.trainer import open_residuals

    description = describe_mobilenet(len(names), 64, names=names, width=0.25)
    with drawing(BASE):
        model = build_model(description)
        open_residuals(model)
    return _publish(registry, model, description, "narrow-mobilenet", save_model)


def _publish(registry: Registry, model: Any, description: Any, name: str, save: Any) -> str:
    folder = get_settings().home / "made" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    save(folder, model, description)
    (folder / ONNX_FILE).write_bytes(b"never served")
    return registry.publish(folder, name, {"kind": "import"}).id
