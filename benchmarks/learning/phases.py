"""Splits the classes of a dataset into a first phase (old) and a second phase (new).

For detectors this is the protocol of Shmelkov et al. 2017: a phase has all images with an object
of its classes, and only objects of these classes are labelled. So old objects in the images of the
new phase look like background to a model that trains on the labels, and an image may be in both
phases.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dataset.dataset import Dataset
from dataset.inspection import check
from dataset.label_files import as_text
from models_store.description import Task

PHASES = ("old", "new", "all")


@dataclass(frozen=True)
class Phases:
    """The three datasets (old, new and all), and the classes of the two phases."""

    task: Task
    folder: Path
    old_names: tuple[str, ...]
    new_names: tuple[str, ...]

    def path(self, phase: str) -> Path:
        folder = self.folder / phase
        return folder if self.task == "classify" else folder / "data.yaml"

    def read(self, phase: str) -> Dataset:
        return check(self.path(phase), self.task, [self.folder.parent, Path("/")], min_classes=1)


def cut(source: Path, task: Task, old: Sequence[str] | int, folder: Path) -> Phases:
    """Write the phases of a dataset into `folder`; their images are symbolic links.

    Args:
        source: A data.yaml, or for `classify` a folder of class folders; with train and val.
        task: The task.
        old: The names of the old classes, or their number: the first classes of the dataset.
        folder: Rewritten only if the source or the classes have changed.

    Raises:
        SystemExit: The dataset does not have one of the old classes.
    """
    dataset = check(source, task, [Path("/")])
    names = dataset.names
    before = tuple(names[:old]) if isinstance(old, int) else tuple(old)
    if unknown := set(before) - set(names):
        raise SystemExit(
            f"The dataset has no class {', '.join(unknown)}. Its classes: {', '.join(names)}."
        )
    after = tuple(name for name in names if name not in before)
    made = Phases(task, folder, before, after)
    done = folder / "phases.json"
    described = json.dumps({"source": str(source), "old": before, "new": after})
    if done.is_file() and done.read_text() == described:
        return made
    shutil.rmtree(folder, ignore_errors=True)
    for phase, known in zip(PHASES, (before, after, names), strict=True):
        if task == "classify":
            _write_classes(dataset, folder / phase, known)
        else:
            _write_labelled(dataset, folder / phase, known)
    done.write_text(described)
    return made


def _write_classes(dataset: Dataset, folder: Path, known: Sequence[str]) -> None:
    for split in ("train", "val"):
        for name in known:
            (folder / split / name).mkdir(parents=True)
        for number, image in enumerate(dataset.splits[split]):
            name = dataset.names[dataset.classes[image]]
            if name in known:
                target = folder / split / name / f"{number:06}{image.suffix}"
                target.symlink_to(image.absolute())


def _write_labelled(dataset: Dataset, folder: Path, known: Sequence[str]) -> None:
    ids: Mapping[int, int] = {dataset.names.index(name): i for i, name in enumerate(known)}
    for split in ("train", "val"):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number, image in enumerate(dataset.splits[split]):
            rows = dataset.rows(image)
            kept = tuple(row._replace(cls=ids[row.cls]) for row in rows if row.cls in ids)
            if kept:
                (images / f"{number:06}{image.suffix}").symlink_to(image.absolute())
                (labels / f"{number:06}.txt").write_text(as_text(kept))
    description = {"train": "images/train", "val": "images/val", "names": dict(enumerate(known))}
    (folder / "data.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
