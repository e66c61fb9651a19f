"""Counts the images and objects of an upload: stored or not, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset.dataset import Dataset
from dataset.issues import LISTED, Finding
from dataset.label_files import LOST
from formats.annotations import Annotation
from models_store.description import Task

SHOWN = 20  # maximum number of renamed images in a card


@dataclass
class Intake:
    """The counts of an upload's images and objects, stored or not, with notes and findings.

    Attributes:
        form: The format: `yolo`, `folders`, `images`, or formats of documents joined by `+`.
        task: The task that the objects fit.
        images: Numbers of images. `received` = `labelled` + `empty` + `without_annotation` +
            `unreadable` + `copies`.
        objects: Numbers of objects. `received` = `stored` + the sum of `passed_over`.
        passed_over: Reason → number of objects that are not stored.
        missing: Name of an annotated image → why no image of the zip matches it.
        renamed: Path in the zip → path in the dataset, for images whose name was already used.
        notes: Sentences about assumptions.
        findings: Findings for the inspection's report.
        lost: Messages about objects without an area inside their image.
        converted: Description of a conversion → number of objects converted for the task.
    """

    form: str
    task: Task | None = None
    images: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    missing: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    converted: Counter[str] = field(default_factory=Counter)

    def add_copies(self, names: Sequence[str]) -> None:
        """Count the copies among images with the same content; the first image is kept."""
        self.images["copies"] += len(names) - 1
        if self.images["copies"] == len(names) - 1:
            self.notes.append(
                f"Of images with the same content only the first is kept; {names[1]} is a copy "
                f"of {names[0]}."
            )

    def count_broken(self, number: int) -> None:
        """Count images without annotations as unreadable: they cannot be decoded."""
        self.images["without_annotation"] -= number
        self.images["unreadable"] += number

    def count_converted(self, objects: Iterable[Annotation], task: Task) -> None:
        """Count the objects that are converted for a task, such as polygons to boxes."""
        for thing in objects:
            if task == "detect" and (thing.parts or thing.keypoints):
                self.converted["polygons or key points were converted to their bounding boxes"] += 1
            elif task == "segment" and not thing.parts and thing.bounds is not None:
                self.converted["boxes were converted to polygons with four corners"] += 1
            elif task == "pose" and thing.parts:
                self.converted["polygons of objects with key points were omitted"] += 1

    def report_findings(self) -> tuple[Finding, ...]:
        """All findings for the report, including those made from the counts."""
        found = list(self.findings)
        for what, count in self.converted.items():
            found.append(Finding("converted", f"{count} {what}.", count))
        if self.lost:
            some = tuple(sorted(self.lost)[:LISTED])
            message = f"Objects without an area in their image were omitted: {'; '.join(some[:3])}"
            found.append(Finding("no_place", message, len(self.lost), some))
        if self.missing:
            some = tuple(f"{name}: {why}" for name, why in list(self.missing.items())[:LISTED])
            message = (
                f"{len(self.missing)} images that the annotations describe were not found in the "
                f"zip, or match several of its images ({'; '.join(some[:3])})."
            )
            found.append(Finding("missing_image", message, len(self.missing), some))
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """The counts and notes as JSON for the dataset's card."""
        kinds = ("received", "labelled", "empty", "without_annotation", "unreadable", "copies")
        return {
            "source_format": self.form,
            "accounting": {
                "images": {k: self.images[k] for k in kinds} | {"missing": len(self.missing)},
                "objects": {
                    "received": self.objects["received"],
                    "stored": self.objects["stored"],
                    "passed_over": {reason: n for reason, n in self.passed_over.items() if n},
                },
            },
            "renamed": dict(list(self.renamed.items())[:SHOWN]),
            "notes": self.notes,
        }


def intake_of(dataset: Dataset, form: str, images: int) -> Intake:
    """The counts of an upload that is not converted: YOLO label files, or class folders.

    Args:
        dataset: The inspected upload.
        form: `yolo` or `folders`.
        images: The number of image files in the zip, readable or not.
    """
    made = Intake(form)
    every = {image for split in dataset.splits.values() for image in split}
    scanned = dataset.scan().images
    good = [image for image in every if not scanned[image].problem]
    made.images["received"] = images
    made.images["unreadable"] = sum(bool(image.problem) for image in scanned.values())
    if dataset.task == "classify":
        made.images["labelled"] = len(good)
    else:
        with_file = [image for image in good if image in dataset.labels]
        made.images["labelled"] = sum(dataset.labels[i] in dataset.labelled for i in with_file)
        made.images["empty"] = len(with_file) - made.images["labelled"]
    counted = made.images["labelled"] + made.images["empty"] + made.images["unreadable"]
    made.images["without_annotation"] = images - counted
    stored = sum(sum(counts.values()) for counts in dataset.counts.values())
    lost = {f.kind: f.count for f in dataset.findings if f.kind in LOST | {"repeated_line"}}
    made.passed_over.update(lost)
    made.objects.update({"stored": stored, "received": stored + sum(lost.values())})
    return made
