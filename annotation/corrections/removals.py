"""How much of people's work a correction would remove, and whether it has to be confirmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotation.pictures import ORIGINAL, PERSON, ImageRecord
from annotation.revision_records import marks_of
from errors import ConfirmationRequired
from formats.annotations import Annotations
from models_store.description import Task

SHARE = 0.5  # of the data set's objects, above which removing them is to be confirmed
FEWEST = 5  # objects of a class from which removing all of them is


@dataclass(frozen=True)
class Removal:
    """What a correction leaves out that people, or the upload, had marked.

    Attributes:
        objects: Fewer, summed over the images that have fewer than before.
        of: Objects in the whole data set before.
        classes: Class of at least FEWEST objects of which none is left → how many there were.
    """

    objects: int = 0
    of: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def large(self) -> bool:
        return self.objects > SHARE * self.of or bool(self.classes)

    def to_json(self) -> dict[str, Any]:
        return {"objects": self.objects, "of": self.of, "classes": dict(self.classes)}

    def error(self) -> ConfirmationRequired:
        gone = "; ".join(f"all {count} of '{name}'" for name, count in self.classes.items())
        return ConfirmationRequired(
            f"This would remove {self.objects} of the {self.of} objects that are marked"
            f"{f', {gone}' if gone else ''}. Nothing was changed. Where that is meant, send it "
            "again with confirm=true; dry_run=true tells what would happen.",
            removes=self.to_json(),
        )


def removal(
    pictures: Sequence[ImageRecord], found: Mapping[str, Annotations], task: Task
) -> Removal:
    """What a correction would remove; what models alone had said does not count.

    Args:
        pictures: The data set's images.
        found: Content → what is said of it now.
        task: Of the data set.
    """
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    fewer = 0
    for picture in pictures:
        if picture.by not in (PERSON, ORIGINAL):
            continue
        old = _labels(picture.annotations, task)
        new = _labels(found[picture.content], task) if picture.content in found else old
        before += old
        after += new
        fewer += max(0, old.total() - new.total())
    for content in found.keys() - {picture.content for picture in pictures}:
        after += _labels(found[content], task)
    gone = {name: n for name, n in sorted(before.items()) if n >= FEWEST and not after[name]}
    return Removal(fewer, before.total(), gone)


def _labels(found: Annotations, task: Task) -> Counter[str]:
    return Counter(thing.label for thing in marks_of(found, task).objects)
