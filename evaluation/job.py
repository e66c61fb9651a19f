"""Evaluations as jobs do them: measured, kept, noted on the model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dataset.allowed_roots import data_roots, shown_name
from dataset.dataset import Dataset
from dataset.inspection import check
from errors import ModelNotFound
from evaluation.evaluator import evaluate
from evaluation.recipe import EvaluationRecipe
from evaluation.store import EvaluationRow, EvaluationStore
from models_store.registry import Registry
from models_store.versions import ModelVersion
from synthetic.evaluation_sets import NAME, drawn_set

if TYPE_CHECKING:
    from jobs.handle import JobHandle

DRAWING_SHARE = 0.6  # of an evaluation's progress, where its pictures are drawn first
SHOWN = ("accuracy", "precision", "recall", "f1_score", "mAP50", "mAP50_95", "mask_mAP50_95",
         "pose_mAP50_95", "accuracy_top5", "inference_time")  # fmt: skip
KEPT = (
    "old_classes_before",
    "old_classes",
    "forgotten",
    "new_classes",
)  # metrics of an incremental training

# Of a model's own data, asked for on some data, or made beside something else.
Standing = Literal["own", "asked", "aside"]


def run_evaluation(
    recipe: EvaluationRecipe,
    job: JobHandle,
    registry: Registry,
    share: tuple[float, float] = (0.0, 1.0),
    aside: bool = False,
) -> EvaluationRow:
    """Do what a recipe says, from the start.

    Args:
        recipe: What `plan_evaluation` decided.
        job: Told of the progress; asked whether to end.
        registry: Has the model, and the settings.
        share: From where to where this moves the job's progress, 0 to 1.
        aside: Only the history gets the figures.

    Raises:
        VisionLoopError: The model or the data is gone, or cannot be used.
        JobCancelled: A stop was asked for.
    """
    settings = registry.settings
    version = registry.get(recipe.model_id)
    begin, end = share
    notes: list[str] = []
    own = recipe.trained_on is not None and recipe.split == "val"
    if recipe.dataset is None:
        own = version.source.get("kind") == "starter"
        middle = begin + DRAWING_SHARE * (end - begin)
        job.log(f"{version.id} is measured on drawn pictures.")
        path = drawn_set(recipe.task, settings, _Progress(job, begin, middle))
        dataset = check(path, recipe.task, [path.parent, path])
        begin, name = middle, NAME
    else:
        path = Path(recipe.dataset)
        dataset = check(path, recipe.task, data_roots(settings), min_classes=1)
        name = shown_name(path, settings)
        if recipe.trained_on not in (None, dataset.fingerprint):
            notes.append("The data set has changed since the model was trained on it.")
    standing: Standing = "aside" if aside else "own" if own else "asked"
    return measure(
        version, dataset, path, name, recipe.split, job, registry, (begin, end), notes, standing
    )


def measure(
    version: ModelVersion,
    dataset: Dataset,
    path: Path,
    name: str,
    split: str,
    job: JobHandle,
    registry: Registry,
    share: tuple[float, float] = (0.0, 1.0),
    notes: Sequence[str] = (),
    standing: Standing = "asked",
) -> EvaluationRow:
    """Measure a version, keep the evaluation; perhaps its figures become the version's metrics.

    Those stay on one data set: val of what the version was trained with; of an imported one the
    newest that was asked for.
    """
    job.log(f"Evaluating {version.id} on {split} of {name}.")
    output = job.folder / "evaluation"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    found = evaluate(
        version.path,
        dataset,
        split,
        registry.settings,
        output=output,
        progress=_Progress(job, *share),
        model_id=version.id,
        dataset_name=name,
        job_id=job.id,
        notes=notes,
    )
    store = EvaluationStore(registry.database)
    row = store.add(
        version.id, name, path, dataset.fingerprint, split, output, found.figures, job.id
    )
    try:
        note_metrics(version, row, registry, standing)
    except ModelNotFound:  # deleted meanwhile
        store.delete_for(version.id)
        raise
    job.advance(share[1], found.figures if standing != "aside" else {})
    for note in found.report["notes"]:
        job.log(note)
    shown = ", ".join(f"{k} {found.figures[k]:.4g}" for k in SHOWN if k in found.figures)
    job.log(f"Evaluated on {len(dataset.scan().splits[split])} pictures: {shown}.")
    return row


def note_metrics(
    version: ModelVersion, row: EvaluationRow, registry: Registry, standing: Standing
) -> None:
    """Make the figures the version's metrics, where these are to be of this data."""
    registry.refresh()
    known = registry.get(version.id)
    present = known.metrics or {}
    if standing != "own":
        same = (row.dataset, row.split) == (present.get("dataset"), present.get("split"))
        foreign = known.source.get("kind") == "import" and row.split != "train"
        if not (same or (standing == "asked" and (foreign or "split" not in present))):
            return
    metrics: dict[str, Any] = {name: present[name] for name in KEPT if name in present}
    metrics |= {**row.figures, "split": row.split, "dataset": row.dataset, "evaluation": row.id}
    registry.set_metrics(version.id, metrics | {"last_updated": row.created_at})


class _Progress:
    """Moves a job's progress from `begin` to `end`, and ends it when it is cancelled."""

    def __init__(self, job: JobHandle, begin: float, end: float) -> None:
        self.job, self.begin, self.end = job, begin, end

    def __call__(self, done: int, total: int) -> None:
        self.job.advance(self.begin + (self.end - self.begin) * done / max(1, total))
        self.job.check()
