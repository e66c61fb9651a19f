"""What a broken disk or an interrupted copy does to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.seeds import rng

Damage = Callable[[Path], None]


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def scribbled(file: Path) -> None:
    """A page in the middle has other bytes; the size is the same."""
    content = bytearray(file.read_bytes())
    start = len(content) // 2
    length = min(4096, len(content) - start)
    content[start : start + length] = rng(0).bytes(length)
    file.write_bytes(bytes(content))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def deleted(file: Path) -> None:
    file.unlink()


DAMAGES: tuple[Damage, ...] = (truncated, zeroed, scribbled, emptied, deleted)
