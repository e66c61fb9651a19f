"""Finds the image files of a dataset on disk, and the label file of each image."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence, Set
from pathlib import Path, PureWindowsPath

from dataset.allowed_roots import confine, is_inside, real_path
from dataset.issues import Findings
from errors import DatasetInvalid, InvalidImage

SIGNATURES = (
    (rb"\xff\xd8\xff", ".jpg"), (rb"\x89PNG\r\n", ".png"), (rb"BM", ".bmp"),
    (rb"RIFF....WEBP", ".webp"), (rb"II\*\0|MM\0\*", ".tif"),
    (rb"....ftypavi[fs]", ".avif"), (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", ".jp2"),
)  # fmt: skip


def suffix_of(data: bytes) -> str:
    """The file name suffix for the format of an encoded image, from its first bytes.

    Raises:
        InvalidImage: Trainers cannot read the format.
    """
    for signature, suffix in SIGNATURES:
        if re.match(signature, data[:16], re.DOTALL):
            return suffix
    raise InvalidImage("Images to train on must be JPEG, PNG, WebP, BMP, TIFF or AVIF files.")


# Formats that Ultralytics trains on (data/utils.py, 8.4.190), except those we cannot decode.
TRAINABLE = frozenset(
    {".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
)
CONVERTED = frozenset({".ppm", ".pgm", ".gif", ".jfif"})  # a job's view has them as PNG
UNREADABLE = frozenset({".dng", ".heic", ".heif", ".svg", ".psd", ".raw", ".cr2", ".nef"})
SUFFIXES = TRAINABLE | CONVERTED

JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN"})
MOST_IMAGES = 2_000_000
DEPTH = 24
_NOT_LABELS = frozenset({"classes", "labels", "notes", "train", "val", "valid", "test"})


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden or belongs to an operating system."""
    return name.startswith(".") or name in JUNK


def walk(folder: Path, roots: Sequence[Path], findings: Findings) -> Iterator[Path]:
    """Every image in a folder and its subfolders, sorted by name.

    Links are followed if they stay inside `roots`.

    Raises:
        Forbidden: A link leads out of `roots`.
        DatasetInvalid: A folder cannot be read, or there are over two million images.
    """
    confine(folder, roots)
    for count, path in enumerate(_walk(folder, roots, findings, frozenset()), 1):
        if count > MOST_IMAGES:
            raise DatasetInvalid(
                f"'{folder.name}' contains more than {MOST_IMAGES:,} images, which is the limit. "
                "Split the dataset."
            )
        yield path


def _walk(
    folder: Path, roots: Sequence[Path], findings: Findings, above: frozenset[Path]
) -> Iterator[Path]:
    real = real_path(folder)
    if real in above or len(above) > DEPTH:  # a link to a folder above
        return
    for entry in entries(folder):
        if is_junk(entry.name):
            continue
        if entry.is_symlink():
            confine(entry.path, roots)
        if is_folder(entry):
            yield from _walk(Path(entry.path), roots, findings, above | {real})
            continue
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in SUFFIXES and os.path.isfile(entry.path):
            yield Path(entry.path)
        elif suffix in UNREADABLE:
            findings.add("unlisted_format", entry.name)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name.

    Raises:
        DatasetInvalid: The folder cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetInvalid(
            f"'{folder.name}' cannot be read: {error.strerror}. Let the server's user read it."
        ) from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one. False for a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def match_labels(
    images: Sequence[Path], roots: Sequence[Path], findings: Findings
) -> dict[Path, Path]:
    """Image → its label file, for the images that have one.

    Label files are searched where Ultralytics expects them (`…/images/…` → `…/labels/…`), then
    next to the images and in a `labels` folder near them. For each image folder the first label
    folder that matches any of its images is used for all of them.

    Raises:
        Forbidden: A label file is a link that leads out of `roots`.
    """
    found: dict[Path, Path] = {}
    folders: dict[Path, list[Path]] = {}
    for image in images:
        folders.setdefault(image.parent, []).append(image)
    for folder, members in folders.items():
        stems = {_stem(image.name) for image in members}
        places = iter(dict.fromkeys(label_folders(folder)))
        for candidate in places:
            labels = _texts(candidate, roots)
            if stems.isdisjoint(labels):
                continue
            used: dict[Path, Path] = {}
            for image in members:
                label = labels.get(_stem(image.name))
                if label is None:
                    continue
                found[image] = label
                if label in used:
                    twin = used[label].name
                    findings.add("shared_label", f"{label.name}: {twin} and {image.name}")
                used[label] = image
            if candidate != folder:
                for stem in sorted(labels.keys() - stems - _NOT_LABELS):
                    findings.add("orphan_label", f"{candidate.name}/{labels[stem].name}")
            _report_unused_labels(stems - labels.keys(), places, roots, findings)
            break
    return found


def _report_unused_labels(
    without: Set[str], places: Iterator[Path], roots: Sequence[Path], findings: Findings
) -> None:
    """Report label files in further label folders, which are not read, of the images `without`
    a label file in the folder that is read."""
    for place in places if without else ():
        texts = _texts(place, roots)
        for stem in sorted(without & texts.keys()):
            findings.add("second_label", f"{place.name}/{texts[stem].name}")


def _stem(name: str) -> str:
    """A file's name without its suffix, in Unicode NFC: macOS stores accents decomposed."""
    stem = name.rpartition(".")[0]
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)


def label_folders(folder: Path) -> Iterator[Path]:
    """The folders that may hold the labels of an image folder, most likely first."""
    for i in reversed(range(len(folder.parts))):
        if folder.parts[i].lower() == "images":
            labels = "Labels" if folder.parts[i] == "Images" else "labels"
            yield Path(*folder.parts[:i], labels, *folder.parts[i + 1 :])
            break
    yield folder
    yield folder / "labels"
    yield folder.parent / "labels" / folder.name
    yield folder.parent / "labels"


def _texts(folder: Path, roots: Sequence[Path]) -> dict[str, Path]:
    """Stem → .txt file, for the text files of a folder; empty if it is outside `roots`."""
    if not is_inside(real_path(folder), roots) or not folder.is_dir():
        return {}
    texts = {}
    for entry in entries(folder):
        if entry.name.lower().endswith(".txt") and not is_junk(entry.name):
            if entry.is_symlink():
                confine(entry.path, roots)
            texts[_stem(entry.name)] = Path(entry.path)
    return texts


def foreign(text: str) -> str:
    """A path written on any operating system, with forward slashes and without a drive."""
    path = text.strip().replace("\\", "/")
    drive = PureWindowsPath(path).drive
    return path[len(drive) :] if drive else path
