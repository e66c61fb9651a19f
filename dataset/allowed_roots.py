"""Where clients may name paths: the datasets folder and the operator's VISIONLOOP_DATA_ROOTS."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from errors import Forbidden, ValidationFailed
from settings import Settings

REMEDY = "Allow the folder with VISIONLOOP_DATA_ROOTS, or upload the data to /api/datasets."

LONGEST_NAME = 255  # bytes, on every file system that servers use
LONGEST_PATH = 4095
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
    """The folders, resolved; the first is the datasets' own."""
    return tuple(real_path(root) for root in (settings.paths.datasets, *settings.data_roots))


def real_path(path: Path | str) -> Path:
    """`path` without links and dots.

    Raises:
        ValidationFailed: No file system can have it: a null byte, half a surrogate pair, a name
            of over 255 bytes or over 4,095 in all.
    """
    try:
        real = os.path.realpath(path)
        data = os.fsencode(real)
    except (ValueError, OSError):
        raise ValidationFailed(f"{str(path)[:200]!r} is not a path.") from None
    longest = max(map(len, data.split(b"/")))
    if len(data) > LONGEST_PATH or longest > LONGEST_NAME:
        raise ValidationFailed(
            f"{str(path)[:100]!r}… is too long to be a path: a name may have {LONGEST_NAME} bytes, "
            f"all of it {LONGEST_PATH:,}. Give a data.yaml, a folder, or the id of a dataset."
        )
    return Path(real)


@contextmanager
def client_path(said: Path | str) -> Iterator[None]:
    """Around what is done with a path that a client named: what the file system says against it
    is the client's to mend.

    Raises:
        ValidationFailed: In place of the OSError, as far as it is about the path.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _ABOUT_THE_PATH:
            raise
        raise ValidationFailed(f"{str(said)[:200]!r} cannot be read: {error.strerror}.") from None


def there(path: Path, said: str = "") -> bool:
    """Whether there is something at `path`, which `said` is how the client wrote.

    Raises:
        ValidationFailed: It cannot be told: a loop of links, a folder that may not be read.
    """
    with client_path(said or path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


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
        shown = str(said or path)[:200]
        raise Forbidden(f"'{shown}' is outside the folders this server may read. {REMEDY}")
    return real


def shown_name(path: Path, settings: Settings) -> str:
    """A dataset's name for people: an upload's id, else its folder's, without where that is."""
    uploads = real_path(settings.paths.datasets)
    if path != uploads and path.is_relative_to(uploads):
        return path.relative_to(uploads).parts[0]
    return path.parent.name if path.suffix.lower() in (".yaml", ".yml") else path.name
