"""The forgetting report: metrics of each class before and after an incremental training.

Both models are evaluated with their serving engine, or with PyTorch if none was exported. An old
class is measured on the val split of the old data if it has objects there, else on the val split
of the new data. Old classes without objects in either are listed as unmeasured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dataset.class_matching import matched
from models_store.description import Task

NO_NEW = "none, because the new data has no class that the base model lacks"
FILE = "forgetting.json"  # in the evaluation's folder, next to its report
PLOT = "forgetting"
TOLERANCE = 1e-9  # drops that differ by less are equal
METRICS: dict[Task, str] = {
    "detect": "mAP50_95",
    "segment": "mask_mAP50_95",
    "pose": "pose_mAP50_95",
    "classify": "accuracy",
}

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Forgetting:
    """The comparison of a base model with the model trained from it.

    Attributes:
        metric: Name of the metric that is compared; its values are 0 to 1.
        base, model: Model ids; the file name of a base model that is not in the registry.
        classes: One row per class: name, kind (`old` or `new`), objects, on (`old` or `new`
            data), before (None for new classes) and after.
        added: Names of the new classes.
        unmeasured: Old classes without a labelled object in any of the val splits.
        imgsz: Input sizes of the base model and of the new one, in pixels; None: not in the
            reports.
        allowed_drop: The largest drop of an old class that the gate of the settings allows.
    """

    metric: str
    base: str
    model: str
    classes: tuple[Mapping[str, Any], ...]
    added: tuple[str, ...]
    unmeasured: tuple[str, ...]
    imgsz: tuple[int, int] | None = None
    allowed_drop: float = 1.0

    def mean(self, kind: str, moment: str) -> float | None:
        """Mean of the metric over the measured classes; None if there are none.

        Args:
            kind: `old` or `new` classes.
            moment: `before` or `after` the training.
        """
        values = [
            row[moment] for row in self.classes if row["kind"] == kind and row[moment] is not None
        ]
        return fmean(values) if values else None

    @property
    def figures(self) -> dict[str, float]:
        """Summary metrics: means of old classes before and after, their drop, mean of new ones."""
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
        """The row of the old class that regressed most; None: no class regressed."""
        fallen = [
            row
            for row in self.classes
            if None not in (row["before"], row["after"]) and row["after"] < row["before"]
        ]
        return max(fallen, key=lambda row: row["before"] - row["after"], default=None)

    @property
    def regressed(self) -> tuple[Mapping[str, Any], ...]:
        """The rows of old classes that dropped by more than is allowed, worst first."""
        rows = [row for row in self.classes if None not in (row["before"], row["after"])]
        drops = sorted(rows, key=lambda row: row["after"] - row["before"])
        limit = self.allowed_drop + TOLERANCE
        return tuple(row for row in drops if row["before"] - row["after"] > limit)

    @property
    def warning(self) -> str:
        """A sentence on the old classes that dropped by more than is allowed; empty if none did."""
        rows = self.regressed
        if not rows:
            return ""
        some = [
            f"'{row['name']}' from {row['before']:.3f} to {row['after']:.3f} ({row['objects']} "
            f"{'object' if row['objects'] == 1 else 'objects'})"
            for row in rows[:5]
        ]
        more = f", and {len(rows) - 5} more" if len(rows) > 5 else ""
        return (
            f"{self.model or 'The new model'} has forgotten more than the gate allows "
            f"({self.allowed_drop:g} of {self.metric}) of {len(rows)} old "
            f"{'class' if len(rows) == 1 else 'classes'}: {', '.join(some)}{more}. Give more old "
            "images (old_data_path, max_replay_samples), or keep using "
            f"{self.base or 'the base model'}."
        )

    @property
    def sentence(self) -> str:
        """The summary for the log."""
        figures = self.figures
        old, new = "not measured", "not measured"
        if "old_classes" in figures:
            before, after = figures["old_classes_before"], figures["old_classes"]
            change = "forgotten" if after < before else "gained"
            old = f"{before:.3f} before, {after:.3f} after, {change} {abs(before - after):.3f}"
            if (worst := self.worst) is not None:
                before, after = worst["before"], worst["after"]
                old += f" ('{worst['name']}' regressed most, from {before:.3f} to {after:.3f})"
        if "new_classes" in figures:
            new = f"{figures['new_classes']:.3f}"
        elif not self.added:
            new = NO_NEW
        parts = [f"Old classes: {old}", f"new classes: {new}", f"each a mean {self.metric}"]
        if self.imgsz and self.imgsz[0] != self.imgsz[1]:
            parts.append(
                f"measured at {self.imgsz[0]} pixels before and {self.imgsz[1]} after, so the "
                "resolution may cause a part of the difference"
            )
        if self.unmeasured:
            some = ", ".join(self.unmeasured[:5]) + (", …" if len(self.unmeasured) > 5 else "")
            parts.append(
                f"{len(self.unmeasured)} old classes could not be measured, because no val split "
                f"has objects of them ({some}); give old_data_path to measure them"
            )
        return " ".join(part for part in (f"{'; '.join(parts)}.", self.warning) if part)

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "base": self.base,
            "model": self.model,
            "old_classes_before": None,
            "old_classes": None,
            "forgotten": None,
            "new_classes": None,
            **self.figures,
            "added": list(self.added),
            "summary": self.sentence,
            "classes": [dict(row) for row in self.classes],
            "unmeasured": list(self.unmeasured),
            "allowed_drop": self.allowed_drop,
            "regressed": [row["name"] for row in self.regressed],
            "warning": self.warning,
            "imgsz": {"before": self.imgsz[0], "after": self.imgsz[1]} if self.imgsz else None,
        }


def compare(
    task: Task,
    old_names: Sequence[str],
    before: Mapping[str, Report],
    after: Mapping[str, Report],
    base: str = "",
    model: str = "",
    added: Sequence[str] | None = None,
    allowed_drop: float = 1.0,
) -> Forgetting:
    """Compare the evaluation reports of a base model and of the model trained from it.

    Args:
        task: The task of both models.
        old_names: Names of the base model's classes.
        before: `old` or `new` (the dataset) → the base model's report on its val split.
        after: `old` or `new` → the new model's report on its val split.
        base, model: Ids of both models.
        added: Names of the new classes; None: those in the reports that the base model lacks.
        allowed_drop: The largest drop of a class that the gate of the settings allows.
    """
    metric = METRICS[task]
    added = _added(after, old_names) if added is None else added
    names = (*old_names, *added)
    later = {data: measured_rows(report, names) for data, report in after.items()}
    sooner = {data: measured_rows(report, names) for data, report in before.items()}
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
    return Forgetting(
        metric, base, model, tuple(rows), tuple(added), unmeasured, imgsz, allowed_drop
    )


def measured_rows(report: Report, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Class name → row of the report, for those of `names` that have objects in the report."""
    rows = report["classes"]
    found = zip(names, matched([row["name"] for row in rows], names), strict=True)
    return {name: rows[i] for name, i in found if i is not None and rows[i]["instances"]}


def _added(after: Mapping[str, Report], known: Sequence[str]) -> list[str]:
    """Names of classes in the reports that are not in `known`, in order of id."""
    rows: dict[str, int] = {}
    for report in after.values():
        names = [row["name"] for row in report["classes"]]
        for row, i in zip(report["classes"], matched(known, names), strict=True):
            if i is None:
                rows.setdefault(row["name"], row["class_id"])
    return sorted(rows, key=rows.__getitem__)
