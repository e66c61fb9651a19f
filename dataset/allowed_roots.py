"""Confines the paths that clients give to the datasets folder and VISIONLOOP_DATA_ROOTS."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from errors import Forbidden, ValidationFailed
from settings import Settings

REMEDY = "Allow the folder with VISIONLOOP_DATA_ROOTS, or upload the data to /api/datasets."

LONGEST_NAME = 255  # bytes of a file name, the limit of the usual file systems
LONGEST_PATH = 4095  # bytes of a path
_ABOUT_THE_PATH = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOENT,
        errno.EINVAL,
        errno.EILSEQ,
        errno.ENXIO,
        errno.ENODEV,
    }
)


def data_roots(settings: Settings) -> tuple[Path, ...]:
    """The allowed folders, resolved; the first one is that of uploaded datasets."""
    return tuple(real_path(root) for root in (settings.paths.datasets, *settings.data_roots))


def real_path(path: Path | str) -> Path:
    """`path` as an absolute path without links and `..`.

    Raises:
        ValidationFailed: It cannot be a path: it has a null byte or a lone surrogate, a name of
            over 255 bytes, or over 4,095 bytes in all.
    """
    try:
        real = os.path.realpath(path)
        data = os.fsencode(real)
    except (ValueError, OSError):
        raise ValidationFailed(
            f"{str(path)[:200]!r} is not a path. Give a data.yaml, a folder, or the id of a "
            "dataset."
        ) from None
    longest = max(map(len, data.split(b"/")))
    if len(data) > LONGEST_PATH or longest > LONGEST_NAME:
        raise ValidationFailed(
            f"{str(path)[:100]!r}… is too long for a path: at most {LONGEST_NAME} bytes per name "
            f"and {LONGEST_PATH:,} in all. Give a data.yaml, a folder, or the id of a dataset."
        )
    return Path(real)


@contextmanager
def client_path(given: Path | str) -> Iterator[None]:
    """Context in which an OSError about the client's path becomes the client's error.

    Args:
        given: The path as the client wrote it, for the message.

    Raises:
        ValidationFailed: In place of an OSError that the path itself causes.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _ABOUT_THE_PATH:
            raise
        raise ValidationFailed(
            f"{str(given)[:200]!r} cannot be read: {error.strerror}. Let the server's user read "
            "it, or upload the data to /api/datasets."
        ) from None


def there(path: Path, given: str = "") -> bool:
    """Whether `path` exists.

    Args:
        path: The path to check.
        given: The path as the client wrote it, for the message.

    Raises:
        ValidationFailed: It cannot be checked: a loop of links, a folder without read permission.
    """
    with client_path(given or path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def is_inside(real: Path, roots: Sequence[Path]) -> bool:
    """Whether a resolved path is one of `roots` or inside one."""
    return any(real.is_relative_to(root) for root in roots)


def confine(path: Path | str, roots: Sequence[Path], given: str = "") -> Path:
    """`path` resolved, links followed, if it is inside `roots`.

    Args:
        path: The path to resolve.
        roots: The allowed folders.
        given: The path as the client wrote it, for the message.

    Raises:
        Forbidden: It is outside `roots`, whether it exists or not.
    """
    real = real_path(path)
    if not is_inside(real, roots):
        shown = str(given or path)[:200]
        raise Forbidden(f"'{shown}' is outside the folders this server may read. {REMEDY}")
    return real


def shown_name(path: Path, settings: Settings) -> str:
    """A dataset's display name: the id of an upload, else the folder's name without its path."""
    uploads = real_path(settings.paths.datasets)
    if path != uploads and path.is_relative_to(uploads):
        return path.relative_to(uploads).parts[0]
    return path.parent.name if path.suffix.lower() in (".yaml", ".yml") else path.name
