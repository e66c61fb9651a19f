"""What an incremental training kept, lost and learned: each class before and after.

Both models are measured as they are served. Old classes are measured on the old data's val split
where there is one, else on the new data's, as far as it has labels of them; what cannot be
measured is said.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from errors import VisionLoopError
from inference.device import device
from models_store.description import ONNX_FILE, ModelDescription, Task
from models_store.registry import Registry
from models_store.versions import ModelVersion
from training.data_roots import data_roots, shown_name
from training.datasets import Dataset, check
from training.evaluation import evaluate
from training.evaluations import PLOTS, REPORT, EvaluationRow, EvaluationStore
from training.joined_classes import matched
from training.recipe import Recipe

if TYPE_CHECKING:
    from training.worker import JobHandle

FILE = "forgetting.json"  # beside the evaluation's report
PLOT = "forgetting"
METRICS: dict[Task, str] = {
    "detect": "mAP50_95",
    "segment": "mask_mAP50_95",
    "pose": "pose_mAP50_95",
    "classify": "accuracy",
}

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Forgetting:
    """The comparison of a base model and what became of it.

    Attributes:
        metric: What is compared, 0 to 1.
        base, model: Ids; the base's file name where it is none of the registry.
        classes: A row each: name, kind (`old` or `new`), objects, on (`old` or `new` data),
            before (None for new classes) and after.
        unmeasured: Old classes without a labelled object in any val split at hand.
        imgsz: The sizes at which both were measured, in pixels; None: the reports do not say.
    """

    metric: str
    base: str
    model: str
    classes: tuple[Mapping[str, Any], ...]
    unmeasured: tuple[str, ...]
    imgsz: tuple[int, int] | None = None

    def mean(self, kind: str, moment: str) -> float | None:
        """Over the classes that were measured."""
        values = [
            row[moment] for row in self.classes if row["kind"] == kind and row[moment] is not None
        ]
        return fmean(values) if values else None

    @property
    def figures(self) -> dict[str, float]:
        """The summary: means of the old classes before and after, their fall, the new ones'."""
        before, after = self.mean("old", "before"), self.mean("old", "after")
        found = {
            "old_classes_before": before,
            "old_classes": after,
            "forgotten": None if before is None or after is None else before - after,
            "new_classes": self.mean("new", "after"),
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def worst(self) -> Mapping[str, Any] | None:
        """The old class that fell most; None: none fell."""
        fallen = [
            row
            for row in self.classes
            if None not in (row["before"], row["after"]) and row["after"] < row["before"]
        ]
        return max(fallen, key=lambda row: row["before"] - row["after"], default=None)

    @property
    def sentence(self) -> str:
        """The summary for the log."""
        figures, parts = self.figures, []
        if "old_classes" in figures:
            before, after = figures["old_classes_before"], figures["old_classes"]
            parts.append(f"old classes {before:.3f} before, {after:.3f} after")
            if (worst := self.worst) is not None:
                before, after = worst["before"], worst["after"]
                parts.append(f"'{worst['name']}' fell most, from {before:.3f} to {after:.3f}")
        if "new_classes" in figures:
            parts.append(f"new classes {figures['new_classes']:.3f}")
        if self.imgsz and self.imgsz[0] != self.imgsz[1]:
            parts.append(
                f"measured at {self.imgsz[0]} pixels before, {self.imgsz[1]} after, so a part of "
                "the difference may be the resolution's"
            )
        if self.unmeasured:
            some = ", ".join(self.unmeasured[:5]) + (", …" if len(self.unmeasured) > 5 else "")
            parts.append(
                f"{len(self.unmeasured)} old classes could not be measured, as no val split "
                f"given has objects of them ({some}): give old_data_path"
            )
        return f"Mean {self.metric}: {'; '.join(parts)}."

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "base": self.base,
            "model": self.model,
            **self.figures,
            "classes": [dict(row) for row in self.classes],
            "unmeasured": list(self.unmeasured),
            "imgsz": {"before": self.imgsz[0], "after": self.imgsz[1]} if self.imgsz else None,
        }


def compare(
    task: Task,
    old_names: Sequence[str],
    before: Mapping[str, Report],
    after: Mapping[str, Report],
    base: str = "",
    model: str = "",
) -> Forgetting:
    """Put the reports of `training.evaluation` side by side.

    Args:
        task: Of both models.
        old_names: The classes that the base model knows.
        before: `old`, `new` → the base model's report on that data's val split.
        after: The same of what became of it.
        base, model: Their ids.
    """
    metric = METRICS[task]
    names = (*old_names, *_added(after, old_names))
    later = {data: _rows(report, names) for data, report in after.items()}
    sooner = {data: _rows(report, names) for data, report in before.items()}
    rows = []
    for i, name in enumerate(names):
        is_old = i < len(old_names)
        for data in ("old", "new") if is_old else ("new", "old"):
            found = later.get(data, {}).get(name)
            earlier = sooner.get(data, {}).get(name)
            if found is None or (is_old and earlier is None):
                continue
            row = {"name": name, "kind": "old" if is_old else "new", "on": data}
            row |= {"objects": found["instances"], "after": found[metric]}
            rows.append(row | {"before": earlier[metric] if is_old and earlier else None})
            break
    measured = {row["name"] for row in rows}
    unmeasured = tuple(name for name in old_names if name not in measured)
    sizes = [next((r.get("imgsz") for r in some.values()), None) for some in (before, after)]
    imgsz = (int(sizes[0]), int(sizes[1])) if sizes[0] and sizes[1] else None
    return Forgetting(metric, base, model, tuple(rows), unmeasured, imgsz)


def report_forgetting(
    version: ModelVersion, row: EvaluationRow, recipe: Recipe, job: JobHandle, registry: Registry
) -> Forgetting | None:
    """Measure the base model and the new version, and keep the comparison with its evaluation.

    The model is published by now and stays, whatever happens here.

    Args:
        version: The new version.
        row: Its evaluation on the new data's val split.
        recipe: Of mode incremental.
        job: Told; asked whether to end.
        registry: Has both models.

    Raises:
        JobCancelled: A stop was asked for.
    """
    try:
        kept = EvaluationStore(registry.database).folder(row)
        if (kept / FILE).is_file():
            return None
        found = _measure(version, kept, recipe, job, registry)
        _keep(found, kept)
        present = registry.get(version.id).metrics or {}
        registry.set_metrics(version.id, {**present, **found.figures})
        job.advance(1.0, found.figures)
        job.log(found.sentence)
        return found
    except Exception as error:
        if not isinstance(error, VisionLoopError):
            traceback.print_exc()
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        job.log(f"What was forgotten could not be measured: {reason}")
        return None


def _measure(
    version: ModelVersion, kept: Path, recipe: Recipe, job: JobHandle, registry: Registry
) -> Forgetting:
    settings = registry.settings
    roots = data_roots(settings)
    paths = {"new": recipe.dataset}
    if recipe.incremental is not None and recipe.incremental.old_data:
        paths["old"] = recipe.incremental.old_data
    data: dict[str, Dataset] = {
        name: check(path, recipe.task, roots, fewest=1) for name, path in paths.items()
    }
    origin = recipe.origin
    base = registry.get(origin.value) if origin.kind == "model" else None
    folder = base.path if base else job.folder / "base"
    after = {"new": json.loads((kept / REPORT).read_text())}
    before: dict[str, Report] = {}
    for name, dataset in data.items():
        path = Path(paths[name])
        job.log(f"Measuring what was known before on {shown_name(path, settings)}.")
        if base is not None and (folder / ONNX_FILE).is_file():
            before[name] = _evaluated(base, dataset, path, job, registry)
        else:
            before[name] = _evaluate(folder, dataset, job, registry)
        if name not in after:
            after[name] = _evaluated(version, dataset, path, job, registry)
    names = ModelDescription.load(folder).names
    return compare(recipe.task, names, before, after, origin.shown, version.id)


def _evaluated(
    version: ModelVersion, dataset: Dataset, path: Path, job: JobHandle, registry: Registry
) -> Report:
    """The report on val of a version; it stays in the history, where the gate finds it."""
    from training.evaluating import measure

    name = shown_name(path, registry.settings)
    store = EvaluationStore(registry.database)
    row = store.latest(version.id, dataset.fingerprint, "val") or measure(
        version, dataset, path, name, "val", job, registry, (1.0, 1.0), (), "aside"
    )
    return store.report(row)


def _evaluate(folder: Path, dataset: Dataset, job: JobHandle, registry: Registry) -> Report:
    """The report on val; with the engine that serves, or PyTorch where nothing was exported."""
    loaded = None
    if not (folder / ONNX_FILE).is_file():
        from inference.torch_engine import TorchEngine  # torch

        where = device(registry.settings)
        description = ModelDescription.load(folder)
        loaded = (TorchEngine(folder, "cpu" if where == "cpu" else "cuda", False), description)
    output = job.folder / "evaluation"
    output.mkdir(parents=True, exist_ok=True)
    return evaluate(
        folder,
        dataset,
        "val",
        registry.settings,
        output=output,
        progress=lambda *_: job.check(),
        loaded=loaded,
    ).report


def _keep(found: Forgetting, folder: Path) -> None:
    """Beside the evaluation, and in its report; the file that says it is done comes last."""
    from training.forgetting_plot import write_plot

    write_plot(found, folder / PLOTS / f"{PLOT}.png")
    report = json.loads((folder / REPORT).read_text())
    report["forgetting"] = found.to_json()
    report["plots"] = [*(name for name in report["plots"] if name != PLOT), PLOT]
    for name, content in ((REPORT, report), (FILE, found.to_json())):
        temporary = folder / f"{name}.writing"
        temporary.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        os.replace(temporary, folder / name)


def _rows(report: Report, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The rows of those classes that have objects there."""
    rows = report["classes"]
    found = zip(names, matched([row["name"] for row in rows], names), strict=True)
    return {name: rows[i] for name, i in found if i is not None and rows[i]["instances"]}


def _added(after: Mapping[str, Report], known: Sequence[str]) -> list[str]:
    """Names of measured classes that the base model does not know, in order of id."""
    rows: dict[str, int] = {}
    for report in after.values():
        names = [row["name"] for row in report["classes"]]
        for row, i in zip(report["classes"], matched(known, names), strict=True):
            if i is None:
                rows.setdefault(row["name"], row["class_id"])
    return sorted(rows, key=rows.__getitem__)
