"""The recipe of an evaluation job, and `plan_evaluation`, which makes it from a request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dataset.allowed_roots import data_roots
from dataset.class_matching import matched, shown_names
from dataset.dataset import Dataset
from dataset.inspection import check
from dataset.store import Datasets
from errors import DatasetNotFound, Forbidden, JobNotFound, ValidationFailed
from evaluation.letterbox import ASKED, AskedLetterbox, check_asked
from jobs.store import JobStore
from models_store.description import ModelDescription, Task
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import Settings
from synthetic.signs import CLASS_NAMES

SPLITS = ("train", "val", "test")
DRAWN = "drawn traffic signs"  # name of the dataset that the job draws for starter models
SHOWN = 6  # class names in a message


class EvaluationRecipe(BaseModel):
    """The checked, resolved description of one evaluation job.

    Attributes:
        model_id: The exact `name:version`.
        task: The model's task.
        dataset: Absolute path of the data.yaml, or of the folder of the class folders; None: the
            job draws the dataset of the starter models.
        split: Split of the dataset: train, val or test.
        trained_on: Fingerprint of the dataset at the model's training, if the evaluation uses
            that dataset; None: another dataset.
        letterbox: The letterbox to measure with; None: the one that serves.
        notes: Sentences for the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: str
    task: Task
    dataset: str | None
    split: str = "val"
    trained_on: str | None = None
    letterbox: AskedLetterbox | None = None
    notes: tuple[str, ...] = ()


def plan_evaluation(
    model_id: str,
    dataset: str | None,
    split: str | None,
    registry: Registry,
    datasets: Datasets,
    jobs: JobStore,
    settings: Settings,
    letterbox: str | None = None,
) -> EvaluationRecipe:
    """Resolve and check a request. It reads the labels, so call it in a thread.

    Args:
        model_id: `name:version`, or a name.
        dataset: Path or id of a dataset, or DRAWN; None or empty: the dataset that the model was
            trained on, for a starter model DRAWN.
        split: train, val or test; None or empty: val.
        registry: Contains the model.
        datasets: Resolves the dataset's path or id.
        jobs: Contains the recipe of the training that made the model.
        settings: Contain the folders from which datasets may be read.
        letterbox: square or val_rect; None or empty: the one that serves.

    Raises:
        ModelNotFound: There is no such model.
        ValidationFailed: The model's training data is not known, the dataset has no such split,
            the model and the dataset have no class in common, or there is no such letterbox.
        DatasetInvalid, DatasetNotFound, Forbidden: As `dataset.inspection.check`.
    """
    model = registry.get(model_id)
    task, wanted = model.description.task, (split or "").strip().lower() or "val"
    asked = _asked_letterbox(letterbox)
    check_asked(asked, model.description)
    reference = (dataset or "").strip()
    starter = not reference and model.source.get("kind") == "starter"
    if starter or reference == DRAWN:
        _check_split(wanted, ("val",))
        check_names(model.description, CLASS_NAMES)
        return EvaluationRecipe(model_id=model.id, task=task, dataset=None, letterbox=asked)
    path = datasets.resolve(reference) if reference else _trained_with(model, datasets, jobs)
    found = check(path, task, data_roots(settings), min_classes=1)
    _check_split(wanted, tuple(found.splits))
    check_fit(model.description, found)
    return EvaluationRecipe(
        model_id=model.id,
        task=task,
        dataset=str(path),
        split=wanted,
        trained_on=None if reference else model.source.get("dataset_fingerprint"),
        letterbox=asked,
    )


def _asked_letterbox(text: str | None) -> AskedLetterbox | None:
    wanted = (text or "").strip().lower()
    if wanted and wanted not in ASKED:
        raise ValidationFailed(
            f"'letterbox' is {wanted[:40]!r}; use {' or '.join(ASKED)}, or leave it out to measure "
            "as images are served."
        )
    return next((known for known in ASKED if known == wanted), None)


def check_fit(description: ModelDescription, dataset: Dataset) -> None:
    """Check that a model can be evaluated on a dataset.

    Raises:
        ValidationFailed: They have no class in common, or different numbers of keypoints.
    """
    check_names(description, dataset.names)
    points = dataset.keypoints.shape[0] if dataset.keypoints else None
    if description.keypoint_shape and points not in (None, description.keypoint_shape[0]):
        raise ValidationFailed(
            f"The dataset has {points} keypoints per object, the model "
            f"{description.keypoint_shape[0]}. Choose a dataset with the model's number of "
            "keypoints."
        )


def check_names(description: ModelDescription, names: Sequence[str]) -> None:
    """Check that a model and a dataset have a class in common.

    Raises:
        ValidationFailed: They have no class in common.
    """
    if set(matched(description.names, names)) == {None}:
        raise ValidationFailed(
            "The model and the dataset have no class in common: the model knows "
            f"{shown_names(description.names, SHOWN)}; the dataset has "
            f"{shown_names(names, SHOWN)}. Classes are matched by name; choose data of the model's "
            "classes."
        )


def _trained_with(model: ModelVersion, datasets: Datasets, jobs: JobStore) -> Path:
    """The path of the dataset that the model was trained on.

    Raises:
        ValidationFailed: The dataset is not known, or no longer exists.
    """
    give = "Give one as dataset_path: a data.yaml, a folder with one folder per class, or an id."
    try:
        path = str(jobs.get(str(model.source.get("job_id"))).recipe["dataset"])
    except (JobNotFound, KeyError):
        raise ValidationFailed(f"The training data of {model.id} is not known. {give}") from None
    try:
        found = datasets.resolve(path)
    except (DatasetNotFound, Forbidden):
        found = Path()
    if not found.name or not found.exists():
        name = model.source.get("dataset", "its dataset")
        raise ValidationFailed(f"The training data of {model.id} ({name}) no longer exists. {give}")
    return found


def _check_split(wanted: str, present: Sequence[str]) -> None:
    if wanted not in present:
        raise ValidationFailed(
            f"'split' is {wanted[:40]!r}, but this dataset has {', '.join(sorted(present))}. Use "
            "one of these."
        )
