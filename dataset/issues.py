"""Collects the findings of a dataset check: counted by kind, with examples, fatal or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from errors import DatasetInvalid

EXAMPLES = 5  # maximum number of examples in a message
LISTED = 100  # maximum number of examples that are kept

# Kind of a counted finding → the beginning of its message. Training refuses a dataset with a
# fatal one.
HEADLINES = {
    "missing_label": "Images without a label file, trained as background",
    "orphan_label": "Label files without an image, ignored",
    "second_label": "Label files in a second label folder, not used",
    "shared_label": "Label files that match two images of the same name, used for both",
    "malformed_line": "Label lines that cannot be read, ignored",
    "class_id": "Label lines with a class id out of range",
    "wrong_form": "Label lines for another task, ignored",
    "outside": "Label lines far outside the image, ignored",
    "degenerate": "Label lines without an area, ignored",
    "clipped": "Label lines that extend beyond the image, clipped",
    "box_as_polygon": "Boxes among polygons, trained as polygons with four corners",
    "polygon_as_box": "Polygons, trained as their bounding boxes",
    "pose_as_box": "Boxes with keypoints, trained without the keypoints",
    "confidence": "Label lines with a confidence, which is ignored",
    "repeated_line": "Repeated label lines, ignored",
    "corrupt_image": "Images that cannot be read, ignored",
    "small_image": "Images smaller than 10 pixels, ignored",
    "duplicate_split": "Images that are in train and also in another split",
    "duplicate_train": "Images that are in train more than once",
    "unlisted_format": "Files of a format that training cannot read, ignored",
    "not_unpacked": "Files of the zip that are neither images nor readable labels, ignored",
    "renamed_file": "Files whose name another one had already, renamed",
    "unused_image": "Images that no split of the data.yaml contains, not used",
    "listed_line": "Lines of image lists that are not paths of images, ignored",
    "missing_file": "Images in image lists that do not exist, ignored",
}
FATAL = frozenset({"class_id"})


@dataclass(frozen=True)
class Finding:
    """One kind of problem of a dataset.

    Attributes:
        kind: A key of `HEADLINES`, or that of a note about the whole dataset.
        message: A sentence for people, with files and lines.
        count: Number of occurrences.
        examples: At most 100 places, such as a file and line.
        fatal: The dataset cannot be trained on.
    """

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
    """Check that no finding is fatal.

    Raises:
        DatasetInvalid: With the messages of the first three fatal findings.
    """
    if fatal := [finding.message for finding in findings if finding.fatal]:
        raise DatasetInvalid(" ".join(fatal[:3]))


class Findings:
    """Collects findings during a dataset check."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._notes: list[Finding] = []

    def add(self, kind: str, where: str, count: int = 1) -> None:
        """Count occurrences of a kind of `HEADLINES`, with their place as an example."""
        self.counts[kind] += count
        examples = self._examples.setdefault(kind, [])
        if len(examples) < LISTED:
            examples.append(where)

    def note(self, kind: str, message: str, fatal: bool = False) -> None:
        """Add a finding about the whole dataset, once."""
        finding = Finding(kind, message, fatal=fatal)
        if finding not in self._notes:
            self._notes.append(finding)

    def result(self) -> tuple[Finding, ...]:
        """All findings, fatal ones first."""
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
