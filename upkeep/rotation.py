"""Deletes the oldest backups beside a new one, and nothing else that lies there.

What goes is a complete backup of the same home, older than the new one, in a folder or zip that
holds nothing else. Whatever cannot be told to be one stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from errors import NotFound
from files import temporary_folder
from home_paths import IDENTITY
from upkeep.manifest import BackupDamaged, Header
from upkeep.storage import opened


@dataclass(frozen=True)
class Rotated:
    """What `rotate` did.

    Attributes:
        deleted: The backups that are gone, the oldest first.
        notes: Sentences on what was to go and stays.
    """

    deleted: tuple[Path, ...]
    notes: tuple[str, ...]


def rotate(newest: Path, header: Header, keep: int) -> Rotated:
    """Delete all but the `keep` newest backups of a home, and none that is newer than this one.

    So of two backups that are made at the same time neither deletes the newer one, whatever clocks
    say.

    Args:
        newest: The backup that was just written; those beside it are looked at.
        header: Its header: only backups of the same home count.
        keep: How many stay, this one among them.
    """
    if header.home_id is None:
        file = Path(header.home[0]) / IDENTITY
        return Rotated((), (f"No older backup was deleted: {file} cannot be written or read.",))
    others = sorted(_others(newest, header))
    deleted, notes = [], []
    for time, path in others[: max(0, len(others) + 1 - keep)]:
        if time >= header.created_at:
            break
        try:
            _delete(path)
        except OSError as error:
            notes.append(f"{path} stays: {error.strerror or error}.")
        else:
            deleted.append(path)
    return Rotated(tuple(deleted), tuple(notes))


def _others(newest: Path, header: Header) -> Iterator[tuple[str, Path]]:
    """Time and path of each complete backup of the same home beside `newest`."""
    for path in newest.parent.iterdir():
        if path == newest or path.is_symlink() or not (path.is_dir() or _is_zip(path)):
            continue
        with suppress(BackupDamaged, NotFound, OSError):  # OSError: others' folders cannot be read
            backup = opened(path)
            other = backup.manifest().header
            if backup.holds_nothing_else() and _same_home(other, header):
                yield other.created_at, path


def _is_zip(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".zip"


def _same_home(one: Header, other: Header) -> bool:
    return one.home_id == other.home_id and not set(one.home).isdisjoint(other.home)


def _delete(path: Path) -> None:
    """Delete a backup so that no half of it looks like one: the next backup ends what is left."""
    with temporary_folder(path.parent) as folder:
        os.rename(path, folder / path.name)
