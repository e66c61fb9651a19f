"""A correction: a person's annotations of a dataset's images, and an account of what came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from annotation.corrections.image_identity import Image
from annotation.corrections.oddities import Oddities
from annotation.corrections.removals import Removal
from dataset.documents.submission import DescribedImage
from formats.annotations import Annotations
from models_store.description import Task

SHOWN = 20  # names in an answer


@dataclass(frozen=True)
class CorrectionRules:
    """How a correction is read.

    Attributes:
        dataset: The dataset's id, for messages.
        names: Classes that the dataset has.
        task: The dataset's task.
        max_pixels: Limit of a new image.
        only_changed: Skip images whose annotations are unchanged: nobody may have looked at them.
        background: An image that a document lists without an object has none.
        refuse_new: Refuse classes that the dataset does not have.
        any_format: New images may have every format that is read, not only those of trainers.
    """

    dataset: str
    names: Sequence[str]
    task: Task
    max_pixels: int
    only_changed: bool = False
    background: bool = False
    refuse_new: bool = False
    any_format: bool = False


@dataclass
class Correction:
    """Annotations of a dataset's images, with an account of every image and object that came.

    Attributes:
        found: Content of an image → its annotations.
        sources: Content → the document's annotations that `found` was read from.
        images: Content → the image.
        names: Content of a new image → path to store it under.
        unchanged: Content of images whose annotations are unchanged.
        unmatched: Name → why it is none of the dataset's images.
        left: Content of known images without annotations in what came: they stay as they are.
        new_classes: Classes that the dataset does not have, by name.
        renamed: Path of a new image in the zip → path that it is stored under.
        received: Counts of `images`, `objects`, and `unmatched` images.
        passed_over: Reason → objects.
        removes: What the dataset would lose.
        notes: Sentences about what was assumed or noticed.
        ignored: Files that are no annotation documents.
        several: More than one image is described.
        repeated: A person's stored annotations say all of this already: there is nothing to do.
        oddities: What is noticed about objects that are accepted.
    """

    found: dict[str, Annotations] = field(default_factory=dict)
    sources: dict[str, DescribedImage] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    unchanged: set[str] = field(default_factory=set)
    unmatched: dict[str, str] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    new_classes: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    received: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    removes: Removal = field(default_factory=Removal)
    notes: list[str] = field(default_factory=list)
    ignored: Sequence[str] = ()
    several: bool = False
    repeated: bool = False
    oddities: Oddities = field(default_factory=Oddities)

    @property
    def needs_confirmation(self) -> bool:
        """Whether it would remove so much that a person must confirm it."""
        return self.several and self.removes.large

    def pass_over(self, reasons: Counter[str]) -> None:
        """Count objects that came and are not stored."""
        self.passed_over += reasons
        self.received["objects"] += reasons.total()

    def note_unmatched(self, name: str, reason: str) -> None:
        """Count an image that is none of the dataset's; the first reason of a name is kept."""
        self.unmatched.setdefault(name[:200], reason)
        self.received["unmatched"] += 1

    def to_json(self) -> dict[str, Any]:
        """The part of an answer that accounts for what came."""
        new = len(self.names)
        unmatched = self.received["unmatched"]
        return {
            "received": len(self.found),
            "new_pictures": new,
            "unchanged": len(self.unchanged),
            "unmatched_count": unmatched,
            "unmatched": list(self.unmatched)[:SHOWN],
            "unmatched_reasons": dict(list(self.unmatched.items())[:SHOWN]),
            "new_classes": self.new_classes,
            "accounting": {
                "images": {
                    "received": self.received["images"],
                    "matched": self.received["images"] - unmatched - new,
                    "new": new,
                    "unmatched": unmatched,
                },
                "objects": {
                    "received": self.received["objects"],
                    "stored": sum(map(len, self.found.values())),
                    "passed_over": dict(self.passed_over),
                },
            },
            "left_as_they_are": len(self.left),
            "renamed": self.renamed,
            "ignored_files": list(self.ignored)[:SHOWN],
            "removes": self.removes.to_json(),
            "notes": self.notes,
        }
