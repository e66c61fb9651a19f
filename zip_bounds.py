"""Opens zips from clients: bounded in entries and growth, without overlapping entries.

Nothing is unpacked here. The checks read the zip's directory alone, so they take a fraction of a
second and a few bytes for each entry.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

MOST_RATIO = 200  # maximum of unpacked / packed bytes; images and weights compress little
RATIO_FROM = 2**20  # unpacked bytes below which every ratio is allowed
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_ENTRY = 46  # bytes of an entry of the directory, without its name and extra fields
_LONGEST = 700  # maximum bytes of an entry on average, with its name
_LOCAL = 30  # bytes of the header before an entry's data, without its name


class ZipRefused(Exception):
    """A zip that is no ordinary archive; the message is a sentence for the client."""


def open_zip(file: Path | IO[bytes], most_entries: int) -> zipfile.ZipFile:
    """Open a zip whose directory has at most `most_entries` entries, none of which overlap.

    Raises:
        ZipRefused: It has more entries, or entries that share bytes.
        zipfile.BadZipFile, OSError, ValueError: It is not a zip, or its directory is damaged.
    """
    try:
        if isinstance(file, Path):
            with file.open("rb") as opened:
                _count(opened, most_entries)
        else:
            _count(file, most_entries)
            file.seek(0)
        archive = zipfile.ZipFile(file)
    except (NotImplementedError, struct.error, OverflowError, EOFError) as error:
        raise zipfile.BadZipFile(str(error)) from error  # a later version, or damaged fields
    try:
        _refuse_overlaps(archive)
    except BaseException:
        archive.close()
        raise
    return archive


def check_growth(entries: Sequence[zipfile.ZipInfo], most_ratio: int = MOST_RATIO) -> None:
    """Check how much larger the entries become by unpacking, each of them and all together.

    The sizes are those that the directory states: `zipfile` reads no byte more of an entry.

    Raises:
        ZipRefused: An entry, or all of them, unpack to more than `most_ratio` times their packed
            size; or they are packed by another method than deflate.
    """
    unpacked = packed = 0
    for info in entries:
        if info.compress_type not in METHODS:  # bz2 and LZMA unpack far more before they stop
            raise ZipRefused(
                "The zip uses a compression method that is not supported. Pack it with deflate."
            )
        if _bomb(info.file_size, info.compress_size, most_ratio):
            shown = info.filename[:80].encode("utf-8", "backslashreplace").decode()
            raise ZipRefused(
                f"The zip's entry '{shown}' unpacks to more than {most_ratio} times its packed "
                "size, as neither images nor weights do."
            )
        unpacked += info.file_size
        packed += info.compress_size
    if _bomb(unpacked, packed, most_ratio):
        raise ZipRefused(
            f"The zip unpacks to {unpacked / 2**20:,.0f} MiB, more than {most_ratio} times its "
            "packed size, as neither images nor weights do."
        )


def _bomb(unpacked: int, packed: int, most_ratio: int) -> bool:
    return unpacked > RATIO_FROM and unpacked > most_ratio * max(packed, 1)


def _count(file: IO[bytes], most: int) -> None:
    """Check the number of entries, before `zipfile` makes an object of each entry."""
    # A private function (Python 3.11 to 3.14), because it finds the same directory as zipfile.
    found = cast(Any, zipfile)._EndRecData(file)
    if not found:
        return  # zipfile refuses it
    size, location = found[5], found[9]
    if found[0] == b"PK\6\6":  # Zip64: two more records stand before this one
        location -= 76
    refusal = ZipRefused(f"The zip has more than {most:,} entries.")
    if size > _LONGEST * most + _LONGEST:
        raise refusal
    file.seek(max(location - size, 0))
    directory = file.read(size)
    at = count = 0
    while at + _ENTRY <= len(directory):
        name, extra, comment = struct.unpack_from("<HHH", directory, at + 28)
        at += _ENTRY + name + extra + comment
        count += 1
        if count > most:
            raise refusal


def _refuse_overlaps(archive: zipfile.ZipFile) -> None:
    """Refuse entries that share bytes: a zip bomb may have thousands of them (Fifield, 2019)."""
    end = cast(Any, archive).start_dir
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset, reverse=True):
        if info.header_offset + _LOCAL + info.compress_size > end:
            shown = info.filename[:80].encode("utf-8", "backslashreplace").decode()
            raise ZipRefused(f"The zip's entry '{shown}' shares bytes with another. Pack it again.")
        end = info.header_offset
