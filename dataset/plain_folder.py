"""Reads a folder of images and labels with a classes.txt instead of a data.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataset import class_folders, data_yaml
from dataset.allowed_roots import confine
from dataset.data_yaml import Keypoints
from dataset.image_files import walk
from dataset.issues import Findings
from errors import DatasetInvalid
from models_store.description import Task


def plain(
    root: Path, task: Task | None, roots: Sequence[Path], findings: Findings
) -> tuple[tuple[str, ...], Keypoints | None, dict[str, list[Path]]]:
    """Reads a folder as Label Studio's YOLO export writes it: images, labels, classes.txt.

    Returns:
        The class names in order of id; None, because a classes.txt describes no keypoints; and a
        dict split → images. Without split folders all images are in `train`.

    Raises:
        DatasetInvalid: There is no usable classes.txt, or there are several data.yaml files.
        Forbidden: The classes.txt is a link that leads out of `roots`.
    """
    classes = root / "classes.txt"
    if several := [path.name for path in data_yaml.descriptions(root)]:
        raise DatasetInvalid(
            f"'{root.name}' has several YAML files that describe a dataset: "
            f"{', '.join(several[:5])}. Give the path of one of them."
        )
    if not classes.is_file() and class_folders.is_class_tree(root):
        raise DatasetInvalid(
            f"'{root.name}' has one folder of images per class: use task=classify. "
            f"{f'Task {task}' if task else 'Object detection'} needs a data.yaml."
        )
    if not classes.is_file():
        raise DatasetInvalid(
            f"'{root.name}' contains no data.yaml (and no folder of images per class, as task "
            "classify needs). Give the path of the data.yaml or of its folder."
        )
    confine(classes, roots)
    text = classes.read_bytes()[: data_yaml.BIGGEST].decode("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 0 < len(lines) <= data_yaml.MOST_CLASSES:
        raise DatasetInvalid(
            f"classes.txt must have one class name per line, 1 to {data_yaml.MOST_CLASSES:,} in "
            f"all; it has {len(lines):,}."
        )
    names = data_yaml.class_names(lines, len(lines))
    top = root / "images" if (root / "images").is_dir() else root
    folders = class_folders.split_folders(top)
    if "train" not in folders:
        return names, None, {"train": list(walk(top, roots, findings))}
    return (
        names,
        None,
        {split: list(walk(folder, roots, findings)) for split, folder in folders.items()},
    )


def hint(root: Path) -> str:
    """An addition to error messages about missing labels; empty if there is nothing to add."""
    if any(root.glob("*.json")) or any(root.glob("annotations/*.json")):
        return (
            " There are .json files: convert COCO annotations to YOLO label files first, or upload "
            "them as a zip."
        )
    return ""
