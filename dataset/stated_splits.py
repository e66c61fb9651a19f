"""Which split an image belongs to, as the files around annotations say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
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
FIRST = ("test", "val", "train")  # of an image of several, so that no copy leaks
BIGGEST_LIST = 64 * 2**20  # bytes
_YEAR = re.compile(r"[_-]?(19|20)\d\d$")
_IN_NAME = re.compile(r"(?:^|[_.-])(train|val|valid|validation|test)(?:20\d\d)?$", re.I)
_FOLDERS = {"obj_train_data": "train", "obj_valid_data": "val", "obj_test_data": "test"}


def stated_splits(root: Path, sent: Submission, named: Mapping[str, str]) -> dict[str, str]:
    """Image of the zip → its split, for those of which one is stated.

    A list of images (`train.txt`, `ImageSets/Main/val.txt`) or a CVAT subset says it, else the
    document's name (`instances_val2017.json`), else a folder.

    Args:
        root: The unpacked zip.
        sent: What came in it.
        named: Image → the document that described it.
    """
    index = NameIndex((name, name) for name in sent.images)
    found: dict[str, set[str]] = {}
    for name, split in (*_lists(root, sent, index), *_subsets(root, sent, index)):
        found.setdefault(name, set()).add(split)
    for name in sent.images:
        if name in found:
            continue
        document = _IN_NAME.search(PurePosixPath(named.get(name, "")).stem)
        split = WORDS[document[1].lower()] if document else _folder(name)
        if split:
            found[name] = {split}
    return {name: next(s for s in FIRST if s in splits) for name, splits in found.items()}


def split_word(text: str) -> str:
    """The split that a file or folder is named after; empty: none."""
    return WORDS.get(_YEAR.sub("", text).lower(), "")


def _folder(name: str) -> str:
    words = [split_word(part) or _FOLDERS.get(part, "") for part in PurePosixPath(name).parts[:-1]]
    return next(filter(None, reversed(words)), "")


def _lists(root: Path, sent: Submission, index: NameIndex[str]) -> Iterator[tuple[str, str]]:
    for name in sent.ignored:
        path = root / name
        split = split_word(path.stem)
        if path.suffix.lower() != ".txt" or not split or path.stat().st_size > BIGGEST_LIST:
            continue
        if path.stem.lower() == "trainval" and _parted(path):
            continue
        for line in path.read_bytes().decode("utf-8-sig", "replace").splitlines():
            text = line.strip()
            for wanted in dict.fromkeys((text, text.split(" ")[0])):
                image = index.find(wanted, stem=True) if wanted else None
                if image is not None and image.item is not None:
                    yield image.item, split
                    break


def _parted(path: Path) -> bool:
    """Whether train and val have lists of their own beside."""
    return any((path.parent / f"{name}.txt").is_file() for name in ("train", "val"))


def _subsets(root: Path, sent: Submission, index: NameIndex[str]) -> Iterator[tuple[str, str]]:
    for source in {
        described.source
        for described in sent.described
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
        except ValidationFailed:  # its reader has said so
            continue
        for name, subset in rows:
            image, split = index.find(name, subset).item, split_word(subset)
            if image is not None and split:
                yield image, split
