"""Space on the server's disks: errors that mean a full disk, and the reserve that stays free."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from errors import InsufficientStorage
from settings import Settings

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE = (
    "no space left", "disk quota", "disk is full", "os error 28",
    "enforce fail at inline_container",
)  # fmt: skip
NO_ROOM = (
    "The disk is full. Free space on the disk of VISIONLOOP_HOME (and of BENTOML_HOME), then try "
    "again: delete jobs, datasets and models that nobody needs. docs/how-to/clean-up.md says how."
)
MIB = 2**20


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the operating system, SQLite, torch or safetensors reports a full disk.

    The exceptions that caused this one, or that it was raised from, count too.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(word in str(error).lower() for word in NO_SPACE):
            return True
        error = error.__cause__ or getattr(error, "orig", None)
    return False


def check_room(settings: Settings, needed: int = 0) -> None:
    """Check that the disk of VISIONLOOP_HOME has room for a large write, and for the reserve.

    Args:
        settings: Provide the home and VISIONLOOP_DISK_RESERVE.
        needed: Bytes that will be written, as far as they are known.

    Raises:
        InsufficientStorage: Less than the reserve would stay free.
    """
    if (error := no_room(settings, needed)) is not None:
        raise error


def no_room(settings: Settings, needed: int = 0) -> InsufficientStorage | None:
    """The error that `check_room` raises; None if there is room."""
    return no_room_in(settings.home, int(settings.disk_reserve), needed)


def no_room_in(folder: Path, reserve: int, needed: int = 0) -> InsufficientStorage | None:
    """The error for a write of `needed` bytes in a folder that leaves less than `reserve` free."""
    free = free_bytes(folder)
    if free - needed >= reserve:
        return None
    size = f"{needed / MIB:,.0f} MiB are needed, and " if needed else ""
    return InsufficientStorage(
        f"The server's disk has {free / MIB:,.0f} MiB free; {size}{reserve / MIB:,.0f} MiB stay "
        "free (VISIONLOOP_DISK_RESERVE). Delete jobs, datasets and models that nobody needs; "
        "docs/how-to/clean-up.md says how."
    )


def free_bytes(folder: Path) -> int:
    """The bytes that this user can still write on the disk of a folder, which need not exist."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
