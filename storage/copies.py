"""Copies of trees on this machine, downloaded when they are needed."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from errors import BackendUnavailable
from storage.trees import TreeStore

TIMEOUT = 1800.0  # seconds for which a process waits for another one's download


def copied(trees: TreeStore, key: str, folder: Path, locks: Path) -> Path:
    """The folder, with the tree in it: it is downloaded if there is no such folder.

    One process of this machine downloads it; the others wait. Without a store nothing is done, and
    the folder need not exist.

    Args:
        trees: The place of the trees.
        key: The tree's.
        folder: Where it belongs.
        locks: A folder of this machine for a lock file.

    Raises:
        TreeNotFound, StoreDamaged, StoreUnavailable, StoreRefused, InsufficientStorage: As
            `TreeStore.get`.
        BackendUnavailable: Another process's download does not end.
    """
    if not trees.shared or folder.is_dir():
        return folder
    locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = locks / f"{key.replace('/', '+')}.lock"
    try:
        with FileLock(file, timeout=TIMEOUT):
            if not folder.is_dir():
                trees.get(key, folder)
            file.unlink(missing_ok=True)
    except Timeout:
        raise BackendUnavailable(f"{key} is still being downloaded. Try again.", 30) from None
    return folder
