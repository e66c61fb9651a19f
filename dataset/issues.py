"""What a look through a dataset found: counted, with a few places, fatal or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from errors import DatasetInvalid

EXAMPLES = 5  # in a sentence
LISTED = 100  # places that are kept besides

# What is counted while scanning. Fatal ones make training refuse the dataset.
HEADLINES = {
    "missing_label": "Images without a label file, trained as background",
    "orphan_label": "Label files without an image, ignored",
    "second_label": "Label files in a second place beside the one that is read, not used",
    "shared_label": "Label files that two images of one name share, used for both",
    "malformed_line": "Label lines that cannot be read, left out",
    "class_id": "Label lines with a class id out of range",
    "wrong_form": "Label lines of another task, left out",
    "outside": "Label lines far outside the image, left out",
    "degenerate": "Label lines without an area, left out",
    "clipped": "Label lines that reach over the image's edge, clipped",
    "box_as_polygon": "Boxes among the polygons, trained as rectangles",
    "polygon_as_box": "Polygons, trained as the boxes around them",
    "pose_as_box": "Boxes with key points, trained without these",
    "confidence": "Label lines with a confidence, which is ignored",
    "repeated_line": "Repeated label lines, left out",
    "corrupt_image": "Images that cannot be read, left out",
    "small_image": "Images under 10 pixels, left out",
    "duplicate_split": "Images that are in train and in another split too",
    "duplicate_train": "Images that are in train more than once",
    "unlisted_format": "Files of a format that training cannot read, ignored",
    "not_unpacked": "Files of the zip that are read neither as image nor as label, left out",
    "unused_image": "Images that the description names in no split, not used",
    "listed_line": "Listed lines that are not an image's path, ignored",
    "missing_file": "Listed images that do not exist, ignored",
}
FATAL = frozenset({"class_id"})


@dataclass(frozen=True)
class Finding:
    """One kind of problem. `message` is a sentence for people, with file and line."""

    kind: str
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()
    fatal: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "message": self.message,
            "count": self.count,
            "examples": list(self.examples),
            "fatal": self.fatal,
        }


def require_usable(findings: Iterable[Finding]) -> None:
    """Raises DatasetInvalid with the first fatal findings, if there are any."""
    if fatal := [finding.message for finding in findings if finding.fatal]:
        raise DatasetInvalid(" ".join(fatal[:3]))


class Findings:
    """Collects while a dataset is looked through."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._notes: list[Finding] = []

    def add(self, kind: str, where: str, count: int = 1) -> None:
        """Count one of HEADLINES' kinds, and remember where."""
        self.counts[kind] += count
        examples = self._examples.setdefault(kind, [])
        if len(examples) < LISTED:
            examples.append(where)

    def note(self, kind: str, message: str, fatal: bool = False) -> None:
        """A sentence about the dataset as a whole."""
        finding = Finding(kind, message, fatal=fatal)
        if finding not in self._notes:
            self._notes.append(finding)

    def result(self) -> tuple[Finding, ...]:
        """Fatal ones first."""
        counted = [
            Finding(
                kind,
                f"{HEADLINES[kind]}: {self.counts[kind]} "
                f"({'; '.join(self._examples[kind][:EXAMPLES])}"
                f"{'; …' if self.counts[kind] > EXAMPLES else ''}).",
                self.counts[kind],
                tuple(self._examples[kind]),
                kind in FATAL,
            )
            for kind in HEADLINES
            if self.counts[kind]
        ]
        return tuple(sorted([*self._notes, *counted], key=lambda finding: not finding.fatal))
