"""New data, and old data to rehearse on, as the one data set that a job trains on.

Labels are rewritten into the ids of the union of classes, in the job's private view only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from dataset.dataset import Dataset, ScanResult, description, link, view_suffix
from dataset.label_files import LabelRow, as_text, parse
from training.planning.class_union import ClassUnion

REPLAYED, NEW = "replayed-", "new-"  # what the view's file names begin with


def is_replayed(file: str | os.PathLike[str]) -> bool:
    """Whether a picture of the view comes from the old data."""
    return os.path.basename(file).startswith(REPLAYED)


@dataclass(frozen=True)
class DatasetPart:
    """Pictures of one data set, by split, and where its classes are in the union."""

    dataset: Dataset
    splits: Mapping[str, Sequence[Path]]
    ids: tuple[int | None, ...]

    def rows(self, image: Path) -> tuple[LabelRow, ...]:
        """The picture's objects under the union's ids; those of other classes are left out."""
        label = self.dataset.labels.get(image)
        if label is None:
            return ()
        found = parse(label.read_bytes(), self.dataset.form).rows
        pairs = ((self.ids[row.cls], row) for row in found)
        return tuple(LabelRow(cls, row.values) for cls, row in pairs if cls is not None)

    def classes(self, image: Path) -> tuple[int, ...]:
        """The class of each of the picture's objects in the union; of a classifier's picture."""
        if self.dataset.task != "classify":
            return tuple(row.cls for row in self.rows(image))
        cls = self.ids[self.dataset.classes[image]]
        return () if cls is None else (cls,)


@dataclass(frozen=True)
class MergedDataset(Dataset):
    """A data set made of two; see `unite_data`.

    Attributes:
        new: What is learned: train and val.
        replayed: Old pictures trained on again, and the old val split; None: there are none.
    """

    new: DatasetPart | None = None
    replayed: DatasetPart | None = None

    @property
    def parts(self) -> Iterator[tuple[str, DatasetPart]]:
        for prefix, part in ((NEW, self.new), (REPLAYED, self.replayed)):
            if part is not None:
                yield prefix, part

    @property
    def learned(self) -> Dataset:
        return self.new.dataset if self.new else self

    @property
    def learned_counts(self) -> dict[str, int]:
        """As `class_counts`, of the new pictures alone, under the names of the union."""
        counts = Counter[int]()
        for image in self.new.splits["train"] if self.new else ():
            counts.update(self.new.classes(image) if self.new else ())
        return {name: counts[class_id] for class_id, name in enumerate(self.names)}

    @cached_property
    def scanned(self) -> ScanResult:
        splits = {
            split: tuple(i for _, part in self.parts for i in part.splits.get(split, ()))
            for split in ("train", "val")
        }
        pictures = {
            i: p for _, part in self.parts for i, p in part.dataset.scanned.pictures.items()
        }
        return ScanResult(splits, pictures, self.new.dataset.scanned.findings if self.new else ())

    def scan(self, seen: Callable[[int, int], None]) -> ScanResult:
        """The pictures were looked at when the parts were put together."""
        return self.scanned

    @cached_property
    def fingerprint(self) -> str:
        """Of both data sets, and of which old pictures are trained on."""
        total = hashlib.sha256("\0".join(self.names).encode())
        for _, part in self.parts:
            pictures = part.dataset.scanned.pictures
            total.update(part.dataset.fingerprint.encode())
            for digest in sorted(pictures[image].digest for image in part.splits["train"]):
                total.update(digest.encode())
        return total.hexdigest()

    def materialise(self, folder: Path) -> Path:
        partial = folder.with_name(f"{folder.name}.partial")
        for old in (partial, folder):
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
        for split in ("train", "val"):
            for prefix, part in self.parts:
                self._write(partial, split, prefix, part)
        # Class folders are in order of name, but ids have to stay: Ultralytics reads the order
        # from this file, and the folders are then the ids (8.4.190, data/dataset.py).
        classify = self.task == "classify"
        names: dict[str, object] = {"names": dict(enumerate(self.names))}
        text = names if classify else description(self, folder)
        (partial / (".ndjson.yaml" if classify else "data.yaml")).write_text(
            yaml.safe_dump(text, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        os.replace(partial, folder)
        return folder if classify else folder / "data.yaml"

    def _write(self, folder: Path, split: str, prefix: str, part: DatasetPart) -> None:
        if self.task == "classify":
            for i in range(len(self.names)):
                (folder / split / str(i)).mkdir(parents=True, exist_ok=True)
        else:
            (folder / "images" / split).mkdir(parents=True, exist_ok=True)
            (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(part.splits.get(split, ())):
            suffix = view_suffix(part.dataset, image)
            name = f"{prefix}{number:06}"
            if self.task == "classify":
                (cls,) = part.classes(image)
                link(part.dataset, image, folder / split / str(cls) / f"{name}{suffix}")
                continue
            if not link(part.dataset, image, folder / "images" / split / f"{name}{suffix}"):
                continue
            text = as_text(part.rows(image))
            (folder / "labels" / split / f"{name}.txt").write_text(text, encoding="utf-8")


def unite_data(
    union: ClassUnion, new: Dataset, old: Dataset | None, replayed: Sequence[Path]
) -> MergedDataset:
    """The data set to train on.

    Args:
        union: Classes of the model and of the new data.
        new: All of it is trained and validated on.
        old: Its val split is validated on too, where given.
        replayed: The pictures of old's train split to train on.
    """
    learned = DatasetPart(new, _with_known(new, union), union.ids(new.names))
    kept = None
    if old is not None:
        splits = {"train": tuple(replayed), "val": _with_known(old, union)["val"]}
        kept = DatasetPart(old, splits, union.ids(old.names))
    counts = Counter[int]()
    classes: dict[Path, int] = {}
    for part in (learned, kept):
        for image in part.splits["train"] if part else ():
            found = part.classes(image) if part else ()
            counts.update(found)
            if new.task == "classify":
                (classes[image],) = found
    return MergedDataset(
        new.root,
        new.task,
        union.names,
        {},
        classes=classes,
        keypoints=new.keypoints,
        counts={"train": counts},
        new=learned,
        replayed=kept,
    )


def _with_known(dataset: Dataset, union: ClassUnion) -> dict[str, tuple[Path, ...]]:
    """The readable pictures; for `classify` those of a class that the union has."""
    splits = {split: dataset.scanned.splits.get(split, ()) for split in ("train", "val")}
    if dataset.task != "classify":
        return splits
    ids = union.ids(dataset.names)
    return {
        split: tuple(image for image in images if ids[dataset.classes[image]] is not None)
        for split, images in splits.items()
    }
