"""Which epoch of a training on new and old data is published.

Old classes are usually not labelled in new pictures, nor new ones in old pictures. Ultralytics'
figure over the val pictures of both would count what is found there as wrong, and prefer an epoch
that has forgotten, or that has not learned yet. So each class is judged on the pictures of its own
part only, as in the forgetting report. Without old val pictures forgetting cannot be seen at all:
then the last epoch's averaged weights are published. Seams of Ultralytics 8.4.190 used:
`get_validator`, its validators' `get_stats`, and that `save_model` compares with `best_fitness`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.average_precision import average_precision
from models_store.description import Task
from training.replay.buffer import files_of
from training.replay.merged_dataset import DatasetPart, MergedDataset, is_replayed
from training.yolo.metrics import BY_PART

OLD, NEW = BY_PART  # as the forgetting report calls its figures too
RIGHT: dict[Task, str] = {"detect": "tp", "segment": "tp_m", "pose": "tp_p"}


@dataclass(frozen=True)
class EpochCriteria:
    """Which classes are judged on the val pictures of each part.

    Attributes:
        old: Ids of the union, on old pictures.
        new: The same, on new pictures: the added classes, or where none is added all of the part.
        grows: Whether classes are added.
    """

    old: frozenset[int]
    new: frozenset[int]
    grows: bool

    def on(self, replayed: bool) -> frozenset[int]:
        return self.old if replayed else self.new


def judged(dataset: MergedDataset, old: int) -> EpochCriteria | None:
    """How a union can be judged; None: one part's val pictures have no object to judge by.

    Args:
        dataset: New and old data.
        old: How many classes of the union, the first, are old.
    """
    if dataset.replayed is None:
        return None
    grows = len(dataset.names) > old
    on_old = frozenset(i for i in dataset.replayed.ids if i is not None and i < old)
    on_new = frozenset(i for i in dataset.new.ids if i is not None and (i >= old or not grows))
    for part, classes in ((dataset.replayed, on_old), (dataset.new, on_new)):
        if classes.isdisjoint(_in_val(part)):
            return None
    return EpochCriteria(on_old, on_new, grows)


def _in_val(part: DatasetPart) -> Iterator[int]:
    for image in part.splits.get("val", ()):
        yield from part.classes(image)


class LastEpoch:
    """Mixed into a trainer: what it publishes is its last epoch."""

    def save_model(self: Any) -> bool:
        self.best_fitness = self.fitness
        return bool(super().save_model())  # type: ignore[misc]


class ByPart:
    """Mixed into a trainer: it validates each class on the pictures of its part.

    Fitness is the mean of two means, over the old classes and over the new ones, of AP50-95 (of
    masks, of key points) or accuracy; both are in the metrics. Subclasses set `judged`.
    """

    judged: EpochCriteria

    def get_validator(self: Any) -> Any:
        validator = super().get_validator()  # type: ignore[misc]
        kind = _Pictures if self.args.task == "classify" else _Objects
        base = type(validator)
        validator.__class__ = type(base.__name__, (kind, base), {"judged": self.judged})
        return validator


class _Objects:
    """Mixed into a validator of Ultralytics' detectors."""

    judged: EpochCriteria

    def get_stats(self: Any) -> dict[str, Any]:
        stats = self.metrics.stats
        replayed = _replayed(self.dataloader.dataset)
        for row, of_old in enumerate(replayed):
            classes = list(self.judged.on(of_old))
            found = np.isin(stats["pred_cls"][row], classes)
            there = np.isin(stats["target_cls"][row], classes)
            present = np.isin(stats["target_img"][row], classes)
            for name, values in stats.items():
                some = {"target_cls": there, "target_img": present}.get(name, found)
                values[row] = values[row][some]
        means = {}
        for name, kind in ((OLD, True), (NEW, False)):
            rows = np.flatnonzero(replayed == kind)
            if not sum(len(stats["target_cls"][row]) for row in rows):
                continue
            keys = (RIGHT[self.args.task], "conf", "pred_cls", "target_cls")
            columns: list[Any] = [np.concatenate([stats[key][row] for row in rows]) for key in keys]
            means[name] = float(average_precision(*columns)[1].mean())
        return _with_means(super().get_stats(), means, self.judged)  # type: ignore[misc]


class _Pictures:
    """Mixed into Ultralytics' validator of classifiers."""

    judged: EpochCriteria

    def get_stats(self: Any) -> dict[str, Any]:
        targets = torch.cat(self.targets).numpy()
        right = torch.cat(self.pred)[:, 0].numpy() == targets
        replayed = _replayed(self.dataloader.dataset)
        means = {}
        for name, kind in ((OLD, True), (NEW, False)):
            shares = [
                float(right[(replayed == kind) & (targets == cls)].mean())
                for cls in sorted(self.judged.on(kind) & set(targets[replayed == kind].tolist()))
            ]
            if shares:
                means[name] = fmean(shares)
        return _with_means(super().get_stats(), means, self.judged)  # type: ignore[misc]


def _replayed(dataset: Any) -> NDArray[np.bool_]:
    """Of the val pictures, in the order in which they are validated."""
    return np.array([is_replayed(file) for file in files_of(dataset)])


def _with_means(
    stats: dict[str, Any], means: dict[str, float], judged: EpochCriteria
) -> dict[str, Any]:
    stats["fitness"] = fmean(means.values()) if means else 0.0
    shown = (OLD, NEW) if judged.grows else (OLD,)
    return stats | {name: means[name] for name in shown if name in means}
