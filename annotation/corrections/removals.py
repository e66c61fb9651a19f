"""Counts the human annotations that a correction would remove; many need a confirmation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotation.image_records import ORIGINAL, PERSON, ImageRecord
from annotation.revision_records import for_task
from errors import ConfirmationRequired
from formats.annotations import Annotations
from models_store.description import Task

MAX_SHARE = 0.5  # share of all objects; removing a larger share must be confirmed
MIN_OBJECTS = 5  # removing all objects of a class with at least this many must be confirmed


@dataclass(frozen=True)
class Removal:
    """The objects annotated by people or given by the upload that a correction removes.

    Attributes:
        objects: Objects removed, summed over the images that have fewer than before.
        of: Number of objects of the whole dataset before.
        classes: Class of which all objects are removed, at least MIN_OBJECTS → their number.
    """

    objects: int = 0
    of: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def large(self) -> bool:
        """Whether the removal must be confirmed."""
        return self.objects > MAX_SHARE * self.of or bool(self.classes)

    def to_json(self) -> dict[str, Any]:
        return {"objects": self.objects, "of": self.of, "classes": dict(self.classes)}

    def error(self) -> ConfirmationRequired:
        """The error that asks for confirmation."""
        gone = "; ".join(f"all {count} of '{name}'" for name, count in self.classes.items())
        return ConfirmationRequired(
            f"This would remove {self.objects} of the {self.of} annotated "
            f"objects{f', {gone}' if gone else ''}. Nothing was changed. If this is intended, "
            "send it again with confirm=true; to see what would change, send dry_run=true.",
            removes=self.to_json(),
        )


def removal(
    records: Sequence[ImageRecord], found: Mapping[str, Annotations], task: Task
) -> Removal:
    """The removal that a correction would cause. Prelabels of models do not count.

    Args:
        records: The dataset's images.
        found: SHA-256 of an image's file → its new annotations.
        task: The task of the dataset.
    """
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    fewer = 0
    for record in records:
        if record.by not in (PERSON, ORIGINAL):
            continue
        old = _labels(record.annotations, task)
        new = _labels(found[record.content], task) if record.content in found else old
        before += old
        after += new
        fewer += max(0, old.total() - new.total())
    for content in found.keys() - {record.content for record in records}:
        after += _labels(found[content], task)
    gone = {name: n for name, n in sorted(before.items()) if n >= MIN_OBJECTS and not after[name]}
    return Removal(fewer, before.total(), gone)


def _labels(found: Annotations, task: Task) -> Counter[str]:
    return Counter(thing.label for thing in for_task(found, task).objects)
