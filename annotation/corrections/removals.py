"""What a correction would remove of people's work, and whether that must be confirmed."""

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

MAX_SHARE = 0.5  # of the dataset's objects: removing more must be confirmed
MIN_OBJECTS = 5  # of a class: removing all of so many must be confirmed


@dataclass(frozen=True)
class Removal:
    """The objects of people, or of the upload, that a correction leaves out.

    Attributes:
        objects: Objects removed, summed over the images that have fewer than before.
        of: Objects of the whole dataset before.
        classes: Class of at least MIN_OBJECTS of which none is left → how many there were.
    """

    objects: int = 0
    of: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def large(self) -> bool:
        """Whether it must be confirmed."""
        return self.objects > MAX_SHARE * self.of or bool(self.classes)

    def to_json(self) -> dict[str, Any]:
        return {"objects": self.objects, "of": self.of, "classes": dict(self.classes)}

    def error(self) -> ConfirmationRequired:
        """The error that asks for confirmation."""
        gone = "; ".join(f"all {count} of '{name}'" for name, count in self.classes.items())
        return ConfirmationRequired(
            f"This would remove {self.objects} of the {self.of} annotated objects"
            f"{f', {gone}' if gone else ''}. Nothing was changed. If that is intended, send it "
            "again with confirm=true; dry_run=true tells what would happen.",
            removes=self.to_json(),
        )


def removal(
    records: Sequence[ImageRecord], found: Mapping[str, Annotations], task: Task
) -> Removal:
    """What a correction would remove; objects of models alone do not count.

    Args:
        records: The dataset's images.
        found: Content of an image → its new annotations.
        task: The dataset's.
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
