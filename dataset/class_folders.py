"""Images sorted into one folder per class, with or without train and val above."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from dataset.allowed_roots import confine
from dataset.documents.class_folder_annotations import names_no_class
from dataset.image_files import SUFFIXES, entries, is_folder, is_junk, walk
from dataset.issues import Findings
from errors import DatasetInvalid

HELD_OUT = 0.2  # of the images, where a dataset has no val split
NEVER = ("images", "labels")  # called so, a folder is no class
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

Key = TypeVar("Key")


def split_folders(root: Path) -> dict[str, Path]:
    """The folders below `root` that are named as splits, in any case."""
    found = {}
    folders = {entry.name.lower(): Path(entry.path) for entry in entries(root) if is_folder(entry)}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            if name in folders:
                found[split] = folders[name]
                break
    return found


def is_class_tree(root: Path) -> bool:
    """Whether `root`, or its train folder, has folders that hold images directly."""
    top = split_folders(root).get("train", root)
    for entry in entries(top):
        if not is_folder(entry) or is_junk(entry.name) or entry.name.lower() in NEVER:
            continue
        if any(Path(inner.name).suffix.lower() in SUFFIXES for inner in entries(Path(entry.path))):
            return True
    return False


def has_labels_beside(root: Path, depth: int = 3) -> bool:
    """Whether an image in the folders below `root` has a label file beside it."""
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
    """The class names in order of id, and per split the class of each image.

    `min_classes` classes must be there: one is enough to teach a model that knows others.

    Raises:
        DatasetInvalid: There is no such tree.
        Forbidden: A link leads out of `roots`.
    """
    folders = split_folders(root)
    whole = "train" not in folders
    if whole:
        if "val" in folders or "test" in folders:
            raise DatasetInvalid(f"'{root.name}' has val or test, but no folder 'train'.")
        folders = {"train": root}
    tops = {split: [folder] for split, folder in folders.items()}
    return read_splits(tops, roots, findings, min_classes, whole)


def read_splits(
    folders: dict[str, list[Path]],
    roots: Sequence[Path],
    findings: Findings,
    min_classes: int = 2,
    whole: bool = False,
) -> tuple[tuple[str, ...], dict[str, dict[Path, str]]]:
    """The same, for named folders per split; `whole`: there are no splits above the classes."""
    splits: dict[str, dict[Path, str]] = {}
    empty = set()
    for split, tops in folders.items():
        splits[split] = {}
        for top in tops:
            confine(top, roots)
            for entry in entries(top) if top.is_dir() else []:
                if is_junk(entry.name) or not is_folder(entry):
                    continue
                if entry.name.lower() in NEVER or (whole and names_no_class(entry.name)):
                    continue
                found = dict.fromkeys(walk(Path(entry.path), roots, findings), entry.name)
                splits[split].update(found)
                if not found:
                    empty.add(entry.name)
    names = sorted({name for images in splits.values() for name in images.values()})
    if gone := sorted(empty - set(names)):
        findings.note("empty_class", f"Folders without images, ignored: {', '.join(gone[:5])}.")
    if len(names) < min_classes:
        amount = "two classes" if min_classes == 2 else "one class"
        raise DatasetInvalid(
            f"Classification needs a folder of images for each of {amount} or more, as in "
            f"train/<class>/… and val/<class>/…; found {len(names)}: {', '.join(names) or 'none'}."
        )
    trained = set(splits["train"].values())
    if missing := [name for name in names if name not in trained]:
        findings.note(
            "untrained_class",
            f"Classes without an image to train on: {', '.join(missing[:5])}.",
            fatal=True,
        )
    return tuple(names), splits


def hold_out(groups: Mapping[Key, Iterable[str]]) -> set[str]:
    """The fifth of each group that becomes its val split, the same for the same names.

    Chosen by a hash of the name, so that neither order nor additions move the others much; a
    group of one keeps its only member.
    """
    chosen = set()
    for members in groups.values():
        ranked = sorted(
            members, key=lambda name: hashlib.sha256(name.encode("utf-8", "replace")).digest()
        )
        if len(ranked) > 1:
            chosen.update(ranked[: max(1, round(len(ranked) * HELD_OUT))])
    return chosen
