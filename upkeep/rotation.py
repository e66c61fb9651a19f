"""Deletes the oldest backups beside a new one, and nothing else that lies there.

What goes is a complete backup of the same home, in a folder that holds nothing but a backup, or in
a zip. Whatever cannot be told to be one stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from errors import NotFound
from files import temporary_folder
from upkeep.manifest import CHECKSUM, MANIFEST, BackupDamaged, Header
from upkeep.storage import OBJECTS, opened

PARTS = {MANIFEST, CHECKSUM, OBJECTS}


@dataclass(frozen=True)
class Rotated:
    """What `rotate` did.

    Attributes:
        deleted: The backups that are gone, the oldest first.
        kept: Backups that were to go and stay, with the reason.
    """

    deleted: tuple[Path, ...]
    kept: tuple[str, ...]


def rotate(newest: Path, header: Header, keep: int) -> Rotated:
    """Delete all but the `keep` newest backups of a home.

    Args:
        newest: The backup that was just written; those beside it are looked at.
        header: Its header: only backups of the same home count.
        keep: How many stay, this one among them.
    """
    found = sorted(_siblings(newest, header))
    deleted, kept = [], []
    for _, path in found[: max(0, len(found) - keep)]:
        try:
            _delete(path)
        except OSError as error:
            kept.append(f"{path} stays: {error.strerror or error}.")
        else:
            deleted.append(path)
    return Rotated(tuple(deleted), tuple(kept))


def _siblings(newest: Path, header: Header) -> Iterator[tuple[str, Path]]:
    """Time and path of each complete backup of the same home beside `newest`, and of itself."""
    for path in newest.parent.iterdir():
        if path.is_symlink() or not (_only_a_backup(path) or _is_zip(path)):
            continue
        with suppress(BackupDamaged, NotFound):
            other = opened(path).manifest().header
            if path == newest or _same_home(other, header):
                yield other.created_at, path


def _only_a_backup(path: Path) -> bool:
    return path.is_dir() and {entry.name for entry in path.iterdir()} == PARTS


def _is_zip(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".zip"


def _same_home(one: Header, other: Header) -> bool:
    return not set(one.home).isdisjoint(other.home)


def _delete(path: Path) -> None:
    """Delete a backup so that no half of it looks like one: the next backup ends what is left."""
    with temporary_folder(path.parent) as folder:
        os.rename(path, folder / path.name)
