"""Where the contents of a backup lie: in a folder, or in one uncompressed zip.

Each content is stored once, under its SHA-256: `objects/ab/abcdef…`. Nothing that a backup holds is
ever a path to write to; the paths stand in the manifest, which is checked.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from errors import Conflict, NotFound
from files import LOCK, PARTIAL, atomic_path, delete_if_abandoned
from upkeep.manifest import (
    CHECKSUM,
    MANIFEST,
    BackupDamaged,
    Manifest,
    checksum,
    parsed,
    written,
)
from zip_bounds import ZipRefused, check_growth, open_zip

OBJECTS = "objects"
PARTS = {MANIFEST, CHECKSUM, OBJECTS}
CHUNK = 2**20  # bytes that are read at once
MOST_ENTRIES = 2_000_000  # of a zip
LARGEST_MANIFEST = 2 * 2**30  # bytes

Progress = Callable[[int], None]
"""Called with the number of bytes that were processed since the last call."""


def no_progress(count: int) -> None:
    """A `Progress` that does nothing."""


class Backup(Protocol):
    """A backup that is read."""

    def manifest(self) -> Manifest:
        """The checked manifest. Raises BackupDamaged."""

    def open(self, sha256: str, path: str) -> IO[bytes]:
        """The content with a hash; `path` is for the message. Raises BackupDamaged."""

    def size_of(self, sha256: str) -> int | None:
        """The size of a content, which is not read; None: there is none. Raises OSError."""

    def parts(self) -> set[str]:
        """The names at its top: PARTS, unless some are lost or others were put beside them. Raises
        OSError."""


class FolderBackup:
    """A backup in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self) -> Manifest:
        return parsed(self._small(MANIFEST), self._small(CHECKSUM))

    def open(self, sha256: str, path: str) -> IO[bytes]:
        return _regular(object_in(self.folder, sha256), path)

    def size_of(self, sha256: str) -> int | None:
        try:
            found = os.lstat(object_in(self.folder, sha256))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def parts(self) -> set[str]:
        return {entry.name for entry in self.folder.iterdir()}

    def _small(self, name: str) -> bytes:
        with _regular(self.folder / name, name) as file:
            return _bounded(file, name)


class ZipBackup:
    """A backup in a zip."""

    def __init__(self, file: Path) -> None:
        try:
            self._zip = open_zip(file, MOST_ENTRIES)
            check_growth(self._zip.infolist())
        except (ZipRefused, zipfile.BadZipFile, OSError, ValueError) as error:
            raise BackupDamaged(
                f"{file.name} is not a complete backup: {str(error).rstrip('.')}. Use another "
                "backup."
            ) from error

    def manifest(self) -> Manifest:
        return parsed(self._small(MANIFEST), self._small(CHECKSUM))

    def open(self, sha256: str, path: str) -> IO[bytes]:
        return self._entry(_zipped(sha256), path)

    def size_of(self, sha256: str) -> int | None:
        try:
            return self._zip.getinfo(_zipped(sha256)).file_size
        except KeyError:
            return None

    def parts(self) -> set[str]:
        return {name.split("/")[0] for name in self._zip.namelist()}

    def _small(self, name: str) -> bytes:
        with _damage_named(name), self._entry(name, name) as file:
            return _bounded(file, name)

    def _entry(self, name: str, path: str) -> IO[bytes]:
        try:
            with _damage_named(path):
                return self._zip.open(name)
        except KeyError:
            raise missing(path) from None


def opened(path: Path) -> Backup:
    """The backup at a path.

    Raises:
        NotFound: There is nothing.
        BackupDamaged: It is no complete backup.
    """
    if path.is_dir():
        if not (path / CHECKSUM).is_file():
            raise BackupDamaged(
                f"{path} is not a complete backup: it has no {CHECKSUM}. Name the folder or the "
                ".zip that `visionloop backup` wrote."
            )
        return FolderBackup(path)
    if not path.exists():
        raise NotFound(f"There is no backup {path}.")
    return ZipBackup(path)


def missing(path: str) -> BackupDamaged:
    """The error for a content that a backup lacks."""
    return BackupDamaged(f"The backup lacks the file {path}. Use another backup.")


def chunks(backup: Backup, sha256: str, size: int, path: str) -> Iterator[bytes]:
    """The content of a file, whose size and hash are checked as it is read.

    The consumer may use what it got only after the last chunk.

    Raises:
        BackupDamaged: It is not what was backed up; the message names the file.
    """
    digest, count = hashlib.sha256(), 0
    with _damage_named(path), backup.open(sha256, path) as file:
        while block := file.read(CHUNK):
            count += len(block)
            if count > size:
                break
            digest.update(block)
            yield block
    if count != size or digest.hexdigest() != sha256:
        raise BackupDamaged(
            f"{path} in the backup is damaged: its content does not have the size and hash in the "
            "manifest. Use another backup."
        )


def verify(backup: Backup, progress: Progress = no_progress) -> Manifest:
    """Read the whole backup and compare every hash. Returns its manifest.

    Raises:
        BackupDamaged: A file is missing or damaged; the message names it.
    """
    manifest = backup.manifest()
    seen: set[str] = set()
    for entry in manifest.entries:
        if entry.sha256 is None or entry.sha256 in seen:
            continue
        seen.add(entry.sha256)
        for block in chunks(backup, entry.sha256, entry.size, entry.path):
            progress(len(block))
    return manifest


def damage(backup: Backup, manifest: Manifest) -> str | None:
    """The first content that is missing or has another size, in words; None: there is none.

    No content is read: a changed byte is for `verify` to find.
    """
    paths = {entry.sha256: entry.path for entry in reversed(manifest.entries)}
    for sha256, size in manifest.objects().items():
        path = paths[sha256]
        try:
            found = backup.size_of(sha256)
        except OSError as error:
            return f"{path} cannot be read: {error.strerror or error}"
        if found is None:
            return f"it lacks the file {path}"
        if found != size:
            return f"{path} has {found:,} bytes instead of {size:,}"
    return None


def places_in(folder: Path) -> Iterator[Path]:
    """Where backups may lie in a folder: its folders and zips, but no links. Raises OSError."""
    for path in folder.iterdir():
        is_zip = path.suffix.lower() == ".zip" and path.is_file()
        if not path.is_symlink() and (is_zip or path.is_dir()):
            yield path


class Writer(Protocol):
    """A backup that is written."""

    def add(self, source: IO[bytes], limit: int) -> tuple[str, int]:
        """Store at most `limit` bytes of a file. Returns the content's hash and size."""

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest; with this the backup is complete."""


class FolderWriter:
    """Writes a backup into a new folder.

    Args:
        folder: It is created.
        earlier: A backup in a folder: equal contents are hard-linked to those in it.
        progress: Called with the bytes that were read.
    """

    def __init__(
        self, folder: Path, earlier: Path | None = None, progress: Progress = no_progress
    ) -> None:
        self.folder = folder
        self.earlier = earlier
        self.progress = progress
        self.linked = 0  # bytes that the earlier backup has too
        folder.mkdir(mode=0o700)

    def add(self, source: IO[bytes], limit: int) -> tuple[str, int]:
        partial = self.folder / f"{PARTIAL}{secrets.token_hex(8)}"
        with _private(partial) as target:
            sha256, size = self._copy(source, target, limit)
        self._keep(partial, sha256, size)
        return sha256, size

    def finish(self, manifest: Manifest) -> None:
        data = written(manifest)
        for name, content in ((MANIFEST, data), (CHECKSUM, checksum(data))):
            with _private(self.folder / name) as file:
                file.write(content)

    def _copy(self, source: IO[bytes], target: IO[bytes], limit: int) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        while size < limit and (block := source.read(min(CHUNK, limit - size))):
            digest.update(block)
            target.write(block)
            size += len(block)
            self.progress(len(block))
        return digest.hexdigest(), size

    def _keep(self, partial: Path, sha256: str, size: int) -> None:
        final = object_in(self.folder, sha256)
        if final.exists():
            partial.unlink()
            return
        for folder in (final.parent.parent, final.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        if self.earlier is not None:
            try:
                os.link(object_in(self.earlier, sha256), final)
            except OSError:  # not in it, or on another disk
                pass
            else:
                partial.unlink()
                self.linked += size
                return
        partial.rename(final)


class ZipWriter(FolderWriter):
    """Writes a backup into a zip. Each content is a file first, until its hash is known.

    Args:
        file: It is created.
        folder: A folder for these files, which is created too.
        progress: Called with the bytes that were read.
    """

    def __init__(self, file: Path, folder: Path, progress: Progress = no_progress) -> None:
        super().__init__(folder, None, progress)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "w+b")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        self._names: set[str] = set()

    def finish(self, manifest: Manifest) -> None:
        data = written(manifest)
        self._zip.writestr(zipfile.ZipInfo(MANIFEST), data)
        self._zip.writestr(zipfile.ZipInfo(CHECKSUM), checksum(data))
        self._zip.close()
        self._file.close()
        shutil.rmtree(self.folder)

    def _keep(self, partial: Path, sha256: str, size: int) -> None:
        name = _zipped(sha256)
        if name not in self._names:
            self._names.add(name)
            info = zipfile.ZipInfo(name)  # without a time: equal contents give equal entries
            info.file_size = size
            with self._zip.open(info, "w") as target, partial.open("rb") as source:
                shutil.copyfileobj(source, target, CHUNK)
        partial.unlink()


def check_target(target: Path, earlier: Path | None) -> None:
    """Check that a backup can be written to a path, and that `earlier` is one to build on.

    Raises:
        Conflict: The path is taken, or the two do not fit each other.
        NotFound, BackupDamaged: `earlier` is no backup.
    """
    _check_free(target)
    if earlier is None:
        return
    if target.suffix.lower() == ".zip" or not isinstance(opened(earlier), FolderBackup):
        raise Conflict(
            "--onto shares files between two backups in folders; a .zip stands alone. Name a "
            "folder for both, or leave --onto out."
        )
    opened(earlier).manifest()


@contextmanager
def writer(
    target: Path, earlier: Path | None = None, progress: Progress = no_progress
) -> Iterator[FolderWriter]:
    """A writer of the backup `target`, which appears when the block ends.

    If the block raises, or the process is killed, there is nothing at `target`.
    """
    _delete_abandoned_beside(target)
    with atomic_path(target) as partial:
        if target.suffix.lower() == ".zip":
            yield ZipWriter(partial, partial.with_name(OBJECTS), progress)
        else:
            yield FolderWriter(partial, earlier, progress)
        _check_free(target)  # another backup may have been written to it meanwhile


def written_in(writer: FolderWriter, target: Path) -> Backup:
    """The finished backup of a `writer` before it appears at `target`; what was written is on the
    disk when this returns."""
    os.sync()
    if isinstance(writer, ZipWriter):
        return ZipBackup(writer.folder.with_name(target.name))
    return FolderBackup(writer.folder)


def object_in(folder: Path, sha256: str) -> Path:
    """The path of a content in a backup's folder."""
    return folder / OBJECTS / sha256[:2] / sha256


def _zipped(sha256: str) -> str:
    """The name of a content in a backup's zip."""
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"


def _check_free(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise Conflict(f"{target} exists already. Name a new folder or file for the backup.")


def _delete_abandoned_beside(target: Path) -> None:
    """Delete what killed backups left beside `target`; those that still run are locked."""
    for folder in target.parent.glob(f"{PARTIAL}*/{LOCK}"):
        delete_if_abandoned(folder.parent)


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """A new file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file


def _regular(path: Path, name: str) -> IO[bytes]:
    """Open a regular file. Raises BackupDamaged: there is none, or a link, pipe or folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise missing(name) from None
    except OSError as error:
        raise BackupDamaged(f"{name} in the backup cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BackupDamaged(f"{name} in the backup is not a regular file. Use another backup.")
    if hasattr(os, "posix_fadvise"):  # what is on the disk counts, not what is still in memory
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.fdopen(descriptor, "rb")


def _bounded(file: IO[bytes], name: str) -> bytes:
    data = file.read(LARGEST_MANIFEST + 1)
    if len(data) > LARGEST_MANIFEST:
        raise BackupDamaged(f"{name} in the backup is larger than any that was written.")
    return data


@contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """A context that names the file in errors of a zip or a disk."""
    try:
        yield
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise BackupDamaged(
            f"{path} in the backup cannot be read: {error}. Use another backup."
        ) from error
