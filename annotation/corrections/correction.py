"""A correction: a person's annotations of a dataset's images, with counts of the submission."""

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

SHOWN = 20  # maximum number of names in a response


@dataclass(frozen=True)
class CorrectionRules:
    """The rules by which a submission is read as a correction.

    Attributes:
        dataset: The dataset's id, for messages.
        names: Class names of the dataset.
        task: Task of the dataset.
        max_pixels: Maximum number of pixels of a new image.
        only_changed: Skip images whose annotations are unchanged, since perhaps nobody has reviewed
            them.
        background: Whether an image that a document lists without objects is a background image.
        refuse_new: Reject classes that the dataset does not have.
        any_format: Accept new images in every readable image format, not only those that trainers
            read.
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
    """Annotations of a dataset's images, and what happened to each submitted image and object.

    Attributes:
        found: SHA-256 of an image's file → its annotations.
        sources: SHA-256 → the document's annotations that `found` was read from.
        images: SHA-256 → the image.
        names: SHA-256 of a new image → path to store it under.
        unchanged: SHA-256 of images whose annotations are unchanged.
        unmatched: Name of an image → why it matches no image of the dataset.
        left: SHA-256 of the dataset's images in the submission without annotations; they stay
            unchanged.
        new_classes: Classes that the dataset does not have, sorted by name.
        renamed: Path of a new image in the zip → path that it is stored under.
        received: Counts of `images`, `objects`, and `unmatched` images.
        passed_over: Reason → number of objects that are not stored.
        removes: The objects that would be removed from the dataset.
        notes: Sentences about assumptions and observations.
        ignored: Files that are not annotation documents.
        several: Whether more than one image is annotated.
        repeated: Whether all annotations are already stored as a person's; nothing is to do then.
        oddities: Unusual properties of accepted objects.
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
        """Whether the correction would remove so many objects that the client must confirm it."""
        return self.several and self.removes.large

    def pass_over(self, reasons: Counter[str]) -> None:
        """Count submitted objects that are not stored, by reason."""
        self.passed_over += reasons
        self.received["objects"] += reasons.total()

    def note_unmatched(self, name: str, reason: str) -> None:
        """Count an image that matches none of the dataset; the first reason per name is kept."""
        self.unmatched.setdefault(name[:200], reason)
        self.received["unmatched"] += 1

    def to_json(self) -> dict[str, Any]:
        """The part of the response that reports what happened to the submission."""
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
