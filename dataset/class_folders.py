"""Reads classification datasets: one folder of images per class, with or without split folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataset.allowed_roots import confine
from dataset.class_matching import tidy
from dataset.documents.class_folder_annotations import names_no_class
from dataset.image_files import SUFFIXES, entries, is_folder, is_junk, walk
from dataset.issues import Findings
from errors import DatasetInvalid

NEVER = ("images", "labels")  # folder names that are never class names
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def split_folders(root: Path) -> dict[str, Path]:
    """Split → the folder in `root` with its name, compared without case."""
    found = {}
    folders = {entry.name.lower(): Path(entry.path) for entry in entries(root) if is_folder(entry)}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            if name in folders:
                found[split] = folders[name]
                break
    return found


def class_parent(root: Path) -> Path:
    """The folder that would hold the class folders: a split's folder, train first, else `root`."""
    splits = split_folders(root)
    return next((splits[split] for split in SPLIT_NAMES if split in splits), root)


def is_class_tree(root: Path) -> bool:
    """Whether `root`, or its first split folder, has subfolders that directly contain images."""
    for entry in entries(class_parent(root)):
        if not is_folder(entry) or is_junk(entry.name) or entry.name.lower() in NEVER:
            continue
        if any(Path(inner.name).suffix.lower() in SUFFIXES for inner in entries(Path(entry.path))):
            return True
    return False


def has_labels_beside(root: Path, depth: int = 3) -> bool:
    """Whether an image in `root` or its subfolders has a label file in the same folder."""
    found = [entry for entry in entries(root) if not is_junk(entry.name)]
    stems: dict[bool, set[str]] = {True: set(), False: set()}
    for entry in found:
        suffix = Path(entry.name).suffix.lower()
        if suffix in SUFFIXES or suffix == ".txt":
            stems[suffix == ".txt"].add(Path(entry.name).stem)
    if stems[True] & stems[False]:
        return True
    below = [Path(entry.path) for entry in found if is_folder(entry)] if depth else []
    return any(has_labels_beside(folder, depth - 1) for folder in below)


def read(
    root: Path, roots: Sequence[Path], findings: Findings, min_classes: int = 2
) -> tuple[tuple[str, ...], dict[str, dict[Path, str]]]:
    """Reads a tree of class folders.

    Args:
        root: The folder with the splits or the classes.
        roots: The allowed folders.
        findings: Receives what is wrong.
        min_classes: Smallest number of classes; 1 is enough to add a class to a trained model.

    Returns:
        Class names in order of id; split → image → class name.

    Raises:
        DatasetInvalid: There are too few class folders, or no train folder.
        Forbidden: A link leads out of `roots`.
    """
    folders = split_folders(root)
    unsplit = "train" not in folders
    if unsplit:
        if "val" in folders or "test" in folders:
            raise DatasetInvalid(
                f"'{root.name}' has a folder val or test, but no folder 'train'. Add it."
            )
        folders = {"train": root}
    tops = {split: [folder] for split, folder in folders.items()}
    return read_splits(tops, roots, findings, min_classes, unsplit)


def read_splits(
    folders: dict[str, list[Path]],
    roots: Sequence[Path],
    findings: Findings,
    min_classes: int = 2,
    unsplit: bool = False,
) -> tuple[tuple[str, ...], dict[str, dict[Path, str]]]:
    """Like `read`, for given folders of each split. `unsplit`: there are no split folders."""
    splits: dict[str, dict[Path, str]] = {}
    empty = set()
    for split, tops in folders.items():
        splits[split] = {}
        for top in tops:
            confine(top, roots)
            for entry in entries(top) if top.is_dir() else []:
                if is_junk(entry.name) or not is_folder(entry):
                    continue
                if entry.name.lower() in NEVER or (unsplit and names_no_class(entry.name)):
                    continue
                name = tidy(entry.name)
                found = dict.fromkeys(walk(Path(entry.path), roots, findings), name)
                splits[split].update(found)
                if not found:
                    empty.add(name)
                elif not name:
                    raise DatasetInvalid(
                        f"A class folder in '{top.name}' has a blank name. Name it as its class."
                    )
    names = sorted({name for images in splits.values() for name in images.values()})
    if gone := sorted(empty - {*names, ""}):
        findings.note("empty_class", f"Folders without images were ignored: {', '.join(gone[:5])}.")
    if len(names) < min_classes:
        amount = "two classes" if min_classes == 2 else "one class"
        raise DatasetInvalid(
            f"Classification needs one folder of images per class, and at least {amount}: "
            f"train/<class>/… and val/<class>/…. Found {len(names)}: "
            f"{', '.join(names) or 'none'}."
        )
    trained = set(splits["train"].values())
    if missing := [name for name in names if name not in trained]:
        findings.note(
            "untrained_class",
            f"Classes without an image in train: {', '.join(missing[:5])}.",
            fatal=True,
        )
    return tuple(names), splits
