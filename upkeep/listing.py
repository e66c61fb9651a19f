"""The backups in a folder: what their manifests say, and whether all their files are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import NotFound
from shell import columns, moment, size
from upkeep.identity import known_identity, names_of
from upkeep.manifest import CHECKSUM, MANIFEST, BackupDamaged, Header
from upkeep.storage import FolderBackup, ZipBackup, damage, places_in

FACTS = ("created_at", "visionloop", "database", "counts", "files", "bytes", "notes")
"""What is listed of a header."""

ANSWERS = {True: "yes", False: "no", None: "-"}


@dataclass(frozen=True)
class Listed:
    """A backup in a folder, or what is left of one.

    Attributes:
        path: Where it is.
        header: The header of its manifest; None: that cannot be read.
        fault: Why it is not complete; None: it is, though no file was read.
        of_this_home: Whether it is of the home of the settings; None: it cannot be told.
    """

    path: Path
    header: Header | None
    fault: str | None = None
    of_this_home: bool | None = None

    def to_json(self) -> dict[str, Any]:
        facts = self.header.to_json() if self.header else {}
        return {
            "path": str(self.path),
            **{name: facts.get(name) for name in FACTS},
            "complete": self.fault is None,
            "fault": self.fault,
            "of_this_home": self.of_this_home,
        }


def backups_in(folder: Path, home: Path) -> tuple[list[Listed], list[str]]:
    """The backups in a folder, the newest first, and a sentence for whatever cannot be read.

    Args:
        folder: Links in it and deeper folders are not looked at.
        home: Whether a backup is of this home is told.

    Raises:
        NotFound: There is no such folder.
    """
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}. Name the one that the backups are in.")
    found, notes = [], []
    for path in sorted(places_in(folder)):
        try:
            one = _look(path, home)
        except OSError as error:
            notes.append(f"{path} cannot be read: {error.strerror or error}.")
        else:
            found += [one] if one else []
    found.sort(key=lambda one: one.header.created_at if one.header else "", reverse=True)
    return found, notes


def _look(path: Path, home: Path) -> Listed | None:
    """The backup in a folder or zip; None: it is something else. Raises OSError."""
    try:
        backup = FolderBackup(path) if path.is_dir() else ZipBackup(path)
        if not backup.parts() & {MANIFEST, CHECKSUM}:
            return None
        manifest = backup.manifest()
    except BackupDamaged as error:
        return Listed(path, None, error.message)
    header, own = manifest.header, known_identity(home)
    told = own is not None and header.home_id is not None
    mine = header.is_of(own, names_of(home)) if told else None
    return Listed(path, header, damage(backup, manifest), mine)


def table(backups: Sequence[Listed]) -> str:
    """The backups as lines."""
    rows = [("PATH", "TIME", "VERSION", "HOLDS", "SIZE", "THIS HOME", "STATE")]
    for one in backups:
        facts = ("-",) * 4
        if header := one.header:
            holds = ", ".join(f"{count:,} {name}" for name, count in header.counts.items())
            facts = (moment(header.created_at), header.visionloop, holds, size(header.bytes))
        mine = ANSWERS[one.of_this_home]
        rows.append((str(one.path), *facts, mine, one.fault or "complete"))
    return columns(rows)
