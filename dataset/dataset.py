"""Data sets, checked before anything trains on them.

`check` reads the description and every label; `Dataset.materialise` then also looks at every
picture and makes the folder that one job really trains on.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from dataset import image_scan
from dataset.data_yaml import Keypoints
from dataset.image_scan import ScannedImage
from dataset.issues import Finding, Findings
from dataset.label_files import Form, as_text, parse
from dataset.label_scan import shown
from errors import DatasetInvalid, VisionLoopError
from inference.images import decode
from models_store.description import Task
from settings import get_settings

log = logging.getLogger("visionloop")


def write(dataset: Dataset, folder: Path) -> Path:
    """Make `folder` anew, whole or not at all; see `Dataset.materialise`."""
    partial = folder.with_name(f"{folder.name}.partial")
    for old in (partial, folder):
        if old.is_symlink() or old.is_file():
            old.unlink()
        elif old.exists():
            shutil.rmtree(old)
    partial.mkdir(parents=True)
    if dataset.task == "classify":
        _write_classes(dataset, partial)
    else:
        _write_labelled(dataset, partial, folder)
    os.replace(partial, folder)
    return folder if dataset.task == "classify" else folder / "data.yaml"


def _write_classes(dataset: Dataset, folder: Path) -> None:
    for split, images in dataset.scanned.splits.items():
        groups: dict[int, list[Path]] = {i: [] for i in range(len(dataset.names))}
        for image in images:
            groups[dataset.classes[image]].append(image)
        for cls, members in groups.items():
            target = folder / split / dataset.names[cls]  # every class everywhere: ids stay
            target.mkdir(parents=True)
            for image, name in _unique(dataset, members):
                link(dataset, image, target / name)


def _write_labelled(dataset: Dataset, folder: Path, final: Path) -> None:
    for split, images in dataset.scanned.splits.items():
        pictures, labels = folder / "images" / split, folder / "labels" / split
        pictures.mkdir(parents=True)
        labels.mkdir(parents=True)
        for image, name in _unique(dataset, images):
            if not link(dataset, image, pictures / name):
                continue
            label = dataset.labels.get(image)
            target = labels / f"{name.rpartition('.')[0]}.txt"
            if label is None:
                continue
            if label in dataset.rewritten:
                parsed = parse(label.read_bytes(), dataset.form)
                target.write_text(as_text(parsed.rows), encoding="utf-8")
            else:
                target.symlink_to(label)
    (folder / "data.yaml").write_text(
        yaml.safe_dump(description(dataset, final), sort_keys=False, allow_unicode=True),
        encoding="utf-8",
    )


def description(dataset: Dataset, folder: Path) -> dict[str, Any]:
    """The data.yaml of a view that will lie in `folder`."""
    content: dict[str, Any] = {"path": str(folder.absolute())}
    content |= {split: f"images/{split}" for split in dataset.scanned.splits}
    content["names"] = dict(enumerate(dataset.names))
    if dataset.keypoints is not None:
        content["kpt_shape"] = list(dataset.keypoints.shape)
        if dataset.keypoints.flip is not None:
            content["flip_idx"] = list(dataset.keypoints.flip)
        if dataset.keypoints.names is not None:
            names = list(dataset.keypoints.names)
            content["kpt_names"] = dict.fromkeys(range(len(dataset.names)), names)
    return content


def view_suffix(dataset: Dataset, image: Path) -> str:
    """The suffix that an image has in a view: its own, or PNG's where it is converted."""
    return ".png" if dataset.scanned.pictures[image].converted else image.suffix


def _unique(dataset: Dataset, images: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """A name of its own for each image, label included; its own name where that is free."""
    taken: set[str] = set()
    for image in images:
        stem = os.path.splitext(image.name)[0]
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        yield image, f"{name}{view_suffix(dataset, image)}"


def link(dataset: Dataset, image: Path, target: Path) -> bool:
    """A link to the image, or its pixels as PNG where trainers would not read the same ones.

    False where the file has become unreadable since it was looked at: one never ends a job.
    """
    if not dataset.scanned.pictures[image].converted:
        target.symlink_to(image.absolute())
        return True
    try:
        pixels = decode(image.read_bytes(), get_settings().max_pixels)
    except (OSError, VisionLoopError) as error:
        log.warning("'%s' is left out of this job: %s", image, error)
        return False
    Image.fromarray(pixels).save(target)
    return True


SMALLEST = 10  # pixels a side; Ultralytics leaves smaller pictures out

Splits = Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True)
class ScanResult:
    """What reading every picture added."""

    splits: Splits  # without the unreadable ones
    pictures: Mapping[Path, ScannedImage]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set as found on disk.

    Attributes:
        root: The folder of its description.
        names: Class names in order of id.
        splits: `train`, `val` and perhaps `test` → images.
        labels: Image → its label file, where there is one. Empty for `classify`.
        classes: Image → class id. For `classify` only.
        rewritten: Labels whose text is not what is trained on.
        counts: Split → class id → objects (images for `classify`).
        digests: Label file → SHA-256.
        labelled: The label files that hold an object.
        unlabelled: Images of no split that nobody has annotated yet; nothing trains on them.
        refused: Image → the lines of its label file that are left out (0: the file as a whole).
        found: What was found without looking at the pictures.
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
    digests: Mapping[Path, str] = field(default_factory=dict)
    labelled: frozenset[Path] = frozenset()
    refused: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)
    unlabelled: tuple[Path, ...] = ()
    found: tuple[Finding, ...] = ()

    @property
    def form(self) -> Form:
        return Form(self.task, len(self.names), self.keypoints.shape if self.keypoints else None)

    @property
    def class_counts(self) -> dict[str, int]:
        """Class name → objects in train (pictures, for `classify`)."""
        counted = self.counts.get("train", Counter())
        return {name: counted[class_id] for class_id, name in enumerate(self.names)}

    @property
    def learned(self) -> Dataset:
        """What is new in it; all of it, where no old data is mixed in."""
        return self

    @cached_property
    def scanned(self) -> ScanResult:
        """Reads and decodes every picture: seconds per thousand, the first time."""
        return _scan(self, lambda *_: None)

    def scan(self, seen: Callable[[int, int], None]) -> ScanResult:
        """The same, telling `seen` now and then how many of how many were looked at."""
        if "scanned" not in self.__dict__:
            self.__dict__["scanned"] = _scan(self, seen)
        return self.scanned

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content: names, pictures, labels, classes. Looks at the pictures."""
        pictures = self.scanned.pictures
        parts = []
        for split, images in self.splits.items():
            for image in images:
                label = self.digests.get(self.labels.get(image, image), "")
                name = os.path.relpath(image, self.root)
                parts.append((f"{split}\0{name}", f"{pictures[image].digest} {label}"))
        parts += [
            (f"\0{os.path.relpath(image, self.root)}", pictures[image].digest)
            for image in self.unlabelled
        ]
        return image_scan.fingerprint(parts, [self.names, self.keypoints])

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is known so far, fatal ones first."""
        scanned = self.scanned.findings if "scanned" in self.__dict__ else ()
        return tuple(sorted((*self.found, *scanned), key=lambda finding: not finding.fatal))

    @property
    def problems(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(finding.message for finding in self.findings)

    def require_usable(self) -> None:
        """Raises DatasetInvalid with everything that stands in the way of training."""
        if fatal := [finding.message for finding in self.findings if finding.fatal]:
            raise DatasetInvalid(" ".join(fatal[:3]))

    def materialise(self, folder: Path) -> Path:
        """Make the private view that one job trains on: links to the pictures, and labels.

        Caches that trainers leave beside labels stay in it, so jobs on one data set never meet,
        and nothing is written into the user's folder. `folder` is made anew.

        Returns:
            The data.yaml, or the class root for `classify`.

        Raises:
            DatasetInvalid: The pictures are not enough.
        """
        self.scanned  # noqa: B018  # may find more that is fatal
        self.require_usable()
        return write(self, folder)


def _scan(dataset: Dataset, seen: Callable[[int, int], None]) -> ScanResult:
    findings = Findings()
    placed = [image for images in dataset.splits.values() for image in images]
    every = list(dict.fromkeys((*placed, *dataset.unlabelled)))
    pictures = image_scan.scan(every, dataset.root, seen=seen)
    usable: dict[str, tuple[Path, ...]] = {}
    trained: dict[str, Path] = {}
    for split, images in dataset.splits.items():
        kept = []
        for image in images:
            picture, where = pictures[image], shown(image, dataset.root)
            if picture.problem:
                findings.add("corrupt_image", f"{where}: {picture.problem}")
                continue
            if min(picture.width, picture.height) < SMALLEST:
                findings.add("small_image", f"{where}: {picture.width} × {picture.height}")
                continue
            kept.append(image)
            twin = trained.get(picture.digest)
            if split == "train":
                if twin is not None:
                    findings.add("duplicate_train", where)
                trained.setdefault(picture.digest, image)
            elif twin is not None:
                findings.add("duplicate_split", f"{where} is {shown(twin, dataset.root)}")
        usable[split] = tuple(kept)
        if not kept and split != "test":
            findings.note("empty", f"No image of {split} can be read.", fatal=True)
    for image in dataset.unlabelled:
        if problem := pictures[image].problem:
            findings.add("corrupt_image", f"{shown(image, dataset.root)}: {problem}")
    if dataset.classes and usable["train"]:
        learned = {dataset.classes[image] for image in usable["train"]}
        lost = {dataset.classes[image] for image in dataset.splits["train"]} - learned
        if names := ", ".join(dataset.names[i] for i in sorted(lost)[:5]):
            message = f"Classes without a readable image to train on: {names}."
            findings.note("untrained_class", message, fatal=True)
    if findings.counts["duplicate_split"] > sum(map(len, usable.values())) / 10:
        findings.note("leak", "Much of val or test is in train too: its metrics will flatter.")
    return ScanResult(usable, pictures, findings.result())
