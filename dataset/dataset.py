"""A dataset as found on disk: checked, its images scanned, written as the view of one job.

`inspection.check` reads the description and every label file. `Dataset.scan` reads every image.
`Dataset.materialise` writes the folder that a job trains on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dataset import image_scan
from dataset.data_yaml import Keypoints
from dataset.image_scan import Progress, ScannedImage, no_progress
from dataset.issues import Finding, Findings, require_usable
from dataset.label_files import LabelFormat, LabelRow, as_text, parse
from dataset.label_scan import shown
from dataset.view import new_view, place_image, view_suffix, write_data_yaml
from models_store.description import Task

SMALLEST = 10  # pixels a side; Ultralytics leaves smaller images out

Splits = Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True)
class ScanResult:
    """What reading every image added to what is known of a dataset.

    Attributes:
        splits: Split → its images that can be trained on.
        images: Every image, unreadable ones included.
        findings: What is wrong with the images.
    """

    splits: Splits
    images: Mapping[Path, ScannedImage]
    findings: tuple[Finding, ...]


@dataclass(eq=False)
class Dataset:
    """A dataset as found on disk. Nothing in it changes, but that `scan` keeps its result.

    Attributes:
        root: The folder of its description.
        names: Class names in order of id.
        splits: `train`, `val` and perhaps `test` → images.
        labels: Image → its label file, where there is one. Empty for `classify`.
        classes: Image → class id. For `classify` only.
        rewritten: Label files whose text is not what is trained on.
        counts: Split → class id → objects (images for `classify`).
        object_classes: Image → class id of each object in its label file.
        digests: Label file → SHA-256.
        labelled: The label files that hold an object.
        unlabelled: Images of no split that nobody has annotated yet; nothing trains on them.
        refused: Image → the lines of its label file that are left out (0: the file as a whole).
        inspection_findings: What was found without reading the images.
    """

    root: Path
    task: Task
    names: tuple[str, ...]
    splits: Splits
    labels: Mapping[Path, Path] = field(default_factory=dict)
    classes: Mapping[Path, int] = field(default_factory=dict)
    keypoints: Keypoints | None = None
    rewritten: frozenset[Path] = frozenset()
    counts: Mapping[str, Counter[int]] = field(default_factory=dict)
    object_classes: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)
    digests: Mapping[Path, str] = field(default_factory=dict)
    labelled: frozenset[Path] = frozenset()
    refused: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)
    unlabelled: tuple[Path, ...] = ()
    inspection_findings: tuple[Finding, ...] = ()
    _scan_result: ScanResult | None = field(default=None, init=False, repr=False)

    @property
    def label_format(self) -> LabelFormat:
        """What a line of its label files must be."""
        return LabelFormat(
            self.task, len(self.names), self.keypoints.shape if self.keypoints else None
        )

    @property
    def class_counts(self) -> dict[str, int]:
        """Class name → objects in train (images, for `classify`)."""
        return named_counts(self.names, self.counts.get("train", Counter()))

    @property
    def learned(self) -> Dataset:
        """The dataset that holds what is new to the model: this one."""
        return self

    def rows(self, image: Path) -> tuple[LabelRow, ...]:
        """The objects in the label file of an image; none where it has no file.

        Raises:
            OSError: The file cannot be read any more.
        """
        label = self.labels.get(image)
        return parse(label.read_bytes(), self.label_format).rows if label is not None else ()

    def scan(self, progress: Progress = no_progress) -> ScanResult:
        """Read and decode every image: seconds per thousand the first time, then at hand.

        Args:
            progress: Told now and then how many of how many images were read. What it raises
                ends the scan.
        """
        if self._scan_result is None:
            self._scan_result = _scan(self, progress)
        return self._scan_result

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content: names, images, labels, classes. Scans the images."""
        scanned = self.scan().images
        parts = []
        for split, images in self.splits.items():
            for image in images:
                label = self.digests.get(self.labels.get(image, image), "")
                name = os.path.relpath(image, self.root)
                parts.append((f"{split}\0{name}", f"{scanned[image].digest} {label}"))
        parts += [
            (f"\0{os.path.relpath(image, self.root)}", scanned[image].digest)
            for image in self.unlabelled
        ]
        return image_scan.fingerprint(parts, [self.names, self.keypoints])

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is known so far, fatal ones first; those of the images once they are scanned."""
        scanned = self._scan_result.findings if self._scan_result is not None else ()
        every = (*self.inspection_findings, *scanned)
        return tuple(sorted(every, key=lambda finding: not finding.fatal))

    @property
    def problems(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(finding.message for finding in self.findings)

    def materialise(self, folder: Path) -> Path:
        """Write the view that one job trains on; see `dataset.view`.

        Args:
            folder: Is replaced, as a whole or not at all.

        Returns:
            The data.yaml, or the folder of the splits for `classify`.

        Raises:
            DatasetInvalid: The images are not enough to train on.
        """
        self.scan()  # may find more that is fatal
        require_usable(self.findings)
        with new_view(folder) as partial:
            if self.task == "classify":
                self._write_class_folders(partial)
                return folder
            self._write_images_and_labels(partial)
            splits = self.scan().splits
            write_data_yaml(partial / "data.yaml", folder, splits, self.names, self.keypoints)
        return folder / "data.yaml"

    def _write_class_folders(self, folder: Path) -> None:
        for split, images in self.scan().splits.items():
            groups: dict[int, list[Path]] = {i: [] for i in range(len(self.names))}
            for image in images:
                groups[self.classes[image]].append(image)
            for cls, members in groups.items():
                target = folder / split / self.names[cls]  # every class in every split: ids stay
                target.mkdir(parents=True)
                for image, name in self._unique_names(members):
                    place_image(image, self.scan().images[image], target / name)

    def _write_images_and_labels(self, folder: Path) -> None:
        for split, images in self.scan().splits.items():
            image_folder, label_folder = folder / "images" / split, folder / "labels" / split
            image_folder.mkdir(parents=True)
            label_folder.mkdir(parents=True)
            for image, name in self._unique_names(images):
                if not place_image(image, self.scan().images[image], image_folder / name):
                    continue
                label = self.labels.get(image)
                target = label_folder / f"{name.rpartition('.')[0]}.txt"
                if label is None:
                    continue
                if label in self.rewritten:
                    target.write_text(as_text(self.rows(image)), encoding="utf-8")
                else:
                    target.symlink_to(label)

    def _unique_names(self, images: Iterable[Path]) -> Iterator[tuple[Path, str]]:
        """Each image with a file name whose stem no other has, so that labels do not clash."""
        taken: set[str] = set()
        for image in images:
            stem = os.path.splitext(image.name)[0]
            name, number = stem, 1
            while name in taken:
                number += 1
                name = f"{stem}_{number}"
            taken.add(name)
            yield image, f"{name}{view_suffix(image, self.scan().images[image])}"


def named_counts(names: tuple[str, ...], counts: Mapping[int, int]) -> dict[str, int]:
    """Class name → count, for every class in order of id."""
    return {name: counts.get(class_id, 0) for class_id, name in enumerate(names)}


def _scan(dataset: Dataset, progress: Progress) -> ScanResult:
    findings = Findings()
    placed = [image for images in dataset.splits.values() for image in images]
    every = list(dict.fromkeys((*placed, *dataset.unlabelled)))
    scanned = image_scan.scan(every, dataset.root, progress=progress)
    splits = _usable_splits(dataset, scanned, findings)
    for image in dataset.unlabelled:
        if problem := scanned[image].problem:
            findings.add("corrupt_image", f"{shown(image, dataset.root)}: {problem}")
    _find_lost_classes(dataset, splits, findings)
    if findings.counts["duplicate_split"] > sum(map(len, splits.values())) / 10:
        findings.note("leak", "Much of val or test is in train too: its metrics will flatter.")
    return ScanResult(splits, scanned, findings.result())


def _usable_splits(
    dataset: Dataset, scanned: Mapping[Path, ScannedImage], findings: Findings
) -> dict[str, tuple[Path, ...]]:
    """The splits without images that cannot be trained on; duplicates stay, and are told."""
    splits: dict[str, tuple[Path, ...]] = {}
    trained: dict[str, Path] = {}  # digest → the first image of train that has it
    for split, images in dataset.splits.items():
        usable = []
        for image in images:
            one, where = scanned[image], shown(image, dataset.root)
            if one.problem:
                findings.add("corrupt_image", f"{where}: {one.problem}")
                continue
            if min(one.width, one.height) < SMALLEST:
                findings.add("small_image", f"{where}: {one.width} × {one.height}")
                continue
            usable.append(image)
            twin = trained.get(one.digest)
            if split == "train":
                if twin is not None:
                    findings.add("duplicate_train", where)
                trained.setdefault(one.digest, image)
            elif twin is not None:
                findings.add("duplicate_split", f"{where} is {shown(twin, dataset.root)}")
        splits[split] = tuple(usable)
        if not usable and split != "test":
            findings.note("empty", f"No image of {split} can be read.", fatal=True)
    return splits


def _find_lost_classes(dataset: Dataset, splits: Splits, findings: Findings) -> None:
    if not dataset.classes or not splits["train"]:
        return
    usable = {dataset.classes[image] for image in splits["train"]}
    lost = {dataset.classes[image] for image in dataset.splits["train"]} - usable
    if names := ", ".join(dataset.names[i] for i in sorted(lost)[:5]):
        message = f"Classes without a readable image to train on: {names}."
        findings.note("untrained_class", message, fatal=True)
