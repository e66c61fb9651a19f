"""Measures and reports forgetting, as a step of the training job."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dataset.allowed_roots import data_roots, shown_name
from dataset.dataset import Dataset
from dataset.inspection import check
from errors import Conflict, VisionLoopError
from evaluation.gate import default_gate
from evaluation.letterbox import PADDED
from evaluation.results import INCREMENTAL
from evaluation.store import PLOTS, REPORT, EvaluationRow, EvaluationStore, report_in
from evaluation.target import EvaluationTarget
from files import atomic_write
from models_store.description import ONNX_FILE, ModelDescription
from models_store.registry import Registry
from models_store.versions import ModelVersion
from training.incremental.folder_report import folder_report
from training.incremental.forgetting import FILE, PLOT, Forgetting, Report, compare
from training.planning.recipe import Recipe, shown_config

if TYPE_CHECKING:
    from jobs.handle import JobHandle


def report_forgetting(
    version: ModelVersion, row: EvaluationRow, recipe: Recipe, job: JobHandle, registry: Registry
) -> Forgetting | None:
    """Evaluate the base model and the new version, and store the forgetting report.

    The version is already published and stays published if this fails.

    Args:
        version: The new version.
        row: Its evaluation on the val split of the new data; the report is stored with it.
        recipe: The recipe of the incremental training.
        job: The job; it gets the progress, and is checked for cancellation.
        registry: The registry that has the models.

    Returns:
        The report; None if it was stored before, or could not be made (the log says why).

    Raises:
        JobCancelled: The job was cancelled, or the service stops.
    """
    try:
        store = EvaluationStore(registry.database)
        kept = store.files(row)
        if (kept / FILE).is_file():
            stored = json.loads((kept / FILE).read_text(encoding="utf-8"))
            figures = {name: stored[name] for name in INCREMENTAL if stored[name] is not None}
            _show(figures, stored["warning"], version, recipe, job, registry)
            return None
        found = _measure(version, kept, recipe, job, registry)
        _keep(found, kept)
        store.share(row)
        job.log(found.sentence)
        _show(found.figures, found.warning, version, recipe, job, registry)
        return found
    except Exception as error:
        if not isinstance(error, VisionLoopError):
            traceback.print_exc()
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        job.log(f"Forgetting could not be measured: {reason}")
        return None


def _show(
    figures: Mapping[str, float],
    warning: str,
    version: ModelVersion,
    recipe: Recipe,
    job: JobHandle,
    registry: Registry,
) -> None:
    """Put the result of a report into the metrics of model and job, and the warning into the notes.

    Also if the report was made before: the process may have died in between.
    """
    present = registry.get(version.id).metrics or {}
    others = {name: value for name, value in present.items() if name not in figures}
    registry.set_metrics(version.id, {**figures, **others})
    job.advance(1.0, figures)
    if warning and warning not in recipe.notes:
        noted = recipe.model_copy(update={"notes": (*recipe.notes, warning)})
        job.replace_recipe(noted.model_dump(mode="json"), shown_config(noted))


def stored_warning(row: EvaluationRow, registry: Registry) -> str:
    """The warning of the stored forgetting report of an evaluation; empty if there is none."""
    try:
        text = (EvaluationStore(registry.database).files(row) / FILE).read_text(encoding="utf-8")
        return str(json.loads(text).get("warning") or "")
    except (OSError, ValueError):
        return ""


def _measure(
    version: ModelVersion, kept: Path, recipe: Recipe, job: JobHandle, registry: Registry
) -> Forgetting:
    settings = registry.settings
    roots = data_roots(settings)
    paths = {"new": recipe.dataset}
    if recipe.incremental is not None and recipe.incremental.old_data:
        paths["old"] = recipe.incremental.old_data
    data: dict[str, Dataset] = {
        name: check(path, recipe.task, roots, min_classes=1) for name, path in paths.items()
    }
    origin = recipe.origin
    base = registry.get(origin.value) if origin.kind == "model" else None
    folder = base.path if base else job.folder / "base"
    after: dict[str, Report] = {"new": report_in(kept)}
    before: dict[str, Report] = {}
    for name, dataset in data.items():
        path = Path(paths[name])
        job.log(f"Measuring the old model on {shown_name(path, settings)}.")
        if base is not None and (folder / ONNX_FILE).is_file():
            before[name] = _evaluated(base, dataset, path, job, registry)
        else:
            before[name] = folder_report(folder, dataset, job)
        if name not in after:
            after[name] = _evaluated(version, dataset, path, job, registry)
        letterboxes = [report["letterbox"] for report in (before[name], after[name])]
        if letterboxes[0] != letterboxes[1]:
            raise Conflict(
                f"Images were padded {PADDED[letterboxes[0]]} for the old model, and "
                f"{PADDED[letterboxes[1]]} for the new one."
            )
    names = ModelDescription.load(folder).names
    added = version.description.names[len(names) :]
    allowed = default_gate(settings).max_class_drop
    return compare(recipe.task, names, before, after, origin.shown, version.id, added, allowed)


def _evaluated(
    version: ModelVersion, dataset: Dataset, path: Path, job: JobHandle, registry: Registry
) -> Report:
    """A version's report on the val split, stored as an evaluation that the gate can use too."""
    from evaluation.job import evaluate_and_store, renewed_letterbox

    target = EvaluationTarget(
        model_folder=version.files(),
        dataset=dataset,
        model_id=version.id,
        dataset_name=shown_name(path, registry.settings),
        dataset_path=path,
    )
    store = EvaluationStore(registry.database)
    kind = renewed_letterbox(version.id, job, registry)
    row = store.latest(version.id, dataset.fingerprint, target.split, kind)
    row = row or evaluate_and_store(target, "auxiliary", job, registry, (1.0, 1.0))
    return store.report(row)


def _keep(found: Forgetting, folder: Path) -> None:
    """Store the plot and the report with the evaluation; `FILE` last, as it marks completion."""
    from training.incremental.forgetting_plot import write_plot

    write_plot(found, folder / PLOTS / f"{PLOT}.png")
    report = {"forgetting": found.to_json()} | report_in(folder)
    report["plots"] = [*(name for name in report["plots"] if name != PLOT), PLOT]
    for name, content in ((REPORT, report), (FILE, found.to_json())):
        atomic_write(folder / name, json.dumps(content, allow_nan=False))
