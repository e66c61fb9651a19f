"""Files and folders that are there as a whole or not at all, and copies that cost nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""How the names of temporary folders begin; a killed process leaves its own behind."""


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A path beside `target` for a file or a folder; it becomes `target` when the block ends.

    Readers see the old content or the new, never a part. Where the block raises, `target` stays
    as it was and nothing is left beside it. A folder can only take the place of an empty one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=PARTIAL))
    try:
        yield partial / target.name
        os.replace(partial / target.name, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def atomic_write(target: Path, data: bytes | str) -> None:
    """Write a file that others may read at the same time; its folder is made."""
    with atomic_path(target) as path:
        path.write_bytes(data.encode() if isinstance(data, str) else data)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link to a file, or a copy where the file system has no links or it is another one.

    Raises:
        OSError: The source cannot be read or the target cannot be written.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
