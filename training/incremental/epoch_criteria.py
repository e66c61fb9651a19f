"""The classes by which the epochs of an incremental training are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from training.replay.merged_dataset import DatasetPart, MergedDataset

OLD, NEW = "old_classes", "new_classes"  # metrics; the forgetting report has the same names


@dataclass(frozen=True)
class EpochCriteria:
    """The classes that are measured on the val images of each dataset.

    Attributes:
        old: Ids in the union, measured on old images.
        new: Ids in the union, measured on new images: the added classes, or all classes of the
            new data if none is added.
        grows: Whether classes are added.
    """

    old: frozenset[int]
    new: frozenset[int]
    grows: bool

    def on(self, replayed: bool) -> frozenset[int]:
        """The class ids that are measured on old images (if `replayed`), or on new images."""
        return self.old if replayed else self.new


def epoch_criteria(dataset: MergedDataset, old: int) -> EpochCriteria | None:
    """The criteria for a dataset; None if old or new val images have no object of their classes.

    Args:
        dataset: New and old data.
        old: The number of old classes; they are the first of the union.
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
