"""The folder that one job trains on: links to the pictures, labels as they were understood."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from PIL import Image

from errors import VisionLoopError
from inference.images import decode
from settings import get_settings
from training.labels import as_text, parse

if TYPE_CHECKING:
    from training.datasets import Dataset

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
    for split, images in dataset.looked.splits.items():
        groups: dict[int, list[Path]] = {i: [] for i in range(len(dataset.names))}
        for image in images:
            groups[dataset.classes[image]].append(image)
        for cls, members in groups.items():
            target = folder / split / dataset.names[cls]  # every class everywhere: ids stay
            target.mkdir(parents=True)
            for image, name in _unique(dataset, members):
                link(dataset, image, target / name)


def _write_labelled(dataset: Dataset, folder: Path, final: Path) -> None:
    for split, images in dataset.looked.splits.items():
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
    content |= {split: f"images/{split}" for split in dataset.looked.splits}
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
    return ".png" if dataset.looked.pictures[image].converted else image.suffix


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
    if not dataset.looked.pictures[image].converted:
        target.symlink_to(image.absolute())
        return True
    try:
        pixels = decode(image.read_bytes(), get_settings().max_pixels)
    except (OSError, VisionLoopError) as error:
        log.warning("'%s' is left out of this job: %s", image, error)
        return False
    Image.fromarray(pixels).save(target)
    return True
