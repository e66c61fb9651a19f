"""A folder of images and labels without a description, as annotation tools export it."""

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
    """A folder as Label Studio exports it: images, labels and a classes.txt with the names."""
    classes = root / "classes.txt"
    if several := [path.name for path in data_yaml.descriptions(root)]:
        raise DatasetInvalid(
            f"'{root.name}' has several descriptions: {', '.join(several[:5])}. Give the path of "
            "the one that is meant."
        )
    if not classes.is_file() and class_folders.is_class_tree(root):
        raise DatasetInvalid(
            f"'{root.name}' has a folder of images per class: train it with the task classify. "
            f"For {task or 'boxes'} a data.yaml is needed."
        )
    if not classes.is_file():
        raise DatasetInvalid(
            f"'{root.name}' holds no data.yaml (nor folders with images of a class each, for the "
            "task classify). Give the data.yaml, or the folder it is in."
        )
    confine(classes, roots)
    text = classes.read_bytes()[: data_yaml.BIGGEST].decode("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 0 < len(lines) <= data_yaml.MOST_CLASSES:
        raise DatasetInvalid("classes.txt must have the name of a class on each line.")
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
    """What to say besides where there are no labels."""
    if any(root.glob("*.json")) or any(root.glob("annotations/*.json")):
        return " There are .json files: COCO annotations must be converted to YOLO text first."
    return ""
