"""Evaluation jobs: evaluate, store the evaluation, update the model's metrics."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dataset.allowed_roots import data_roots, shown_name
from dataset.inspection import check
from errors import ModelNotFound
from evaluation.evaluator import evaluate
from evaluation.letterbox import PADDED
from evaluation.recipe import EvaluationRecipe
from evaluation.results import INCREMENTAL, INCREMENTAL_LETTERBOX
from evaluation.store import EvaluationRow, EvaluationStore
from evaluation.target import EvaluationTarget
from inference.engine_files import is_outdated, renew, served_letterbox
from inference.preprocess import LetterboxKind
from models_store.registry import Registry
from synthetic.evaluation_sets import NAME, drawn_set

if TYPE_CHECKING:
    from jobs.handle import JobHandle

DRAWING_SHARE = 0.6  # share of the progress for rendering synthetic images, where that is done
SHOWN = ("accuracy", "precision", "recall", "f1_score", "f1_confidence", "mAP50", "mAP50_95",
         "mask_mAP50_95", "pose_mAP50_95", "accuracy_top5", "inference_time")  # fmt: skip
Purpose = Literal["own_data", "requested", "auxiliary"]
"""Why an evaluation is made.

`own_data`: on the dataset that the model was trained on. `requested`: by a client, on any dataset.
`auxiliary`: for another job, such as a gate; the model's metrics stay unchanged.
"""


def run_evaluation(
    recipe: EvaluationRecipe,
    job: JobHandle,
    registry: Registry,
    share: tuple[float, float] = (0.0, 1.0),
    auxiliary: bool = False,
) -> EvaluationRow:
    """Run the evaluation of a recipe, from the start.

    Args:
        recipe: The result of `plan_evaluation`.
        job: Receives progress and log lines; checked for a requested stop.
        registry: Contains the model and the settings.
        share: Start and end of this evaluation within the job's progress, 0 to 1.
        auxiliary: Only store the evaluation; leave the model's metrics unchanged.

    Raises:
        VisionLoopError: The model or the dataset was deleted, or cannot be used.
        JobCancelled: A stop was requested.
    """
    settings = registry.settings
    version = registry.get(recipe.model_id)
    begin, end = share
    notes = list(recipe.notes)
    own = recipe.trained_on is not None and recipe.split == "val"
    if recipe.dataset is None:
        own = version.source.get("kind") == "starter"
        middle = begin + DRAWING_SHARE * (end - begin)
        job.log(f"Drawing the test images for the evaluation of {version.id}.")
        path = drawn_set(recipe.task, settings, _Progress(job, begin, middle))
        dataset = check(path, recipe.task, [path.parent, path])
        begin, name = middle, NAME
    else:
        path = Path(recipe.dataset)
        dataset = check(path, recipe.task, data_roots(settings), min_classes=1)
        name = shown_name(path, settings)
        if recipe.trained_on not in (None, dataset.fingerprint):
            notes.append("The dataset has changed since the model was trained on it.")
    purpose: Purpose = "auxiliary" if auxiliary else "own_data" if own else "requested"
    target = EvaluationTarget(
        model_folder=version.files(),
        dataset=dataset,
        split=recipe.split,
        model_id=version.id,
        dataset_name=name,
        dataset_path=path,
        notes=notes,
        letterbox=recipe.letterbox,
    )
    return evaluate_and_store(target, purpose, job, registry, (begin, end))


def evaluate_and_store(
    target: EvaluationTarget,
    purpose: Purpose,
    job: JobHandle,
    registry: Registry,
    share: tuple[float, float] = (0.0, 1.0),
) -> EvaluationRow:
    """Evaluate a published version, store the evaluation, and update the version's metrics.

    An engine of a version before is made again first. An evaluation with another letterbox than
    the one that serves leaves the version's metrics unchanged.

    Args:
        target: The version and the split; `model_id` is a full `name:version`.
        purpose: Decides whether the version's metrics are updated, see `update_metrics`.
        job: Receives progress and log lines; checked for a requested stop.
        registry: Contains the model and the settings.
        share: Start and end of this evaluation within the job's progress, 0 to 1.

    Raises:
        ModelNotFound: The version was deleted in the meantime; its evaluation is deleted too.
        JobCancelled: A stop was requested.
    """
    store = EvaluationStore(registry.database)
    served = renewed_letterbox(target.model_id, job, registry)
    kind = target.letterbox or served
    if note := _other_letterbox(target, kind, store):
        target = replace(target, notes=[*target.notes, note])
    job.log(f"Evaluating {target.model_id} on {target.split} of {target.dataset_name}.")
    output = job.folder / "evaluation"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    found = evaluate(
        target,
        registry.settings,
        output=output,
        progress=_Progress(job, *share),
        job_id=job.id,
    )
    row = store.add(target, output, found.metrics, found.report["letterbox"], job.id)
    try:
        update_metrics(row, registry, purpose, served=row.letterbox == served)
    except ModelNotFound:  # deleted in the meantime
        store.delete_for(target.model_id)
        raise
    job.advance(share[1], found.metrics if purpose != "auxiliary" else {})
    for note in found.report["notes"]:
        job.log(note)
    shown = ", ".join(f"{k} {found.metrics[k]:.4g}" for k in SHOWN if k in found.metrics)
    job.log(f"Evaluated on {len(target.images)} images: {shown}.")
    return row


def renewed_letterbox(model_id: str, job: JobHandle, registry: Registry) -> LetterboxKind | None:
    """The letterbox that serves a version, after its engine of a version before was made again.

    Raises:
        ModelNotFound: The version was deleted.
    """
    version = registry.get(model_id)
    folder = version.files()
    if is_outdated(folder, version.description):
        job.log(f"The engine of {version.id} takes squares only; it is made again first.")
        if (reason := renew(folder, version.description)) is not None:
            job.log(f"The engine of {version.id} stays as it is: {reason}.")
    return served_letterbox(folder, version.description, registry.settings)


def _other_letterbox(target: EvaluationTarget, kind: str | None, store: EvaluationStore) -> str:
    """A note if the last evaluation on the same images had another letterbox; else empty."""
    for row in store.history(target.model_id):
        if (row.fingerprint, row.split) == (target.dataset.fingerprint, target.split):
            if row.letterbox == kind:
                return ""
            return (
                f"The evaluation of {row.created_at[:10]} on these images padded them "
                f"{PADDED[row.letterbox]}, this one pads them {PADDED[kind]}: the metrics of the "
                "two are not compared."
            )
    return ""


def update_metrics(
    row: EvaluationRow, registry: Registry, purpose: Purpose, served: bool = True
) -> None:
    """Copy an evaluation's metrics to its model version, if comparable with the present ones.

    The metrics of a trained version always come from the val split of its training data. Those of
    an imported version come from the newest requested evaluation that is not on a train split.

    Args:
        row: The evaluation.
        registry: Contains the version.
        purpose: Why the evaluation was made.
        served: Whether it was made with the letterbox that serves; else the metrics stay.

    Raises:
        ModelNotFound: The version was deleted.
    """
    registry.refresh()
    known = registry.get(row.model_id)
    if not served:
        return
    present = known.metrics or {}
    if purpose != "own_data":
        same = (row.dataset, row.split) == (present.get("dataset"), present.get("split"))
        foreign = known.source.get("kind") in ("import", "fetch") and row.split != "train"
        if not (same or (purpose == "requested" and (foreign or "split" not in present))):
            return
    metrics: dict[str, Any] = {name: present[name] for name in INCREMENTAL if name in present}
    if metrics:
        measured = present.get(INCREMENTAL_LETTERBOX, present.get("letterbox"))
        if measured != row.letterbox:
            metrics[INCREMENTAL_LETTERBOX] = measured
    metrics |= {**row.figures, "split": row.split, "dataset": row.dataset, "evaluation": row.id}
    if row.letterbox is not None:
        metrics["letterbox"] = row.letterbox
    registry.set_metrics(known.id, metrics | {"last_updated": row.created_at})


class _Progress:
    """Progress callback: advances a job from `begin` to `end`.

    Raises:
        JobCancelled: A stop was requested.
    """

    def __init__(self, job: JobHandle, begin: float, end: float) -> None:
        self.job, self.begin, self.end = job, begin, end

    def __call__(self, done: int, total: int) -> None:
        self.job.advance(self.begin + (self.end - self.begin) * done / max(1, total))
        self.job.check()
