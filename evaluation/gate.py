"""The promotion gate: decides from two evaluation reports whether a new version is promoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dataset.class_matching import matched
from errors import ValidationFailed
from evaluation.comparison import compare_reports
from settings import Figure, Settings

MAIN = {
    "classification": "accuracy",
    "detection": "mAP50_95",
    "segmentation": "mask_mAP50_95",
    "pose": "pose_mAP50_95",
}
METRICS: tuple[str, ...] = get_args(Figure)
TOLERANCE = 1e-9  # metrics that differ by less are equal
SHOWN = 5  # classes that are named

Report = Mapping[str, Any]


class Gate(BaseModel):
    """The conditions for promoting a new version over the promoted one, on the same split.

    `min_gain` and `max_class_drop` are differences of metrics between 0 and 1: 0.05 is five
    percentage points.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str | None = Field(
        None,
        max_length=4096,
        description=(
            "path or id of the dataset; empty: one that both versions were evaluated on, or "
            "else the dataset that the new version was trained on"
        ),
    )
    split: str | None = Field(None, max_length=20, description="train, val or test (default: val)")
    metric: str | None = Field(
        None,
        description=(
            f"one of {', '.join(METRICS)}; empty: accuracy for a classifier, or else mAP50-95 of "
            "boxes, masks or poses"
        ),
        examples=["mAP50_95"],
    )
    min_gain: float = Field(
        0.0, ge=-1, le=1, description="the smallest gain that passes, from -1 to 1"
    )
    max_class_drop: float = Field(
        0.05, ge=0, le=1, description="the largest loss of a single class that passes, from 0 to 1"
    )
    allow_unmeasured: bool = Field(
        False,
        description=(
            "true or false: whether to promote even if the dataset has no object of a class "
            "that the promoted version knows"
        ),
    )

    @field_validator("split", mode="before")
    @classmethod
    def _plain(cls, value: object) -> object:
        return (value.strip().lower() or None) if isinstance(value, str) else value


@dataclass(frozen=True)
class Regression:
    """A class whose metric regressed by more than the gate allows.

    Attributes:
        name: The class.
        metric: The metric by which it is judged.
        old: The promoted version's value.
        new: The new version's value; 0 if it does not know the class.
        instances: Number of the class's objects in the split; of a classifier, of its images.
    """

    name: str
    metric: str
    old: float
    new: float
    instances: int

    @property
    def drop(self) -> float:
        return self.old - self.new

    def to_json(self) -> dict[str, Any]:
        return {
            "class": self.name,
            "metric": self.metric,
            "old": self.old,
            "new": self.new,
            "instances": self.instances,
        }


@dataclass(frozen=True)
class GateDecision:
    """The gate's decision and its reasons.

    Attributes:
        promote: Whether to promote.
        reasons: Sentences; for a refusal, only the conditions that are not met.
        comparison: The comparison of the two reports; None if no version was promoted before.
        regressed: All classes that regressed by more than is allowed, worst first.
    """

    promote: bool
    reasons: tuple[str, ...]
    comparison: dict[str, Any] | None = None
    regressed: tuple[Regression, ...] = ()


def default_gate(settings: Settings) -> Gate:
    """The gate that the settings describe, also if promotions do not have to pass it."""
    return Gate(
        dataset=settings.gate_dataset,
        metric=settings.gate_metric,
        min_gain=settings.gate_min_gain,
        max_class_drop=settings.gate_max_class_drop,
        allow_unmeasured=settings.gate_allow_unmeasured,
    )


def decide(
    candidate: Report,
    promoted: Report | None,
    gate: Gate,
    known: Sequence[str] = (),
    old: tuple[Report, Report] | None = None,
) -> GateDecision:
    """The gate's decision on a new version, from its report and the promoted version's.

    A class is judged by the gate's metric if the report has it per class, else by its F1. A class
    that only the promoted version knows counts as regressed to 0. A class without an object in the
    dataset cannot be judged: then the promotion is refused, unless the gate allows it.

    Args:
        candidate: Report on the new version.
        promoted: Report on the promoted version, of the same split; None: no version is promoted.
        gate: The conditions.
        known: The promoted version's classes.
        old: After incremental training, the reports on the new and on the promoted version, of the
            old data. No gain is required on it, and the metric may regress by `max_class_drop`.

    Raises:
        ValidationFailed: Models of this type do not have the metric.
        Conflict: The reports are of different splits.
    """
    if promoted is None:
        name = candidate["model"]["name"]
        return GateDecision(
            True, (f"No version of '{name}' is promoted yet: nothing was compared.",)
        )
    metric = gate.metric or MAIN[candidate["model"]["type"]]
    for report in (promoted, candidate, *(old or ())):
        if metric not in METRICS or metric not in report["figures"]:
            known_metrics = ", ".join(name for name in METRICS if name in report["figures"])
            raise ValidationFailed(f"'gate.metric' is {metric[:40]!r}; use one of {known_metrics}.")
    compared = compare_reports(promoted, candidate)
    rows: list[dict[str, Any]] = compared["classes"]
    gains = [_gain(compared["figures"][metric], metric, gate)]
    if old is not None:
        before = compare_reports(old[1], old[0])
        compared["old_data"] = {key: before[key] for key in ("dataset", "figures", "classes")}
        rows = rows + before["classes"]
        gains.append(_retention(before["figures"][metric], metric, gate))
    regressed, summary = _regressions(rows, metric, gate)
    unmeasured = _unmeasured(rows, known)
    failed = [sentence for enough, sentence in gains if not enough]
    failed += [_regression(one, gate) for one in regressed[:SHOWN]]
    if len(regressed) > SHOWN:
        failed.append(f"{len(regressed) - SHOWN} more classes regressed by more than is allowed.")
    if unmeasured and not gate.allow_unmeasured:
        failed.append(
            f"{unmeasured} Use a dataset that has objects of these classes, or set "
            "allow_unmeasured."
        )
    if failed:
        return GateDecision(False, tuple(failed), compared, tuple(regressed))
    reasons = (*(sentence for _, sentence in gains), summary, unmeasured)
    return GateDecision(True, tuple(sentence for sentence in reasons if sentence), compared)


def _gain(change: Mapping[str, float], metric: str, gate: Gate) -> tuple[bool, str]:
    """Whether the metric gained enough, and a sentence on it."""
    gain = change["b"] - change["a"]
    enough = gain >= gate.min_gain - TOLERANCE
    required = f"at least {gate.min_gain:+.3g} is required" if gate.min_gain else "no loss allowed"
    return enough, f"{_change(change, metric)} ({gain:+.3f}; {required})."


def _retention(change: Mapping[str, float], metric: str, gate: Gate) -> tuple[bool, str]:
    """Whether the loss on the old data is small enough, and a sentence on it."""
    gain = change["b"] - change["a"]
    enough = gain >= -gate.max_class_drop - TOLERANCE
    allowed = f"a loss of {gate.max_class_drop:g} is allowed"
    return enough, f"On the old data {_change(change, metric)} ({gain:+.3f}; {allowed})."


def metric_name(metric: str) -> str:
    """The name of a metric in sentences and plots, as the field writes it; the wire's name stays.

    Examples:
        >>> metric_name("mask_mAP50_95")
        'mask mAP50-95'
    """
    return metric.replace("mAP50_95", "mAP50-95").replace("_", " ")


def _change(change: Mapping[str, float], metric: str) -> str:
    return f"{metric_name(metric)} went from {change['a']:.3f} to {change['b']:.3f}"


def _regressions(
    classes: list[dict[str, Any]], metric: str, gate: Gate
) -> tuple[list[Regression], str]:
    """The classes that regressed too far, worst first, and a summary sentence."""
    drops = []
    for entry in classes:
        name = metric if metric in entry["a"] else "f1_score"
        if name in entry["a"] and entry["instances"]:
            values = entry["a"][name], entry["b"].get(name, 0.0)
            drops.append(Regression(entry["name"], name, *values, entry["instances"]))
    drops.sort(key=lambda one: -one.drop)
    regressed = [one for one in drops if one.drop > gate.max_class_drop + TOLERANCE]
    if not drops:
        return regressed, "No class could be compared."
    if drops[0].drop <= 0:
        return regressed, f"No class regressed, of {len(drops)} that have objects."
    worst = drops[0]
    return regressed, (
        f"No class regressed by more than {gate.max_class_drop:g} in {worst.metric}; "
        f"'{worst.name}' regressed most, by {worst.drop:.3f}."
    )


def _regression(one: Regression, gate: Gate) -> str:
    """A sentence on a class that regressed too far."""
    return (
        f"'{one.name}' regressed from {one.old:.3f} to {one.new:.3f} in {one.metric} "
        f"(−{one.drop:.3f}; {gate.max_class_drop:g} is allowed; {one.instances} "
        f"{'object' if one.instances == 1 else 'objects'})."
    )


def _unmeasured(classes: list[dict[str, Any]], known: Sequence[str]) -> str:
    """A sentence on the promoted version's classes without an object; empty if all have one."""
    measured = matched(known, [entry["name"] for entry in classes if entry["instances"]])
    names = [name for i, name in enumerate(known) if i not in measured]
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = f"{', '.join(names[:SHOWN])}{more}"
    return f"Not measured, because the dataset has no object of these classes: {listed}."
