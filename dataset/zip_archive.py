"""Unpacks a dataset's zip from an untrusted client: data files only, limited in number and size."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dataset.class_folders import NEVER, SPLIT_NAMES
from dataset.image_files import SUFFIXES, UNREADABLE, is_junk
from dataset.issues import Finding, Findings
from dataset.zip_names import names_of
from disk_space import no_room_in
from errors import DatasetInvalid, PayloadTooLarge
from zip_bounds import ZipRefused, check_growth, open_zip

# Suffixes that are unpacked: images, and text files that no program executes
KEPT = SUFFIXES | {
    *(".txt", ".yaml", ".yml", ".json", ".xml", ".csv"),
    *(".data", ".names", ".labels"),  # files of darknet
}
# Files that may hold annotations in formats that are not read
PERHAPS_LABELS = {
    *(".tfrecord", ".tfrecords", ".record", ".parquet", ".arrow"),
    *(".npy", ".npz", ".mat", ".h5", ".pkl", ".ndjson", ".jsonl"),
}
# Skipped files that are reported because they may be data; others are code, caches or weights
PERHAPS_DATA = (
    UNREADABLE
    | PERHAPS_LABELS
    | {
        *(".zip", ".rar", ".7z", ".tar", ".gz", ".tgz"),
        *(".mp4", ".avi", ".mov", ".mkv", ".webm"),
    }
)

DAMAGED = "The file is not a zip, or it is damaged. Pack it again."
MOST_ENTRIES = 500_000
MOST_GROWTH = 10  # maximum of unpacked bytes, as a multiple of the largest upload
ROOM_STEP = 64 * 2**20  # unpacked bytes between two checks of the disk
DEPTH = 20  # maximum number of folder levels
LONGEST = 200  # maximum bytes of one name; leaves room for what `dataset.view` appends
_CHUNK = 2**20
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Unpacked:
    """Result of unpacking a zip.

    Attributes:
        root: The dataset's folder; if a single folder contains everything, that one.
        files: Number of unpacked files.
        size: Their size in bytes.
        skipped: Number of files that are not data.
        findings: A guessed encoding of the names, and skipped files that may be data.
    """

    root: Path
    files: int
    size: int
    skipped: int
    findings: tuple[Finding, ...] = ()

    @property
    def perhaps_labels(self) -> list[str]:
        """Files that were not unpacked and may hold annotations."""
        names = [name for found in self.findings for name in found.examples]
        return [name for name in names if Path(name).suffix.lower() in PERHAPS_LABELS]


def unpack(file: Path | IO[bytes], folder: Path, max_upload: int, reserve: int = 0) -> Unpacked:
    """Unpack a zip into an empty folder. After an error, the folder may hold some files.

    Args:
        file: The zip.
        folder: An empty folder.
        max_upload: Bytes of the largest upload; ten times as many may be unpacked.
        reserve: Bytes that must stay free on the disk.

    Raises:
        DatasetInvalid: It is not a zip, is damaged or encrypted, or an entry leads out of the
            folder, is a link, overlaps with another, or grows by far more than images do.
        PayloadTooLarge: The unpacked files exceed the limit.
        InsufficientStorage: The disk has no room for them and the reserve.
    """
    try:
        with open_zip(file, MOST_ENTRIES) as archive:
            findings = Findings()
            wanted, skipped = _wanted(archive, findings)
            check_growth([info for info, _ in wanted])
            _check_size(sum(info.file_size for info, _ in wanted), folder, max_upload, reserve)
            size = _extract(archive, wanted, folder, MOST_GROWTH * max_upload, reserve)
    except ZipRefused as error:
        raise DatasetInvalid(str(error)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeError, ValueError):
        raise DatasetInvalid(DAMAGED) from None
    except (NotImplementedError, RuntimeError):  # a feature of zips that Python does not read
        raise DatasetInvalid(DAMAGED) from None
    if not wanted:
        left_out = " ".join(finding.message for finding in findings.result())
        raise DatasetInvalid(f"The zip contains neither images nor labels. {left_out}".strip())
    return Unpacked(unwrap(folder), len(wanted), size, skipped, findings.result())


def safe_name(name: str) -> tuple[str, ...]:
    """The parts of an entry's path, relative to the folder it is unpacked into.

    Raises:
        DatasetInvalid: It leads out of the folder, or is no valid file name.
    """
    name = name.replace("\\", "/")
    shown = name[:80].encode("utf-8", "backslashreplace").decode()
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or (parts and ":" in parts[0]):
        raise DatasetInvalid(
            f"The zip's entry {shown!r} has a path outside the zip's folder. Pack it again with "
            "relative paths."
        )
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
        raise DatasetInvalid(
            f"The zip's entry {shown!r} has a name with control characters or surrogates. Rename "
            "the file."
        )
    if len(parts) > DEPTH or any(len(part.encode()) > LONGEST for part in parts):
        raise DatasetInvalid(
            f"The zip's entry {shown!r} has a name that is too long. Rename the file, or use fewer "
            "folders."
        )
    return parts


def _wanted(
    archive: zipfile.ZipFile, findings: Findings
) -> tuple[list[tuple[zipfile.ZipInfo, tuple[str, ...]]], int]:
    """The data files with the parts of their paths, and the number of other files."""
    entries = archive.infolist()
    names, assumed = names_of(entries)
    if assumed:
        findings.note("zip_names", assumed)
    wanted: dict[tuple[str, ...], zipfile.ZipInfo] = {}
    skipped = 0
    for info, name in zip(entries, names, strict=True):
        parts = safe_name(name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DatasetInvalid(
                f"The zip's entry '{'/'.join(parts)}' is a link or device. Pack the file itself."
            )
        if not parts or info.is_dir() or kind == stat.S_IFDIR or info.orig_filename[-1:] == "\\":
            continue
        suffix = os.path.splitext(parts[-1])[1].lower()
        if any(map(is_junk, parts)) or suffix not in KEPT:
            skipped += 1
            if suffix in PERHAPS_DATA and not any(map(is_junk, parts)):
                findings.add("not_unpacked", "/".join(parts))
            continue
        if info.flag_bits & _ENCRYPTED:
            raise DatasetInvalid("The zip is encrypted. Pack it without a password.")
        if parts in wanted:
            raise DatasetInvalid(f"The zip contains '{'/'.join(parts)}' twice. Keep one of them.")
        wanted[parts] = info
    return [(info, parts) for parts, info in wanted.items()], skipped


def _check_size(size: int, folder: Path, max_upload: int, reserve: int) -> None:
    most = MOST_GROWTH * max_upload
    if size > most:
        raise PayloadTooLarge(
            f"The zip unpacks to {size / 2**20:,.0f} MiB; at most {most / 2**20:,.0f} are allowed "
            "(ten times VISIONLOOP_MAX_UPLOAD_MB). Split it, or raise that setting."
        )
    if (error := no_room_in(folder, reserve, size)) is not None:
        raise error


def _extract(
    archive: zipfile.ZipFile,
    wanted: list[tuple[zipfile.ZipInfo, tuple[str, ...]]],
    folder: Path,
    most: int,
    reserve: int,
) -> int:
    total = checked = 0
    for info, parts in wanted:
        target = folder.joinpath(*parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("xb") as sink:
                for chunk in _chunks(source):
                    total += len(chunk)
                    if total > most:  # the declared sizes may be wrong
                        raise PayloadTooLarge(
                            "The zip unpacks to more than its declared size. Pack it again."
                        )
                    if total - checked > ROOM_STEP:  # others write to the disk too
                        checked = total
                        if (error := no_room_in(folder, reserve)) is not None:
                            raise error
                    sink.write(chunk)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            name = "/".join(parts)
            raise DatasetInvalid(
                f"The zip has both a file and a folder at '{name}'. Rename one of them."
            ) from None
    return total


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk


def unwrap(folder: Path) -> Path:
    """The innermost folder that contains everything.

    Folders of splits, images or labels are not entered: they are part of the dataset's layout.
    """
    layout = {*NEVER, *(name for names in SPLIT_NAMES.values() for name in names)}
    for _ in range(DEPTH):
        inside = list(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        if inside[0].name.lower() in layout:
            return folder
        folder = inside[0]
    return folder
