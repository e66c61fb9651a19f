"""Atomic writes of files and folders, temporary folders, and copies by hard link."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from filelock import AcquireReturnProxy, FileLock, Timeout

PARTIAL = ".partial-"
"""Prefix of temporary folders; one remains if its process is killed, see `delete_abandoned`."""

UNLOCKED = 60.0  # seconds after which a temporary folder without a lock is abandoned

LOCK = ".lock"
"""File in a temporary folder; the kernel unlocks it when its process ends."""


NO_FLOCK = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK})
"""What a file system says that has no locks."""


class HomeLock(FileLock):
    """A lock on a file in a home, which the kernel ends with its process, however that ends.

    A file system without such locks is refused: the mere existence of a file, to which `FileLock`
    falls back, would outlast a process that was killed, and lock its successors out.

    Args:
        file: The lock's file.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file, thread_local=False, fallback_to_soft=False)

    def acquire(self, *args: Any, **options: Any) -> AcquireReturnProxy[Self]:
        """As `FileLock.acquire`. Raises OSError, with the folder and what to do, if there are no
        locks."""
        try:
            return super().acquire(*args, **options)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            reason = (
                "its file system has no locks (flock), so that two processes could change the same "
                "at once. Use a folder on a local disk, or mount this one with locks"
            )
            raise OSError(error.errno, reason, str(Path(self.lock_file).parent)) from error


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path for a file or folder, renamed to `target` when the block ends.

    Readers see either the old or the new content. If the block raises, `target` is unchanged and
    the temporary file is removed. A folder can replace only an empty folder.
    """
    with _temporary_path(target.parent, target.name) as path:
        yield path
        os.replace(path, target)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """An empty temporary folder that becomes `target` when the block ends.

    A previous file or folder `target` is deleted at that moment. If the block raises, `target` is
    unchanged.
    """
    with atomic_path(target) as path:
        path.mkdir()
        yield path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def signal_change(file: Path) -> None:
    """Tell the processes that ask `change_of` this file: its time is now."""
    with contextlib.suppress(OSError):  # they look for changes from time to time as well
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        moment = time.time_ns()  # finer than the time that the system would set
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.utime(descriptor, ns=(moment, moment))
        finally:
            os.close(descriptor)


def change_of(file: Path) -> int:
    """A number that is another one after each `signal_change`; takes microseconds."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


def atomic_write(target: Path, data: bytes | str) -> None:
    """Write a file that other processes may read at the same time; creates its folder."""
    with atomic_path(target) as path:
        path.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """An empty folder somewhere below `parent`, deleted when the block ends."""
    with _temporary_path(parent, "content") as folder:
        folder.mkdir()
        yield folder


def delete_abandoned(root: Path) -> int:
    """Delete the temporary folders below `root` whose process was killed; returns their number.

    Folders that a running process uses are locked, and are not deleted. Links are not followed.
    """
    return sum(map(delete_if_abandoned, temporary_folders(root)))


def temporary_folders(root: Path) -> Iterator[Path]:
    """The temporary folders below `root`, whether a process uses them or not."""
    pending = [root]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                folders = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # deleted meanwhile, or not readable
            continue
        for folder in folders:
            if folder.name.startswith(PARTIAL):
                yield folder
            else:
                pending.append(folder)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it if it cannot be linked (no hard links, another file system).

    Raises:
        FileExistsError: The target exists; it is unchanged.
        OSError: The source cannot be read or the target cannot be written.
    """
    try:
        os.link(source, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        with source.open("rb") as content, target.open("xb") as copy:
            shutil.copyfileobj(content, copy)


@contextmanager
def _temporary_path(parent: Path, name: str) -> Iterator[Path]:
    """A path for a file or folder `name` in a new locked folder, deleted when the block ends."""
    parent.mkdir(parents=True, exist_ok=True)
    folder, lock = _locked_folder(parent)
    try:
        yield folder / name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _locked_folder(parent: Path) -> tuple[Path, FileLock]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=PARTIAL))
        lock = FileLock(folder / LOCK, thread_local=False)
        try:
            lock.acquire()
        except (FileExistsError, FileNotFoundError):  # deleted before it was locked
            continue
        if (folder / LOCK).exists():
            return folder, lock
        lock.release()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_abandoned(folder: Path) -> bool:
    """Whether no running process uses a temporary folder. It is not changed."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:  # renamed here to be deleted, or created this moment
        with contextlib.suppress(OSError):
            return time.time() - folder.stat().st_mtime > UNLOCKED
        return False
    except OSError:  # in use
        return False
    return True


def delete_if_abandoned(folder: Path) -> bool:
    """Delete a temporary folder unless a running process uses it; returns whether it is gone."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, Timeout):  # Timeout: in use
        return False
    return not folder.exists()
