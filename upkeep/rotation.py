"""Deletes the oldest backups beside a new one, and nothing else that lies there.

What goes is a complete backup of the same home, older than the new one, in a folder or zip that
holds nothing else. Whatever cannot be told to be one stays. One that lacks files neither counts
nor goes: it might be all that is left of what it holds.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from errors import NotFound
from files import temporary_folder
from home_paths import IDENTITY
from upkeep.manifest import BackupDamaged, Header
from upkeep.storage import PARTS, damage, opened, places_in


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
        newest: The backup that was just written; those beside it are looked at, and not read.
        header: Its header: only backups of the same home count.
        keep: How many stay, this one among them.
    """
    if header.home_id is None:
        file = Path(header.home[0]) / IDENTITY
        return Rotated((), (f"No older backup was deleted: {file} cannot be written or read.",))
    others, notes = _others(newest, header)
    deleted = []
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


def _others(newest: Path, header: Header) -> tuple[list[tuple[str, Path]], list[str]]:
    """Time and path of each complete backup of the same home beside `newest`, the oldest first; and
    a note for each damaged one."""
    found, notes = [], []
    for path in places_in(newest.parent):
        if path == newest:
            continue
        with suppress(BackupDamaged, NotFound, OSError):  # OSError: others' folders cannot be read
            backup = opened(path)
            manifest = backup.manifest()
            if not (backup.parts() <= PARTS and manifest.header.is_of(header.home_id, header.home)):
                continue
            if lost := damage(backup, manifest):
                notes.append(
                    f"{path} is damaged: {lost}. It is not counted, and stays until you delete it. "
                    f"`visionloop backup verify {path}` reads it."
                )
            else:
                found.append((manifest.header.created_at, path))
    return sorted(found), sorted(notes)


def _delete(path: Path) -> None:
    """Delete a backup so that no half of it looks like one: the next backup ends what is left."""
    with temporary_folder(path.parent) as folder:
        os.rename(path, folder / path.name)
