"""A tree as one stream of bytes: an uncompressed tar file whose last entry is a checksum.

The checksum makes the object verify itself: one that was cut off, or changed, is never unpacked to
its end. What is read may come from anywhere, so unpacking creates regular files and folders only.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from errors import StoreDamaged, ValidationFailed
from files import PARTIAL

CHECKSUM = ".visionloop-sha256"  # name of the last entry: SHA-256 of all bytes before it
BLOCK = 2**20  # bytes
LAST_TIME = 2.0**40  # seconds since 1970


class Sink(Protocol):
    """What a tar file is written to."""

    def write(self, data: bytes, /) -> int: ...


class Source(Protocol):
    """What a tar file is read from; `read` returns fewer bytes than asked for at the end only."""

    def read(self, size: int, /) -> bytes: ...


class _Hashing(io.RawIOBase):
    """Passes bytes on, and computes their SHA-256."""

    def __init__(self, sink: Sink | None = None, source: Source | None = None) -> None:
        self._sink, self._source = sink, source
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        assert self._sink is not None
        self._hash.update(data)
        self._sink.write(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        assert self._source is not None
        data = self._source.read(size)
        self._hash.update(data)
        return data

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def pack(folder: Path, sink: Sink, files: Iterable[str] | None = None) -> str:
    """Write a folder as a tar stream; memory does not depend on its size.

    Args:
        folder: As in `TreeStore.put`.
        sink: Receives blocks of about a MiB.
        files: As in `TreeStore.put`.

    Returns:
        SHA-256 of the stream before its checksum, hexadecimal.

    Raises:
        ValidationFailed: An entry is neither a regular file nor a folder.
        OSError: A file cannot be read, or has become shorter.
    """
    hashing = _Hashing(sink)
    for path in sorted(_entries(folder) if files is None else {folder / name for name in files}):
        name = _storable(path.relative_to(folder).as_posix())
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            hashing.write(_header(name, found.st_mtime, None))
        elif stat.S_ISREG(found.st_mode):
            _pack_file(path, name, hashing)
        else:
            raise ValidationFailed(f"{name} in {folder.name} is not a regular file.")
    digest = hashing.hexdigest()
    sink.write(_header(CHECKSUM, 0, len(digest)) + _padded(digest.encode()) + bytes(1024))
    return digest


def unpack(source: Source, folder: Path) -> str:
    """Write the files of a tar stream into an empty folder, and check them.

    Returns:
        SHA-256 as `pack` returned it.

    Raises:
        StoreDamaged: The stream is not complete, was changed, or has an entry that `pack` does not
            make: a link, a device, an absolute name, a name with `..`, a second file of a name.
        OSError: A file cannot be written.
    """
    hashing = _Hashing(source=source)
    while True:
        before = hashing.hexdigest()
        member = _next_member(hashing)
        if member.name == CHECKSUM:
            told = _exactly(hashing, member.size)
            if told.decode("ascii", "replace") != before:
                raise StoreDamaged("The checksum is another one.")
            return before
        target = folder.joinpath(*_safe(member.name).parts)
        try:
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                _unpack_file(hashing, member.size, target)
                os.utime(target, (member.mtime, member.mtime))
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise StoreDamaged(f"{member.name[:100]!r} is in it twice.") from None


def _storable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValidationFailed(f"{name!r} is not a name in UTF-8.") from None
    if name == CHECKSUM:
        raise ValidationFailed(f"A tree cannot have a file {CHECKSUM}.")
    return name


def _entries(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if not path.name.startswith(PARTIAL):
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from _entries(path)


def _pack_file(path: Path, name: str, sink: Sink) -> None:
    # O_NOFOLLOW: the entry may have become a link meanwhile.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        left = found.st_size
        sink.write(_header(name, found.st_mtime, left))
        while left:
            data = file.read(min(BLOCK, left))
            if not data:
                raise OSError(f"{path} has become shorter while it was read.")
            sink.write(data)
            left -= len(data)
    sink.write(bytes(-found.st_size % tarfile.BLOCKSIZE))


def _header(name: str, mtime: float, size: int | None) -> bytes:
    """The header of a file, or of a folder if it has no size."""
    info = tarfile.TarInfo(name)
    info.mtime = mtime
    if size is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _next_member(source: _Hashing) -> tarfile.TarInfo:
    """The next entry, its content unread.

    Only what `pack` writes is understood: a header, with an extended one before it for long names,
    large files and fractions of seconds.
    """
    extended: dict[str, str] = {}
    try:
        member = tarfile.TarInfo.frombuf(_exactly(source, tarfile.BLOCKSIZE), "utf-8", "strict")
        if member.type == tarfile.XHDTYPE:
            if member.size > BLOCK:
                raise StoreDamaged("An extended header is too long.")
            extended = dict(_records(_exactly(source, member.size)))
            member = tarfile.TarInfo.frombuf(_exactly(source, tarfile.BLOCKSIZE), "utf-8", "strict")
        member.name = extended.pop("path", member.name)
        member.size = int(extended.pop("size", member.size))
        member.mtime = float(extended.pop("mtime", member.mtime))
    except (tarfile.HeaderError, ValueError) as error:
        raise StoreDamaged(f"A header is damaged: {error}.") from None
    if not 0 <= member.mtime < LAST_TIME:
        raise StoreDamaged("A time is out of range.")
    if extended or member.type not in (tarfile.REGTYPE, tarfile.DIRTYPE) or member.size < 0:
        raise StoreDamaged(f"{member.name[:100]!r} is neither a file nor a folder.")
    return member


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """The records of an extended header: `LENGTH KEY=VALUE`, LENGTH counting itself."""
    while data:
        length = int(data.partition(b" ")[0])
        record, data = data[:length], data[length:]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if not record.endswith(b"\n") or not equals or length < len(b"5 a=\n"):
            raise ValueError("a record")
        yield key.decode(), value[:-1].decode()


def _exactly(source: _Hashing, size: int) -> bytes:
    """`size` bytes and what fills their last block up."""
    data = source.read(size + -size % tarfile.BLOCKSIZE)
    if len(data) < size + -size % tarfile.BLOCKSIZE:
        raise StoreDamaged("It ends too early.")
    return data[:size]


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise StoreDamaged(f"{name[:100]!r} is not a name inside the tree.")
    return path


def _unpack_file(source: _Hashing, size: int, target: Path) -> None:
    with target.open("xb") as file:
        left = size
        while left:
            data = source.read(min(BLOCK, left))
            if not data:
                raise StoreDamaged("It ends too early.")
            file.write(data)
            left -= len(data)
    source.read(-size % tarfile.BLOCKSIZE)
