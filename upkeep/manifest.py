"""The manifest of a backup: every file with its SHA-256, size and time, and facts of its origin.

`manifest.jsonl` has a header and then one line per file. `manifest.sha256` holds its hash, in the
format of `sha256sum`; it is written last, so that a backup without it is not complete.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from errors import VisionLoopError
from nesting import check_json_depth

MANIFEST = "manifest.jsonl"
CHECKSUM = "manifest.sha256"
FORMAT = 1
DATABASE = "database"  # path of the copy of the SQLite file
HOME, MODELS = "home", "models"  # first parts of the paths of all other files
TREES = ("datasets", "evaluations", "jobs", "kept", "pretrained", "starter-sets", "uploads")
"""Folders of VISIONLOOP_HOME that a backup may contain."""

LONGEST_PATH = 3000  # bytes, so that it fits below any folder
LARGEST_NUMBER = 2**62  # that a file system takes as a size or time
_HASH = re.compile(r"[0-9a-f]{64}")


class BackupDamaged(VisionLoopError):
    """A backup is incomplete, changed or not one; the message names the file."""

    code, status = "BACKUP_DAMAGED", 400


@dataclass(frozen=True)
class Entry:
    """A file of a backup, or an empty folder.

    Attributes:
        path: `database`, or a relative path below `home/` or `models/`.
        sha256: Hash of its content; None for a folder.
        size: Bytes.
        mtime: Time of its last change, in nanoseconds.
        link: Number that hard links to one file have in common; 0: it has no other name.
    """

    path: str
    sha256: str | None
    size: int = 0
    mtime: int = 0
    link: int = 0


@dataclass(frozen=True)
class Header:
    """The first line of a manifest.

    Attributes:
        format: `FORMAT`.
        visionloop: Version of VisionLoop.
        schema: Revision of the database's tables; None: a version before Alembic.
        created_at: Time of the copy of the database.
        home, models_home: The copied folders, as named and resolved: paths in the database begin
            with them.
        database: `sqlite`, or the kind of the database that is not part of the backup.
        counts: Number of models, datasets, jobs, evaluations and drafts of annotations.
        notes: Sentences on what the backup lacks.
        files, bytes: Number of files, and their bytes without repeated content.
        home_id: Tells the home from others with the same path; None: a backup from before it was
            noted, or of a home that could not be written.
    """

    format: int
    visionloop: str
    schema: str | None
    created_at: str
    home: tuple[str, ...]
    models_home: tuple[str, ...]
    database: str
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: int = 0
    bytes: int = 0
    home_id: str | None = None

    def is_of(self, home_id: str | None, home: Collection[str]) -> bool:
        """Whether a home is the one that was copied: it has the same identity, and a path of it."""
        return self.home_id == home_id and not set(self.home).isdisjoint(home)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Manifest:
    """A header and its entries, each path once."""

    header: Header
    entries: tuple[Entry, ...]

    def objects(self) -> dict[str, int]:
        """The size of each different content, by its hash."""
        return {entry.sha256: entry.size for entry in self.entries if entry.sha256 is not None}


def written(manifest: Manifest) -> bytes:
    """The content of the file MANIFEST."""
    lines = [json.dumps(manifest.header.to_json())]
    lines += [
        json.dumps([entry.path, entry.sha256, entry.size, entry.mtime, entry.link])
        for entry in manifest.entries
    ]
    return ("\n".join(lines) + "\n").encode()


def checksum(data: bytes) -> bytes:
    """The content of the file CHECKSUM for a manifest."""
    return f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode()


def parsed(data: bytes, stated: bytes) -> Manifest:
    """The manifest, if it is what was written and every path in it is harmless.

    Args:
        data: The content of MANIFEST.
        stated: The content of CHECKSUM.

    Raises:
        BackupDamaged: It is not.
    """
    if checksum(data) != stated:
        raise BackupDamaged(
            f"{MANIFEST} does not have the hash in {CHECKSUM}: the backup was changed, or a file "
            "of it is damaged. Use another backup."
        )
    try:
        first, *lines = data.decode().splitlines()
        header = _header(first)
        entries = tuple(_entries(lines))
    except BackupDamaged:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackupDamaged(f"{MANIFEST} cannot be read: {error}") from error
    _refuse_repeats(entries)
    return Manifest(header, entries)


def _header(line: str) -> Header:
    check_json_depth(line, MANIFEST)
    values = json.loads(line)
    if values["format"] != FORMAT:
        raise BackupDamaged(
            f"The backup has the format {values['format']!r}, this version reads {FORMAT}. Restore "
            f"it with the VisionLoop that wrote it ({values.get('visionloop')!r:.40})."
        )
    known = {one.name for one in fields(Header)}
    if not isinstance(values["created_at"], str):
        raise BackupDamaged(f"{MANIFEST} has no time in its first line.")
    counts = values.get("counts", {})
    numbers = (*counts.values(), values.get("files", 0), values.get("bytes", 0))
    if not (isinstance(values["visionloop"], str) and all(map(_is_number, numbers))):
        raise BackupDamaged(f"The first line of {MANIFEST} is no backup's.")
    for name in ("home", "models_home", "notes"):
        values[name] = tuple(str(value) for value in values[name])
    return Header(**{name: value for name, value in values.items() if name in known})


def _entries(lines: Iterable[str]) -> Iterator[Entry]:
    for number, line in enumerate(lines, 2):
        check_json_depth(line, MANIFEST)
        path, sha256, size, mtime, link = json.loads(line)
        if (
            not isinstance(path, str)
            or not (sha256 is None or _HASH.fullmatch(sha256))
            or not all(map(_is_number, (size, mtime, link)))
            or size < 0
        ):
            raise BackupDamaged(f"Line {number} of {MANIFEST} is not a file's.")
        if not is_harmless(path):
            raise BackupDamaged(
                f"Line {number} of {MANIFEST} has the path {path[:100]!r}, which no backup has. "
                "Nothing was restored."
            )
        yield Entry(path, sha256, size, mtime, link)


def _is_number(value: object) -> bool:
    return type(value) is int and abs(value) < LARGEST_NUMBER


def is_harmless(path: str) -> bool:
    """Whether a path stays inside the folders that a backup may fill."""
    if path == DATABASE:
        return True
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        return False
    if len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
        return False
    if parts[0] == HOME:
        return len(parts) > 2 and parts[1] in TREES
    return parts[0] == MODELS and len(parts) > 2


def _refuse_repeats(entries: Sequence[Entry]) -> None:
    """Refuse a path that stands twice, or inside another that is a file."""
    files = {entry.path for entry in entries}
    if len(files) < len(entries):
        raise BackupDamaged(f"{MANIFEST} names a file twice.")
    folders = {
        "/".join(parts[:end])
        for parts in (entry.path.split("/") for entry in entries)
        for end in range(1, len(parts))
    }
    if both := files & folders:
        raise BackupDamaged(f"{MANIFEST} names {min(both)[:100]!r} as a file and as a folder.")
