"""Splits the classes of a dataset into a first phase (old) and a second phase (new).

For detectors this is the protocol of Shmelkov et al. 2017: a phase has all images with an object
of its classes, and only objects of these classes are labelled. So old objects in the images of the
new phase look like background to a model that trains on the labels, and an image may be in both
phases.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def cut(
    source: Path,
    task: Task,
    old: Sequence[str] | int,
    folder: Path,
    new: Sequence[str] | None = None,
    new_images: int = 0,
    halved: bool = False,
    tracks: bool = False,
) -> Phases:
    """Write the phases of a dataset into `folder`; their images are symbolic links.

    Args:
        source: A data.yaml, or for `classify` a folder of class folders; with train and val.
        task: The task.
        old: The names of the old classes, or their number: the first classes of the dataset.
        folder: Rewritten only if the source or the classes have changed.
        new: The names of the new classes; None: all others of the dataset.
        new_images: Maximum number of training images of the new phase; 0: all.
        halved: Whether a half of val becomes the test split, if the dataset has none.
        tracks: Whether images are named TRACK_FRAME; a track is never divided then.

    Raises:
        SystemExit: The dataset does not have one of the classes.
    """
    dataset = check(source, task, [Path("/")])
    names = dataset.names
    before = tuple(names[:old]) if isinstance(old, int) else tuple(old)
    after = tuple(name for name in names if name not in before) if new is None else tuple(new)
    if unknown := {*before, *after} - set(names):
        raise SystemExit(
            f"The dataset has no class {', '.join(unknown)}. Its classes: {', '.join(names)}."
        )
    both = tuple(name for name in names if name in before or name in after)
    made = Phases(task, folder, before, after)
    done = folder / "phases.json"
    described: dict[str, Any] = {"source": str(source), "old": before, "new": after}
    described |= {"new_images": new_images, "halved": halved, "tracks": tracks}
    if done.is_file() and done.read_text() == json.dumps(described):
        return made
    shutil.rmtree(folder, ignore_errors=True)
    splits: dict[str, Sequence[Path]] = dict(dataset.splits)
    if halved and "test" not in splits:
        splits["val"], splits["test"] = halves(dataset, splits["val"], tracks)
    few = set(some(dataset, splits["train"], after, new_images))
    for phase, known in zip(PHASES, (before, after, both), strict=True):
        taken = dict(splits)
        if new_images and phase != "old":
            new_only = {*after} if phase == "all" else {*names}
            taken["train"] = [
                image
                for image in splits["train"]
                if image in few or new_only.isdisjoint(classes_in(dataset, image))
            ]
        write = _write_classes if task == "classify" else _write_labelled
        write(dataset, taken, folder / phase, known)
    done.write_text(json.dumps(described))
    return made


def classes_in(dataset: Dataset, image: Path) -> list[str]:
    """The names of the classes of an image's objects (of the image, for `classify`)."""
    if dataset.task == "classify":
        return [dataset.names[dataset.classes[image]]]
    return sorted({dataset.names[row.cls] for row in dataset.rows(image)})


def track(image: Path | str) -> str:
    """The track of an image that is named TRACK_FRAME, or of a link to it (`_link_name`)."""
    return re.sub(r"^\d{6}-", "", Path(image).stem).rpartition("_")[0]


def halves(
    dataset: Dataset, images: Sequence[Path], tracks: bool
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Divide images into two halves, evenly over the classes (of a classifier)."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for image in images:
        own = classes_in(dataset, image)[0] if dataset.task == "classify" else ""
        groups.setdefault((own, track(image) if tracks else str(image)), []).append(image)
    found: tuple[list[Path], list[Path]] = ([], [])
    turns: Counter[str] = Counter()
    for own, name in sorted(groups):
        found[turns[own] % 2].extend(groups[own, name])
        turns[own] += 1
    return tuple(found[0]), tuple(found[1])


def some(
    dataset: Dataset, images: Sequence[Path], names: Sequence[str], amount: int
) -> tuple[Path, ...]:
    """At most `amount` images with objects of the classes `names`, which take turns; 0: all."""
    pools = {name: [i for i in images if name in classes_in(dataset, i)] for name in names}
    for name, pool in pools.items():
        random.Random(name).shuffle(pool)
    taken: dict[Path, None] = {}
    while any(pools.values()) and not 0 < amount <= len(taken):
        for pool in pools.values():
            if pool and not 0 < amount <= len(taken):
                taken[pool.pop()] = None
    return tuple(taken)


def _write_classes(
    dataset: Dataset, splits: Mapping[str, Sequence[Path]], folder: Path, known: Sequence[str]
) -> None:
    for split, images in splits.items():
        for name in known:
            (folder / split / name).mkdir(parents=True)
        for number, image in enumerate(images):
            name = dataset.names[dataset.classes[image]]
            if name in known:
                target = folder / split / name / _link_name(number, image)
                target.symlink_to(image.absolute())


def _write_labelled(
    dataset: Dataset, splits: Mapping[str, Sequence[Path]], folder: Path, known: Sequence[str]
) -> None:
    ids: Mapping[int, int] = {dataset.names.index(name): i for i, name in enumerate(known)}
    description: dict[str, Any] = {}
    for split, pictures in splits.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        description[split] = f"images/{split}"
        for number, image in enumerate(pictures):
            rows = dataset.rows(image)
            kept = tuple(row._replace(cls=ids[row.cls]) for row in rows if row.cls in ids)
            if kept:
                link = images / _link_name(number, image)
                link.symlink_to(image.absolute())
                (labels / f"{link.stem}.txt").write_text(as_text(kept))
    description["names"] = dict(enumerate(known))
    (folder / "data.yaml").write_text(yaml.safe_dump(description, sort_keys=False))


def _link_name(number: int, image: Path) -> str:
    """A unique name that ends with the image's own, from which `track` reads the track."""
    return f"{number:06}-{image.name}"
