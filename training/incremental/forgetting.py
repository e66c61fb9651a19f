"""What an incremental training kept, lost and learned: each class before and after.

Both models are measured as they are served. Old classes are measured on the old data's val split
where there is one, else on the new data's, as far as it has labels of them; what cannot be
measured is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dataset.class_matching import matched
from models_store.description import Task

if TYPE_CHECKING:
    pass

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
    """Put the reports of `evaluation.evaluator` side by side.

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
