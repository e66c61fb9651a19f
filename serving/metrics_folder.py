"""The folder through which the processes of a server share their Prometheus metrics.

Its files are mapped into memory. A write to a mapped page that the disk has no room for ends the
process (SIGBUS). The folder is therefore not in VISIONLOOP_HOME, which datasets and trainings may
fill, and `prometheus_patches.ReservedDict` reserves the space of its files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from settings import Settings

PREFIX = "visionloop-metrics-"

_joined: dict[Path, int] = {}  # descriptors of the locks, which end with this process


def chosen(settings: Settings) -> Path:
    """The folder of the server on this home, whether or not it exists; the same in each process.

    It is in /dev/shm, or else in the folder for temporary files, or else in VISIONLOOP_HOME.
    """
    candidates = _candidates(settings)
    for folder in candidates:
        if _is_private(folder):
            return folder
    return next(folder for folder in candidates if _can_be_created(folder))


def join(settings: Settings) -> Path:
    """Create the folder if it does not exist. It is not swept while this process lives.

    Raises:
        OSError: No folder can be created, not even in VISIONLOOP_HOME.
    """
    folder = chosen(settings)
    if folder == settings.paths.metrics:
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if folder in _joined:
        os.close(_joined[folder])
    _joined[folder] = descriptor
    if not is_same(descriptor, folder):  # swept between its creation and the lock
        return join(settings)
    return folder


def renew(settings: Settings) -> Path:
    """Create an empty folder; remove the folders of servers whose processes have all ended.

    Only for the process that holds the server lock of this home.

    Raises:
        OSError: No folder can be created, not even in VISIONLOOP_HOME.
    """
    remove(settings)
    for base in _bases():
        for folder in base.glob(f"{PREFIX}{os.getuid()}-*"):
            sweep(folder)
    return join(settings)


def remove(settings: Settings) -> None:
    """Remove the folder of the server on this home."""
    for folder in _candidates(settings):
        if folder == settings.paths.metrics or _is_private(folder):
            shutil.rmtree(folder, ignore_errors=True)
        if folder in _joined:
            os.close(_joined.pop(folder))


def _bases() -> list[Path]:
    memory = [Path("/dev/shm")] if sys.platform == "linux" else []
    return [*memory, Path(tempfile.gettempdir())]


def _candidates(settings: Settings) -> list[Path]:
    """The possible folders, in order of preference.

    Their name is different for each user and each home of a machine. It is also different for
    containers that share /dev/shm and have the same path as their home, because each container has
    its own mount namespace.
    """
    try:
        namespace = os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        namespace = 0
    place = hashlib.sha256(f"{namespace}:{settings.home}".encode()).hexdigest()[:16]
    name = f"{PREFIX}{os.getuid()}-{place}"
    return [*(base / name for base in _bases()), settings.paths.metrics]


def _is_private(folder: Path) -> bool:
    """Whether `folder` is this user's, is no link, and cannot be entered by other users."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return ours and not found.st_mode & 0o077


def _can_be_created(folder: Path) -> bool:
    """Whether the path is free and its parent is writable; always true for the last candidate."""
    if not folder.name.startswith(PREFIX):
        return True
    free = not os.path.lexists(folder)
    return free and folder.parent.is_dir() and os.access(folder.parent, os.W_OK | os.X_OK)


def is_same(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.lstat())
    except OSError:
        return False


def sweep(folder: Path) -> None:
    """Remove a folder of this user, unless a process has joined it."""
    if not _is_private(folder):
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
