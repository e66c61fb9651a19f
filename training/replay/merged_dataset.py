"""Merges new data and replayed old data into the dataset that one job trains on.

Labels are rewritten to the ids of the union of classes, in a copy of the dataset in the job's
folder (its "view"); the datasets themselves are not changed.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.data_yaml import Keypoints
from dataset.dataset import Dataset, ScanResult, named_counts
from dataset.image_scan import Progress, no_progress
from dataset.issues import Finding
from dataset.label_files import LabelRow, as_text
from dataset.view import place_image, view_suffix, write_data_yaml, write_yaml
from files import atomic_folder
from models_store.description import Task
from training.planning.class_union import ClassUnion

REPLAYED, NEW = "replayed-", "new-"  # prefixes of file names in the view
SPLITS = ("train", "val")


def is_replayed(file: str | os.PathLike[str]) -> bool:
    """Whether a file in the view is an image of the old data."""
    return os.path.basename(file).startswith(REPLAYED)


@dataclass(frozen=True)
class DatasetPart:
    """The images of one dataset, by split, and the mapping of its class ids to the union.

    Attributes:
        splits: Split → images of `dataset`.
        ids: Class id of `dataset` → class id of the union; None: the union lacks the class.
    """

    dataset: Dataset
    splits: Mapping[str, Sequence[Path]]
    ids: tuple[int | None, ...]

    def rows(self, image: Path) -> tuple[LabelRow, ...]:
        """The image's labels with ids of the union; labels of other classes are left out."""
        pairs = ((self.ids[row.cls], row) for row in self.dataset.rows(image))
        return tuple(LabelRow(cls, row.values) for cls, row in pairs if cls is not None)

    def classes(self, image: Path) -> tuple[int, ...]:
        """The class of each object of the image (of the image, for `classify`); union ids."""
        if self.dataset.task == "classify":
            own: tuple[int, ...] = (self.dataset.classes[image],)
        else:
            own = self.dataset.object_classes.get(image, ())
        return tuple(cls for cls in (self.ids[i] for i in own) if cls is not None)

    @property
    def labelled_classes(self) -> frozenset[int]:
        """The union ids of the classes that the dataset has objects of in train."""
        own = (self.ids[i] for i, amount in self.dataset.counts["train"].items() if amount)
        return frozenset(i for i in own if i is not None)

    def counts(self, split: str) -> Counter[int]:
        """Class id of the union → objects in a split (images, for `classify`)."""
        return Counter(cls for image in self.splits[split] for cls in self.classes(image))


@dataclass(frozen=True)
class MergedDataset:
    """New data and replayed old data under the ids of one union of classes; see `unite_data`.

    Satisfies `TrainingData`.

    Attributes:
        names: Class names of the union, in order of id.
        new: The train and val splits of the new dataset.
        replayed: The images of the replay buffer, and the val split of the old dataset; None: no
            old dataset.
        classes: Image of train or val → class id. For `classify` only.
        counts: Class id → objects in train (images, for `classify`).
        scanned: The images of both parts.
        keypoint_names: The model's names of the key points, if they are known.
    """

    names: tuple[str, ...]
    new: DatasetPart
    replayed: DatasetPart | None
    classes: Mapping[Path, int]
    counts: Mapping[int, int]
    scanned: ScanResult
    keypoint_names: tuple[str, ...] | None = None

    @property
    def task(self) -> Task:
        return self.new.dataset.task

    @property
    def keypoints(self) -> Keypoints | None:
        """Those of the new data; what it does not say of them is that of the old data, and of the
        model: all have the same key points.
        """
        found = self.new.dataset.keypoints
        if found is None:
            return None
        old = self.replayed.dataset.keypoints if self.replayed is not None else None
        names = found.names or (old.names if old else None) or self.keypoint_names
        return Keypoints(found.shape, found.flip or (old.flip if old else None), names)

    @property
    def parts(self) -> Iterator[tuple[str, DatasetPart]]:
        """Prefix of file names in the view, and part, for each part."""
        for prefix, part in ((NEW, self.new), (REPLAYED, self.replayed)):
            if part is not None:
                yield prefix, part

    @property
    def class_counts(self) -> dict[str, int]:
        """Class name → objects in train (images, for `classify`)."""
        return named_counts(self.names, self.counts)

    @property
    def learned(self) -> Dataset:
        """The new dataset."""
        return self.new.dataset

    @property
    def unlabelled_classes(self) -> tuple[list[int], list[int]]:
        """The ids of the classes that the new data lacks, and those that the replayed data lacks.

        A dataset whose class list has a class is assumed to label all objects of this class.
        """

        def missing(part: DatasetPart | None) -> list[int]:
            known = set(part.ids) if part else set(range(len(self.names)))
            return [i for i in range(len(self.names)) if i not in known]

        return missing(self.new), missing(self.replayed)

    @property
    def learned_counts(self) -> dict[str, int]:
        """Class name → objects in the train split of the new data only (images, for `classify`)."""
        return named_counts(self.names, self.new.counts("train"))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Problems of the images of the new data."""
        return self.scanned.findings

    def scan(self, progress: Progress = no_progress) -> ScanResult:
        """The scan results of both parts, which were scanned when they were merged."""
        return self.scanned

    @property
    def fingerprint(self) -> str:
        """Hash of both datasets and of the choice of replayed images."""
        total = hashlib.sha256("\0".join(self.names).encode())
        for _, part in self.parts:
            scanned = part.dataset.scan().images
            total.update(part.dataset.fingerprint.encode())
            for digest in sorted(scanned[image].digest for image in part.splits["train"]):
                total.update(digest.encode())
        return total.hexdigest()

    def materialise(self, folder: Path) -> Path:
        """Write the view that one job trains on; labels have the ids of the union.

        Returns:
            The data.yaml, or the folder of the splits for `classify`.
        """
        with atomic_folder(folder) as partial:
            for split in SPLITS:
                for prefix, part in self.parts:
                    self._write(partial, split, prefix, part)
            if self.task == "classify":
                # Ultralytics would number classes in the order of folder names. With this file,
                # folder names are class ids (8.4.190, data/dataset.py).
                write_yaml(partial / ".ndjson.yaml", {"names": dict(enumerate(self.names))})
                return folder
            write_data_yaml(partial / "data.yaml", folder, SPLITS, self.names, self.keypoints)
        return folder / "data.yaml"

    def _write(self, folder: Path, split: str, prefix: str, part: DatasetPart) -> None:
        if self.task == "classify":
            for i in range(len(self.names)):
                (folder / split / str(i)).mkdir(parents=True, exist_ok=True)
        else:
            (folder / "images" / split).mkdir(parents=True, exist_ok=True)
            (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(part.splits.get(split, ())):
            scanned = part.dataset.scan().images[image]
            stem = f"{prefix}{number:06}"
            name = f"{stem}{view_suffix(image, scanned)}"
            if self.task == "classify":
                (cls,) = part.classes(image)
                place_image(image, scanned, folder / split / str(cls) / name)
                continue
            if not place_image(image, scanned, folder / "images" / split / name):
                continue
            text = as_text(part.rows(image))
            (folder / "labels" / split / f"{stem}.txt").write_text(text, encoding="utf-8")


def unite_data(
    union: ClassUnion,
    new: Dataset,
    old: Dataset | None,
    replayed: Sequence[Path],
    keypoint_names: tuple[str, ...] | None = None,
) -> MergedDataset:
    """Merge new data and a replay buffer.

    Args:
        union: Classes of the model and of the new data.
        new: The new dataset; all its images are used for training and validation.
        old: The old dataset, if given; its val split is added to the validation images.
        replayed: The images of the old train split to train on: the replay buffer.
        keypoint_names: The model's names of the key points, if they are known.
    """
    parts = [DatasetPart(new, _with_known(new, union), union.ids(new.names))]
    if old is not None:
        splits = {"train": tuple(replayed), "val": _with_known(old, union)["val"]}
        parts.append(DatasetPart(old, splits, union.ids(old.names)))
    counts = Counter[int]()
    classes: dict[Path, int] = {}
    for part in parts:
        counts.update(part.counts("train"))
        if new.task == "classify":
            for image in (*part.splits["val"], *part.splits["train"]):
                (classes[image],) = part.classes(image)
    scanned = ScanResult(
        {split: tuple(i for part in parts for i in part.splits[split]) for split in SPLITS},
        {image: one for part in parts for image, one in part.dataset.scan().images.items()},
        new.scan().findings,
    )
    kept = parts[1] if old is not None else None
    return MergedDataset(union.names, parts[0], kept, classes, counts, scanned, keypoint_names)


def _with_known(dataset: Dataset, union: ClassUnion) -> dict[str, tuple[Path, ...]]:
    """The readable images, by split; for `classify` only images of classes in the union."""
    splits = {split: dataset.scan().splits.get(split, ()) for split in SPLITS}
    if dataset.task != "classify":
        return splits
    ids = union.ids(dataset.names)
    return {
        split: tuple(image for image in images if ids[dataset.classes[image]] is not None)
        for split, images in splits.items()
    }
