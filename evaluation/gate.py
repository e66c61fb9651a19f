"""The gate between a trained model and the traffic: one comparison, one verdict, its reasons."""

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
TOLERANCE = 1e-9  # figures that differ by less are equal
SHOWN = 5  # classes that are named one by one

Report = Mapping[str, Any]


class Gate(BaseModel):
    """What a new version must show beside the promoted one, on the same split.

    `min_gain` and `max_class_drop` are differences of figures from 0 to 1: 0.05 is five points.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str | None = Field(
        None,
        max_length=4096,
        description="path or id of the data set; empty: one that both were evaluated on, else "
        "what the new version was trained with",
    )
    split: str | None = Field(None, max_length=20, description="train, val or test (val)")
    metric: str | None = Field(
        None,
        description=f"one of {', '.join(METRICS)}; empty: accuracy of a classifier, mAP50_95 of "
        "boxes, masks or poses otherwise",
        examples=["mAP50_95"],
    )
    min_gain: float = Field(0.0, ge=-1, le=1, description="the least gain, from -1 to 1")
    max_class_drop: float = Field(
        0.05, ge=0, le=1, description="what a single class may lose, from 0 to 1"
    )
    allow_unmeasured: bool = Field(
        False,
        description="true or false: promote although the data has no object of some class that "
        "the promoted version knows",
    )

    @field_validator("split", mode="before")
    @classmethod
    def _plain(cls, value: object) -> object:
        return (value.strip().lower() or None) if isinstance(value, str) else value


@dataclass(frozen=True)
class Verdict:
    """Whether to promote, and why.

    Attributes:
        promote: The decision.
        reasons: Sentences; of a refusal only what stands in the way.
        comparison: What it was found in; None where no version was promoted before.
    """

    promote: bool
    reasons: tuple[str, ...]
    comparison: dict[str, Any] | None = None


def default_gate(settings: Settings) -> Gate:
    """The gate of the settings, also where it is not asked of every promotion."""
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
) -> Verdict:
    """Hold one evaluation's report against that of the promoted version.

    A class is judged by the gate's metric where it is known per class, by its F1 otherwise; a
    class that only the promoted version knows has fallen to 0. Of a class without an object in
    the data nothing is known, so that stands in the way too, unless the gate allows it.

    Args:
        candidate: The report of the new version.
        promoted: That of the promoted one on the same split; None: there is none.
        gate: What is asked.
        known: The promoted version's classes.
        old: Reports of the new and the promoted version on what was learned before, where the
            new one has gone on from that (incremental training). There no gain is asked for, and
            the whole may fall by no more than a class may.

    Raises:
        ValidationFailed: The metric is none of this kind of model's.
        Conflict: The reports are of different splits.
    """
    if promoted is None:
        name = candidate["model"]["name"]
        return Verdict(True, (f"No version of '{name}' is promoted yet.",))
    metric = gate.metric or MAIN[candidate["model"]["type"]]
    for report in (promoted, candidate, *(old or ())):
        if metric not in METRICS or metric not in report["figures"]:
            known_metrics = ", ".join(name for name in METRICS if name in report["figures"])
            raise ValidationFailed(f"'gate.metric' is {metric[:40]!r}; there is {known_metrics}.")
    compared = compare_reports(promoted, candidate)
    rows: list[dict[str, Any]] = compared["classes"]
    gains = [_gain(compared["figures"][metric], metric, gate)]
    if old is not None:
        before = compare_reports(old[1], old[0])
        compared["old_data"] = {key: before[key] for key in ("dataset", "figures", "classes")}
        rows = rows + before["classes"]
        gains.append(_kept(before["figures"][metric], metric, gate))
    fallen, least = _falls(rows, metric, gate)
    unmeasured = _unmeasured(rows, known)
    stand = [sentence for enough, sentence in gains if not enough] + fallen[:SHOWN]
    if len(fallen) > SHOWN:
        stand.append(f"{len(fallen) - SHOWN} more classes fell by more than is allowed.")
    if unmeasured and not gate.allow_unmeasured:
        stand.append(f"{unmeasured} Give data with them, or allow it with allow_unmeasured.")
    if stand:
        return Verdict(False, tuple(stand), compared)
    said = (*(sentence for _, sentence in gains), least, unmeasured)
    return Verdict(True, tuple(sentence for sentence in said if sentence), compared)


def _gain(figure: Mapping[str, float], metric: str, gate: Gate) -> tuple[bool, str]:
    gain = figure["b"] - figure["a"]
    enough = gain >= gate.min_gain - TOLERANCE
    asked = f"at least {gate.min_gain:+.3g} is asked for" if gate.min_gain else "no loss is allowed"
    return enough, f"{_went(figure, metric)} ({gain:+.3f}; {asked})."


def _kept(figure: Mapping[str, float], metric: str, gate: Gate) -> tuple[bool, str]:
    """The same on old data."""
    gain = figure["b"] - figure["a"]
    enough = gain >= -gate.max_class_drop - TOLERANCE
    allowed = f"a loss of {gate.max_class_drop:g} is allowed"
    return enough, f"On the old data {_went(figure, metric)} ({gain:+.3f}; {allowed})."


def _went(figure: Mapping[str, float], metric: str) -> str:
    return f"{metric} went from {figure['a']:.3f} to {figure['b']:.3f}"


def _falls(classes: list[dict[str, Any]], metric: str, gate: Gate) -> tuple[list[str], str]:
    """A sentence for each class that fell too far, the worst first; and one when none did."""
    drops = []
    for entry in classes:
        name = metric if metric in entry["a"] else "f1_score"
        if name in entry["a"] and entry["instances"]:
            drops.append((entry["a"][name] - entry["b"].get(name, 0.0), name, entry))
    drops.sort(key=lambda drop: -drop[0])
    fallen = [
        f"'{entry['name']}' fell from {entry['a'][name]:.3f} to {entry['b'].get(name, 0.0):.3f} in "
        f"{name} (−{drop:.3f}; {gate.max_class_drop:g} is allowed; {entry['instances']} "
        f"{'object' if entry['instances'] == 1 else 'objects'})."
        for drop, name, entry in drops
        if drop > gate.max_class_drop + TOLERANCE
    ]
    if not drops:
        return fallen, "No class could be compared."
    if drops[0][0] <= 0:
        return fallen, f"No class fell, of {len(drops)} that have objects."
    drop, name, entry = drops[0]
    return fallen, (
        f"No class fell by more than {gate.max_class_drop:g} in {name}; '{entry['name']}' fell "
        f"most, by {drop:.3f}."
    )


def _unmeasured(classes: list[dict[str, Any]], known: Sequence[str]) -> str:
    """A sentence on the promoted version's classes without an object; empty where all have one."""
    measured = matched(known, [entry["name"] for entry in classes if entry["instances"]])
    names = [name for i, name in enumerate(known) if i not in measured]
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"Not measured, as the data has no object of them: {', '.join(names[:SHOWN])}{more}."
