"""Atomic writes of files and folders, and copies by hard link."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""Prefix of temporary folders; one remains if its process is killed."""


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path for a file or folder, renamed to `target` when the block ends.

    Readers see either the old or the new content. If the block raises, `target` is unchanged and
    the temporary file is removed. A folder can replace only an empty folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=PARTIAL))
    try:
        yield partial / target.name
        os.replace(partial / target.name, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def atomic_write(target: Path, data: bytes | str) -> None:
    """Write a file that other processes may read at the same time; creates its folder."""
    with atomic_path(target) as path:
        path.write_bytes(data.encode() if isinstance(data, str) else data)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it if it cannot be linked (no hard links, another file system).

    Raises:
        OSError: The source cannot be read or the target cannot be written.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
