"""The splits of images: those that an uploaded zip states, and the choice of a missing val split.

There are two rules for this choice, because the datasets in existing homes were split by them:
`held_out_by_name` for a folder or zip that has no val split, and `held_out_by_content` for the
revisions of a growing dataset, in which an image must never change its split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TypeVar
from xml.etree.ElementTree import Element

from dataset.documents.image_names import NameIndex
from dataset.documents.submission import Submission
from errors import ValidationFailed
from formats.cvat_xml import LONGEST
from formats.xml_documents import parse_xml, xml_format

WORDS = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# An image given for several splits goes to the first of these, so that it cannot leak into train
PRECEDENCE = ("test", "val", "train")
BIGGEST_LIST = 64 * 2**20  # bytes
_YEAR = re.compile(r"[_-]?(19|20)\d\d$")
_IN_NAME = re.compile(r"(?:^|[_.-])(train|val|valid|validation|test)(?:20\d\d)?$", re.I)
_FOLDERS = {"obj_train_data": "train", "obj_valid_data": "val", "obj_test_data": "test"}


HELD_OUT = 0.2  # fraction of the train images that becomes val if there is no val split
VAL_ONE_IN = 5  # one of this many images of a revision is in the val split, by its SHA-256

Key = TypeVar("Key")


def held_out_by_name(groups: Mapping[Key, Iterable[str]]) -> set[str]:
    """Names of the images that become the val split: a fifth of each group.

    They are chosen by a hash of the name: the same names always give the same split, and added
    images change it little. No image of a group of one is chosen.

    Args:
        groups: Class (or another key) → names of its train images.
    """
    chosen = set()
    for members in groups.values():
        ranked = sorted(members, key=lambda name: sha256(name.encode("utf-8", "replace")).digest())
        if len(ranked) > 1:
            chosen.update(ranked[: max(1, round(len(ranked) * HELD_OUT))])
    return chosen


def held_out_by_content(contents: Iterable[str]) -> set[str]:
    """The SHA-256 of the images that become the val split: about a fifth.

    Each is chosen by its own SHA-256, so that added images change no other's split. If none of
    several images is chosen, the first in order of SHA-256 is used; if all are chosen, the last one
    stays in train.
    """
    ordered = sorted(contents)
    chosen = {content for content in ordered if int(content[:8], 16) % VAL_ONE_IN == 0}
    if not chosen and len(ordered) > 1:
        chosen = {ordered[0]}
    if len(chosen) == len(ordered) and chosen:
        chosen.discard(ordered[-1])
    return chosen


def stated_splits(root: Path, submission: Submission, named: Mapping[str, str]) -> dict[str, str]:
    """Image of the zip → its split, for the images whose split is known.

    The split comes from a list of images (`train.txt`, `ImageSets/Main/val.txt`) or a CVAT subset,
    else from the document's name (`instances_val2017.json`), else from a folder's name.

    Args:
        root: Folder of the unpacked zip.
        submission: The documents and images read from the zip.
        named: Image → the document that describes it.
    """
    index = NameIndex((name, name) for name in submission.images)
    found: dict[str, set[str]] = {}
    for name, split in (*_lists(root, submission, index), *_subsets(root, submission, index)):
        found.setdefault(name, set()).add(split)
    for name in submission.images:
        if name in found:
            continue
        document = _IN_NAME.search(PurePosixPath(named.get(name, "")).stem)
        split = WORDS[document[1].lower()] if document else _folder(name)
        if split:
            found[name] = {split}
    return {name: next(s for s in PRECEDENCE if s in splits) for name, splits in found.items()}


def split_word(text: str) -> str:
    """The split that the name of a file or folder gives; empty if it gives none."""
    return WORDS.get(_YEAR.sub("", text).lower(), "")


def _folder(name: str) -> str:
    words = [split_word(part) or _FOLDERS.get(part, "") for part in PurePosixPath(name).parts[:-1]]
    return next(filter(None, reversed(words)), "")


def _lists(root: Path, submission: Submission, index: NameIndex[str]) -> Iterator[tuple[str, str]]:
    """(image, split) for each entry of the zip's image lists."""
    for name in submission.ignored:
        path = root / name
        split = split_word(path.stem)
        if path.suffix.lower() != ".txt" or not split or path.stat().st_size > BIGGEST_LIST:
            continue
        if path.stem.lower() == "trainval" and _has_separate_lists(path):
            continue
        for line in path.read_bytes().decode("utf-8-sig", "replace").splitlines():
            text = line.strip()
            for wanted in dict.fromkeys((text, text.split(" ")[0])):
                image = index.find(wanted, stem=True) if wanted else None
                if image is not None and image.item is not None:
                    yield image.item, split
                    break


def _has_separate_lists(path: Path) -> bool:
    """Whether the folder of a trainval list also has a list for train or for val."""
    return any((path.parent / f"{name}.txt").is_file() for name in ("train", "val"))


def _subsets(
    root: Path, submission: Submission, index: NameIndex[str]
) -> Iterator[tuple[str, str]]:
    """(image, split) for each image whose CVAT XML names a subset."""
    for source in {
        described.source
        for described in submission.described
        if described.source.lower().endswith(".xml")
    }:
        data = (root / source).read_bytes()
        if xml_format(data) != "cvat_xml" or b"subset=" not in data:
            continue
        rows: list[tuple[str, str]] = []

        def child(element: Element, rows: list[tuple[str, str]] = rows) -> None:
            if element.tag == "image":
                rows.append((element.get("name", ""), element.get("subset", "")))

        try:
            parse_xml(data, source, LONGEST, child)
        except ValidationFailed:  # the annotation reader reports it
            continue
        for name, subset in rows:
            image, split = index.find(name, subset).item, split_word(subset)
            if image is not None and split:
                yield image, split
