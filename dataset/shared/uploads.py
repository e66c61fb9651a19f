"""Files that clients uploaded for a job, which may run on another machine."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from errors import VisionLoopError
from settings import Settings
from storage.place import open_trees

log = logging.getLogger(__name__)

UPLOADS = "uploads"  # first word of the keys: uploads/NAME of the folder
PREFIX = "pictures-"  # of the folders' names in VISIONLOOP_HOME/uploads


def new_folder(parent: Path) -> Path:
    """A new folder for uploaded files; its name says when it was made."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{int(time.time()):x}-", dir=parent))


def share(folder: Path, settings: Settings) -> None:
    """Have a folder of uploaded files where the job may run; call it before the job is queued.

    Raises:
        StoreUnavailable, StoreRefused: As `TreeStore.put`.
    """
    trees = open_trees(settings)
    if trees.shared:
        trees.put(folder, _key(folder))


def have(folder: Path, settings: Settings) -> None:
    """Download a folder of uploaded files, if another machine received them.

    Raises:
        TreeNotFound: It was deleted.
        StoreUnavailable, StoreRefused, StoreDamaged, InsufficientStorage: As `TreeStore.get`.
    """
    trees = open_trees(settings)
    if trees.shared and not folder.is_dir():
        trees.get(_key(folder), folder)


def discard(folder: Path, settings: Settings) -> None:
    """Delete a folder of uploaded files, here and in the object store."""
    shutil.rmtree(folder, ignore_errors=True)
    trees = open_trees(settings)
    if trees.shared:
        with contextlib.suppress(VisionLoopError):  # `lost` finds it later
            trees.delete(_key(folder))


def lost(used: Collection[str], settings: Settings, min_age: float) -> list[Path]:
    """Uploaded folders in the object store that are old, and that no unfinished job uses.

    Args:
        used: Names of folders in recipes.
        settings: The store, and the folder of uploads.
        min_age: Age in seconds from which they are old.
    """
    found = []
    for key in open_trees(settings).list(UPLOADS):
        name = key.rpartition("/")[2]
        with contextlib.suppress(ValueError, IndexError):
            age = time.time() - int(name.split("-")[1], 16)
            if name not in used and age > min_age:
                found.append(settings.paths.uploads / name)
    return found


def _key(folder: Path) -> str:
    return f"{UPLOADS}/{folder.name}"
