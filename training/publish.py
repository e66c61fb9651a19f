"""Publishes the result of a training as a model version, once its serving engine is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.allowed_roots import shown_name
from errors import ModelNotFound, VisionLoopError
from jobs.failures import explained
from models_store.current import keep_current
from models_store.registry import Registry, published
from models_store.subprocesses import ChildTimeout, run_module
from models_store.versions import ModelVersion
from training.planning.recipe import Recipe

if TYPE_CHECKING:
    from jobs.handle import JobHandle

EXPORT_TIMEOUT = 1800.0  # seconds; exporting a YOLO model of size x takes a minute on two cores


@dataclass(frozen=True)
class Trained:
    """The result of a training: the best checkpoint as a model folder, and its metrics.

    Attributes:
        folder: The model folder, with model.json and model.safetensors.
        metrics: Metrics of the best epoch on the val split.
        dataset_fingerprint: Fingerprint of the dataset it was trained on, without replayed data.
        class_counts: Class name → number of objects (images, for classify) in the train split;
            after incremental training, in the new data only.
        decisions: Sentences for the evaluation report: which settings the training chose, and why.
    """

    folder: Path
    metrics: dict[str, float]
    dataset_fingerprint: str
    class_counts: Mapping[str, int] = field(default_factory=dict)
    decisions: tuple[str, ...] = ()


def publish(trained: Trained, recipe: Recipe, job: JobHandle, registry: Registry) -> ModelVersion:
    """Export the serving engine, compare it with PyTorch, publish the folder as a new version.

    If an earlier attempt of the job has published a version, that version is returned.

    Raises:
        VisionLoopError: The engine could not be made, or the disk is full. Nothing is published.
    """
    if (known := published(job.id, registry)) is not None:
        return known
    with explained(recipe.batch, recipe.imgsz):
        job.log("Exporting the model to ONNX for serving, and comparing it with PyTorch.")
        _export(trained.folder)
        job.check()
        source: dict[str, Any] = {
            "kind": "train",
            "job_id": job.id,
            "parent": recipe.parent,
            "mode": recipe.mode,
            "base": recipe.base.shown,
            "start": recipe.base.sentence,
            "teacher": recipe.teacher.shown if recipe.teacher else None,
            "dataset": shown_name(Path(recipe.dataset), registry.settings),
            "dataset_fingerprint": trained.dataset_fingerprint,
            "class_counts": _class_counts(trained, recipe, registry),
        }
        if decisions := (*recipe.decisions, *trained.decisions):
            source["decisions"] = list(decisions)
        # It is not evaluated yet: the gate would come too late.
        keep_current(recipe.name, registry, "training", "this training published a newer one")
        version = registry.publish(trained.folder, recipe.name, source)
    job.log(f"Published {version.id}.")
    return version


def _class_counts(trained: Trained, recipe: Recipe, registry: Registry) -> dict[str, int]:
    """Training objects per class, to compare live traffic with; empty if the counts are incomplete.

    After incremental training, the counts of the parent model are added.
    """
    counts = dict(trained.class_counts)
    if recipe.mode != "incremental":
        return counts
    try:
        before = registry.get(recipe.parent or "").class_counts
    except ModelNotFound:
        before = {}
    if not before:
        return {}
    return {name: count + before.get(name, 0) for name, count in counts.items()}


def _export(folder: Path) -> None:
    try:
        child = run_module("models_store.export", [folder], EXPORT_TIMEOUT)
    except ChildTimeout as error:
        raise VisionLoopError(
            f"The ONNX export did not finish within {EXPORT_TIMEOUT:.0f} seconds. The job keeps "
            "its best weights: start from them when the machine is less busy."
        ) from error
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"the export ended with code {child.returncode}"
        raise VisionLoopError(f"The ONNX export failed: {reason}")
