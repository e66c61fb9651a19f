"""Takes an upload of several files as if they were packed in one zip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from dataset.image_files import SUFFIXES, is_junk
from dataset.issues import Findings
from dataset.zip_archive import (
    KEPT,
    MOST_GROWTH,
    PERHAPS_DATA,
    ROOM_STEP,
    Unpacked,
    safe_name,
    unwrap,
)
from disk_space import no_room_in
from errors import DatasetInvalid, PayloadTooLarge

_CHUNK = 2**20


@dataclass(frozen=True)
class LooseFile:
    """A file of an upload that is not in a zip.

    Attributes:
        name: Its name, or its path in the folder that a user dropped.
        content: The open file, or its path.
    """

    name: str
    content: IO[bytes] | Path


def is_image_name(name: str) -> bool:
    """Whether a file is an image by the suffix of its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def place(files: Sequence[LooseFile], folder: Path, max_upload: int, reserve: int = 0) -> Unpacked:
    """Write the files into an empty folder, as `zip_archive.unpack` does with those of a zip.

    Two files of one name are both kept, the second as `name_2`; the finding `renamed` says so.

    Args:
        files: The files.
        folder: An empty folder.
        max_upload: Bytes of the largest upload.
        reserve: Bytes that must stay free on the disk.

    Raises:
        DatasetInvalid: A name leads out of the folder, or no file is an image or annotation.
        PayloadTooLarge: Together they are larger than ten uploads.
        InsufficientStorage: The disk has no room for them and the reserve.
    """
    findings, taken = Findings(), set[tuple[str, ...]]()
    size = count = skipped = checked = 0
    for file in files:
        parts = safe_name(file.name)
        if not parts:
            raise DatasetInvalid("A file has no name. Send each file with its file name.")
        suffix = os.path.splitext(parts[-1])[1].lower()
        if any(map(is_junk, parts)) or suffix not in KEPT:
            skipped += 1
            if suffix in PERHAPS_DATA and not any(map(is_junk, parts)):
                findings.add("not_unpacked", "/".join(parts))
            continue
        free = _free(parts, taken)
        if free != parts:
            findings.add("renamed_file", f"{'/'.join(parts)} became {free[-1]}")
        target = folder.joinpath(*free)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            size += _copy(file, target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise DatasetInvalid(
                f"There is both a file and a folder '{'/'.join(parts)}'. Rename one of them."
            ) from None
        count += 1
        if size > MOST_GROWTH * max_upload:
            raise PayloadTooLarge(
                f"The files are larger than {MOST_GROWTH * max_upload / 2**20:,.0f} MiB together. "
                "Send them in several requests."
            )
        if size - checked > ROOM_STEP:
            checked = size
            if (error := no_room_in(folder, reserve)) is not None:
                raise error
    if not count:
        left_out = " ".join(finding.message for finding in findings.result())
        raise DatasetInvalid(f"None of the files is an image or an annotation. {left_out}".strip())
    return Unpacked(unwrap(folder), count, size, skipped, findings.result())


def _free(parts: tuple[str, ...], taken: set[tuple[str, ...]]) -> tuple[str, ...]:
    """A path that no earlier file has; it is added to `taken`."""
    name = PurePosixPath(parts[-1])
    found, number = parts, 1
    while found in taken:
        number += 1
        found = (*parts[:-1], f"{name.stem}_{number}{name.suffix}")
    taken.add(found)
    return found


def _copy(file: LooseFile, target: Path) -> int:
    if isinstance(file.content, Path):
        with file.content.open("rb") as opened:
            return _copy(LooseFile(file.name, opened), target)
    size = 0
    file.content.seek(0)
    with target.open("xb") as sink:
        while chunk := file.content.read(_CHUNK):
            sink.write(chunk)
            size += len(chunk)
    return size
