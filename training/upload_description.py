"""What describes an unpacked upload: one description, or none; two are refused, both named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from errors import DatasetInvalid, VisionLoopError
from training import dataset_yaml
from training.class_folders import is_class_tree
from training.dataset_yaml import descriptions
from training.datasets import Dataset
from training.findings import Finding, Findings
from training.image_files import is_junk, walk

DEPTH = 4  # folders below the top in which a description may lie


def find_description(root: Path) -> Path:
    """The data.yaml in an unpacked folder, else the folder itself.

    Raises:
        DatasetInvalid: There is none, or there are several of different data sets.
    """
    found = [file for folder in _folders(root) for file in descriptions(folder)]
    if found:
        others = [file for file in found[1:] if not _same(found[0], file, root)]
        if others:
            names = [os.path.relpath(file, root) for file in (found[0], *others)]
            raise DatasetInvalid(
                f"The zip holds {len(names)} data sets: {', '.join(names[:5])}. Upload each as a "
                "zip of its own, or leave one description that lists all of their folders "
                "(train: [a/images, b/images]); class ids must mean the same in all of them."
            )
        return found[0]
    if is_class_tree(root) or (root / "classes.txt").is_file():
        return root
    raise DatasetInvalid(
        "The zip holds neither a data.yaml, nor one folder of images per class, nor images and "
        "labels with a classes.txt."
    )


def unused_images(root: Path, dataset: Dataset) -> tuple[Finding, ...]:
    """What to say of images of the upload that the data set does not use."""
    findings = Findings()
    used = {image for images in dataset.splits.values() for image in images}
    for image in walk(root, [root], Findings()):
        if image not in used:
            findings.add("unused_image", os.path.relpath(image, root))
    return findings.result()


def _folders(root: Path) -> Iterator[Path]:
    """`root` and those below it, the upper ones first."""
    level = [root]
    for _ in range(DEPTH):
        yield from level
        level = sorted(
            path
            for folder in level
            for path in folder.iterdir()
            if path.is_dir() and not is_junk(path.name)
        )


def _same(one: Path, other: Path, root: Path) -> bool:
    """Whether two descriptions are of the same classes and images."""
    try:
        return _meant(one, root) == _meant(other, root)
    except VisionLoopError:
        return False


def _meant(file: Path, root: Path) -> object:
    findings = Findings()
    described = dataset_yaml.describe(file, [root], findings)
    splits = dataset_yaml.images(described, [root], findings)
    return described.names, described.keypoints, {key: set(found) for key, found in splits.items()}
