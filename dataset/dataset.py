"""A dataset on disk: its splits, classes and labels, the scan of its images, and its findings.

`inspection.check` reads the description and every label file and returns a `Dataset`.
`Dataset.scan` reads and decodes every image. `Dataset.materialise` writes the folder that a job
trains on.
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
from dataset.view import place_image, view_suffix, write_data_yaml
from files import atomic_folder
from models_store.description import Task

SMALLEST = 10  # pixels per side; Ultralytics skips smaller images

Splits = Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True)
class ScanResult:
    """Result of decoding every image of a dataset.

    Attributes:
        splits: Split → its images that can be trained on.
        images: Every image, including unreadable ones.
        findings: Problems of the images.
    """

    splits: Splits
    images: Mapping[Path, ScannedImage]
    findings: tuple[Finding, ...]


@dataclass(eq=False)
class Dataset:
    """A dataset on disk. Immutable, except that `scan` caches its result.

    Attributes:
        root: The folder of the data.yaml; if there is no data.yaml, the dataset's top folder.
        names: Class names in order of id.
        splits: `train`, `val` and optionally `test` → images.
        labels: Image → its label file, if it has one. Empty for `classify`.
        classes: Image → class id. Only for `classify`.
        rewritten: Label files that must be rewritten for training (clipped, converted or
            incomplete lines).
        counts: Split → class id → number of objects (of images for `classify`).
        object_classes: Image → class id of each object in its label file.
        digests: Label file → SHA-256.
        labelled: Label files with at least one object.
        unlabelled: Images without a split that are not annotated yet; not used for training.
        refused: Image → 1-based numbers of the rejected lines of its label file (0: the whole
            file).
        inspection_findings: Findings of the inspection, which does not read the images.
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
        """The format that every line of the label files must have."""
        return LabelFormat(
            self.task, len(self.names), self.keypoints.shape if self.keypoints else None
        )

    @property
    def class_counts(self) -> dict[str, int]:
        """Class name → number of objects in train (of images for `classify`)."""
        return named_counts(self.names, self.counts.get("train", Counter()))

    @property
    def learned(self) -> Dataset:
        """This dataset, because it has no replayed images: all of its data is new.

        See `TrainingData.learned`.
        """
        return self

    @property
    def unlabelled_classes(self) -> tuple[list[int], list[int]]:
        """Two empty lists: no class is unlabelled here. See `TrainingData.unlabelled_classes`."""
        return [], []

    def rows(self, image: Path) -> tuple[LabelRow, ...]:
        """The objects in an image's label file; empty if it has no label file.

        Raises:
            OSError: The label file can no longer be read.
        """
        label = self.labels.get(image)
        return parse(label.read_bytes(), self.label_format).rows if label is not None else ()

    def scan(self, progress: Progress = no_progress) -> ScanResult:
        """Read and decode every image. The result is cached on this object.

        The first scan takes seconds per thousand images.

        Args:
            progress: Called now and then with the number of images read and the total. An
                exception that it raises ends the scan.
        """
        if self._scan_result is None:
            self._scan_result = _scan(self, progress)
        return self._scan_result

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content: file names, images, labels, classes. Scans the images."""
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
        """All findings so far, fatal ones first. Includes those of the images after `scan`."""
        scanned = self._scan_result.findings if self._scan_result is not None else ()
        every = (*self.inspection_findings, *scanned)
        return tuple(sorted(every, key=lambda finding: not finding.fatal))

    @property
    def problems(self) -> tuple[str, ...]:
        """The messages of the findings."""
        return tuple(finding.message for finding in self.findings)

    def materialise(self, folder: Path) -> Path:
        """Write the folder ("view") that one job trains on; see `dataset.view`.

        Args:
            folder: Target folder. It is replaced atomically.

        Returns:
            The data.yaml; for `classify` the folder of the splits.

        Raises:
            DatasetInvalid: The dataset has fatal findings, such as a split without usable images.
        """
        self.scan()  # may add fatal findings
        require_usable(self.findings)
        with atomic_folder(folder) as partial:
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
                # A folder per class in every split, even if empty: ids follow the folder order
                target = folder / split / self.names[cls]
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
        """Each image with a file name whose stem is unique, so that label files do not clash."""
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
        findings.note(
            "leak",
            "More than 10 % of the images are in train and in val or test too: the metrics will "
            "be too optimistic.",
        )
    return ScanResult(splits, scanned, findings.result())


def _usable_splits(
    dataset: Dataset, scanned: Mapping[Path, ScannedImage], findings: Findings
) -> dict[str, tuple[Path, ...]]:
    """The splits, without the images that cannot be used for training.

    Duplicates stay and are reported.
    """
    splits: dict[str, tuple[Path, ...]] = {}
    trained: dict[str, Path] = {}  # digest → first image of train with this digest
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
                findings.add("duplicate_split", f"{where} is a copy of {shown(twin, dataset.root)}")
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
