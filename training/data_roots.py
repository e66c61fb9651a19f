"""Where clients may name paths: the datasets folder and the operator's VISIONLOOP_DATA_ROOTS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from errors import Forbidden, ValidationFailed
from settings import Settings

REMEDY = "Allow the folder with VISIONLOOP_DATA_ROOTS, or upload the data to /api/datasets."


def data_roots(settings: Settings) -> tuple[Path, ...]:
    """The folders, resolved; the first is the datasets' own."""
    return tuple(real_path(root) for root in (settings.home / "datasets", *settings.data_roots))


def real_path(path: Path | str) -> Path:
    """`path` without links and dots.

    Raises:
        ValidationFailed: It is no path at all (a null byte in it).
    """
    try:
        return Path(os.path.realpath(path))
    except (ValueError, OSError):
        raise ValidationFailed(f"{str(path)[:200]!r} is not a path.") from None


def is_inside(real: Path, roots: Sequence[Path]) -> bool:
    """Whether a resolved path is one of `roots` or lies under one."""
    return any(real.is_relative_to(root) for root in roots)


def confine(path: Path | str, roots: Sequence[Path], said: str = "") -> Path:
    """`path` resolved, links followed; whether it exists is not told about the outside.

    `said` is how the client wrote it.

    Raises:
        Forbidden: It leads out of `roots`.
    """
    real = real_path(path)
    if not is_inside(real, roots):
        raise Forbidden(f"'{said or path}' is outside the folders this server may read. {REMEDY}")
    return real


def shown_name(path: Path, settings: Settings) -> str:
    """A data set's name for people: an upload's id, else its folder's, without where that is."""
    uploads = real_path(settings.home / "datasets")
    if path != uploads and path.is_relative_to(uploads):
        return path.relative_to(uploads).parts[0]
    return path.parent.name if path.suffix.lower() in (".yaml", ".yml") else path.name
