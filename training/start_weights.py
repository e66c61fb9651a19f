"""Loads the base network of a recipe: the architecture, and weights if it has any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataset.class_matching import matched
from errors import InvalidModelFile
from files import atomic_folder
from jobs.artifacts import best_weights
from models_store.description import (
    DESCRIPTION_FILE,
    Family,
    ModelDescription,
    Preprocessing,
    Task,
)
from models_store.foreign.importer import convert_checkpoint
from models_store.shared.model_trees import located
from models_store.weights import build_model, describe, fill, load_model, save_model
from settings import Settings
from training.planning.base_models import MOBILENET, BaseNetwork, architecture_yaml

CLASS_BRANCHES = ("cv3", "one2one_cv3")


@dataclass(frozen=True)
class Start:
    """The architecture and the start weights of a training.

    Attributes:
        architecture: Ultralytics' model yaml as a dict, or the description of a MobileNet.
        model: The network with its weights; None: training from scratch.
        names: Class names of the network.
        preprocessing: The preprocessing that the network was trained with.
        keypoint_names: Names of its key points, if it has any and they are known.
    """

    architecture: dict[str, Any]
    model: nn.Module | None = None
    names: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    keypoint_names: tuple[str, ...] | None = None


def load_start(base: BaseNetwork, folder: Path, settings: Settings) -> Start:
    """Load the start weights of a recipe.

    Args:
        base: The chosen base network; `training.missing_weights` has fetched what was missing.
        folder: Weights of a file or of a job are converted to a model folder here, so that a
            resumed job need not convert them again.
        settings: The paths of jobs.

    Raises:
        InvalidModelFile: The weights cannot be loaded, or are for another task.
        ModelNotFound: The registry model was deleted in the meantime.
    """
    if base.kind == "scratch":
        if base.family == "mobilenet":
            return Start({"torchvision": MOBILENET, "width_mult": 1.0})
        return Start(architecture_yaml(base.value))
    if base.kind == "model":
        source = located(base.value, settings)
    elif base.kind == "job":
        source = _rebuilt(settings.paths.jobs / base.value, folder, base)
    else:
        source = _converted(Path(base.value), folder, base)
    model, found = load_model(source)
    _check(found, base.task, base.family, base.shown)
    return Start(found.architecture, model, found.names, found.preprocessing, found.keypoint_names)


def _converted(path: Path, folder: Path, base: BaseNetwork) -> Path:
    """Convert a checkpoint file to a model folder, in a child process, unless that was done."""
    if (folder / DESCRIPTION_FILE).is_file():
        return folder
    if not path.is_file():
        raise InvalidModelFile(
            f"The weights {path.name} no longer exist. Bring the file back, or start from others."
        )
    with atomic_folder(folder) as temporary:
        convert_checkpoint(path, temporary, family=base.family, serving=False)
    return folder


def _rebuilt(job_folder: Path, folder: Path, base: BaseNetwork) -> Path:
    """Convert the best weights of an unsuccessful job to a model folder, unless that was done."""
    if (folder / DESCRIPTION_FILE).is_file():
        return folder
    best = best_weights(job_folder)
    if best is None:
        raise InvalidModelFile(
            f"The weights of the {base.shown} no longer exist. Start from a model or another job."
        )
    if base.family == "mobilenet":
        model, description = _mobilenet(best.path)
    else:
        model, description = _yolo(best.path, base.imgsz or 640)
    with atomic_folder(folder) as temporary:
        save_model(temporary, model, description)
    return folder


def _yolo(checkpoint: Path, imgsz: int) -> tuple[nn.Module, ModelDescription]:
    from ultralytics.nn.tasks import load_checkpoint  # after `ultralytics_env.prepare()`

    found, _ = load_checkpoint(checkpoint)
    description = describe(found, imgsz)
    model = build_model(description)
    fill(model, found.state_dict())
    return model, description


def _mobilenet(checkpoint: Path) -> tuple[nn.Module, ModelDescription]:
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    description = ModelDescription.model_validate_json(saved["description"])
    model = build_model(description)
    model.load_state_dict(saved["model"])
    return model, description


def _check(description: ModelDescription, task: Task, family: Family, shown: str) -> None:
    if description.family != family:
        raise InvalidModelFile(
            f"{shown} is a {description.family} model, but the training needs a {family} model. "
            "Name one of that family."
        )
    if description.task != task:
        raise InvalidModelFile(
            f"{shown} is a model for {description.task}, but task is {task}. Choose weights for "
            "that task."
        )


def last_layer(model: Any) -> nn.Linear:
    """The layer of a classifier that computes the logits of its classes."""
    layer = model.classifier[-1] if hasattr(model, "classifier") else model.model[-1].linear
    assert isinstance(layer, nn.Linear)
    return layer


Layer = nn.Linear | nn.Conv2d


def keep_rows(
    new: Layer, old: Layer, new_names: tuple[str, ...], old_names: tuple[str, ...]
) -> int:
    """Copy rows of the class score layer from `old` to `new`, for classes of the same name.

    Rows of other classes keep their initial values.

    Returns:
        The number of classes whose rows were copied.
    """
    rows = matched(old_names, new_names)
    pairs = [(i, row) for i, row in enumerate(rows) if row is not None]
    if new.weight.shape[1:] != old.weight.shape[1:]:
        return 0
    with torch.no_grad():
        for i, row in pairs:
            new.weight[i] = old.weight[row]
            if new.bias is not None and old.bias is not None:
                new.bias[i] = old.bias[row]
    return len(pairs)
