"""A small file system of its own, to be filled."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[Path]:
    """`folder` as a file system of its own; the test is skipped where mounting is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux":
        pytest.skip("NOT TESTED: a full disk, which needs a tmpfs (Linux)")
    size = f"size={int(megabytes * 1024)}k"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "visionloop-test", str(folder)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk, which needs root: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """Fill the file system of `folder` but for `leave` bytes. Returns the file that fills it."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for block in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(block))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        if leave:
            file.truncate(max(0, file.tell() - leave))
    assert os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize <= leave
    return filler
