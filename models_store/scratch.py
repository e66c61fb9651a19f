"""Temporary folders under VISIONLOOP_HOME that are deleted even if their process was killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

FOLDER = "scratch"
LOCK = ".lock"


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """An empty temporary folder, locked while in use and deleted afterwards."""
    root = home / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    # `clear_scratch` may delete the folder before it is locked; then it is created again.
    folder = Path(tempfile.mkdtemp(dir=root))
    with FileLock(root / f"{folder.name}{LOCK}"):
        try:
            folder.mkdir(exist_ok=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            (root / f"{folder.name}{LOCK}").unlink(missing_ok=True)


def clear_scratch(home: Path) -> int:
    """Delete temporary folders that no running process uses; returns their number."""
    count = 0
    for path in (home / FOLDER).glob("*"):
        if path.name.endswith(LOCK):
            continue
        lock = path.with_name(f"{path.name}{LOCK}")
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(path, ignore_errors=True)
                lock.unlink(missing_ok=True)
                count += 1
        except Timeout:  # in use
            continue
    return count
