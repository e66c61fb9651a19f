"""Zips that are no ordinary archives are refused by their directory, before they are unpacked."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.zip_archive import unpack
from errors import DatasetInvalid, InvalidModelFile, PayloadTooLarge
from models_store.foreign.file_type import check_checkpoint
from tests.support.examples import EXAMPLES
from tests.support.seeds import rng
from zip_bounds import ZipRefused, check_growth, open_zip

MIB = 2**20
DEFLATE = zipfile.ZIP_DEFLATED


def zipped(files: dict[str, bytes], method: int = DEFLATE) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    buffer.seek(0)
    return buffer


def local(name: bytes, packed: bytes, size: int, crc: int) -> bytes:
    head = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, crc, len(packed), size, len(name), 0)
    return head + name


def directory(rows: list[tuple[bytes, int, int, int, int]]) -> bytes:
    """A zip's directory: name, CRC, packed size, size, offset of each entry."""
    return b"".join(
        struct.pack(
            "<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 8, 0, 0, crc, packed, size,
            len(name), 0, 0, 0, 0, 0, offset,
        ) + name
        for name, crc, packed, size, offset in rows
    )  # fmt: skip


def ended(data: bytes, central: bytes, count: int) -> io.BytesIO:
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(central), len(data), 0)
    return io.BytesIO(data + central + end)


def of_one_kernel(count: int, quoted: bool) -> io.BytesIO:
    """Entries that share their packed bytes: all of them one kernel, or each the ones after it."""
    kernel = rng(0).bytes(20_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(kernel) + packer.flush()
    names = [b"%d.txt" % number for number in range(count)]
    heads = [local(name, packed, len(kernel), zlib.crc32(kernel)) for name in names]
    data = b"".join(heads) + packed
    rows = []
    for number, name in enumerate(names):
        offset = sum(map(len, heads[:number])) if quoted else sum(map(len, heads[:-1]))
        length = len(data) - offset - len(heads[number]) if quoted else len(packed)
        rows.append((name, zlib.crc32(kernel), length, len(kernel), offset))
    return ended(data, directory(rows), count)


@pytest.mark.parametrize("quoted", [False, True])
def test_entries_that_share_bytes_are_refused(tmp_path: Path, quoted: bool) -> None:
    with pytest.raises(DatasetInvalid, match="shares bytes with another"):
        unpack(of_one_kernel(50, quoted), tmp_path, MIB)
    assert list(tmp_path.iterdir()) == []
    unpack(of_one_kernel(1, quoted), tmp_path, MIB)


def test_many_entries_that_are_each_small_are_a_bomb_together(tmp_path: Path) -> None:
    source = zipped({f"{number}.txt": bytes(MIB - 1) for number in range(30)})
    with pytest.raises(DatasetInvalid, match="unpacks to 30 MiB, more than 200 times"):
        unpack(source, tmp_path, 2**30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(DatasetInvalid, match="Pack it with deflate"):
        unpack(zipped({"a.txt": bytes(1000)}, method), tmp_path, MIB)


def test_entries_are_counted_before_zipfile_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "many.zip"
    row = directory([(b"a.txt", 0, 0, 0, 0)])
    for stated in (2000, 1):  # the number at the end may be a lie
        file.write_bytes(ended(b"", row * 2000, stated).getvalue())
        with pytest.raises(ZipRefused, match="more than 1,000 entries"):
            open_zip(file, 1000)
        with file.open("rb") as opened, pytest.raises(ZipRefused, match="more than 1,000 entries"):
            open_zip(opened, 1000)
    with pytest.raises(ZipRefused, match="more than 1 entries"):
        open_zip(ended(b"", row * 2000, 2000), 1)


def test_zip64_is_counted_too() -> None:
    buffer = zipped({f"{number}.txt": b"x" for number in range(20)})
    data = bytearray(buffer.getvalue())
    end = len(data) - 22
    (_, _, _, _, count, size, offset, _) = struct.unpack("<4s4H2LH", data[end:])
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    short = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    packed = io.BytesIO(bytes(data[:end]) + large + locator + short)
    with open_zip(packed, 20) as archive:
        assert len(archive.namelist()) == 20
    with pytest.raises(ZipRefused, match="more than 19 entries"):
        open_zip(packed, 19)


def test_a_stated_size_that_is_a_lie_unpacks_no_more_than_it_says(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.txt": bytes(3 * MIB)}).getvalue())
    at = data.index(b"PK\1\2")
    struct.pack_into("<L", data, at + 24, 100)  # in the directory
    with pytest.raises(DatasetInvalid, match="damaged"):
        unpack(io.BytesIO(bytes(data)), tmp_path, 2**30)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) <= 4096


@pytest.mark.parametrize("system", [0, 3, 19])
@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused_by_whatever_system_they_were_packed(
    tmp_path: Path, system: int, kind: int
) -> None:
    info = zipfile.ZipInfo("images/train")
    info.create_system, info.external_attr = system, (kind | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc")
        archive.writestr("images/train/a.txt", "x")
    with pytest.raises(DatasetInvalid, match="link or device"):
        unpack(buffer, tmp_path, MIB)
    assert list(tmp_path.iterdir()) == []


def test_growth_of_little_data_is_free() -> None:
    with open_zip(zipped({"a.txt": bytes(MIB)}), 10) as archive:
        check_growth(archive.infolist())


def test_a_checkpoint_is_held_to_the_same_bounds(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(of_one_kernel(50, True).getvalue())
    with pytest.raises(InvalidModelFile, match="shares bytes with another"):
        check_checkpoint(file)


@pytest.mark.properties
@given(
    st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=8),
    st.integers(0, 400),
)
@settings(max_examples=EXAMPLES)
def test_any_change_of_a_zip_is_unpacked_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(zipped({"a/a.txt": b"0 1 1 1 1\n" * 9, "b.jpg": b"x" * 50}).getvalue())
    for at, value in changes:
        data[at % len(data)] = value
    folder = tmp_path_factory.mktemp("zip")
    with contextlib.suppress(DatasetInvalid, PayloadTooLarge):
        unpack(io.BytesIO(bytes(data[: max(cut, 40)])), folder, MIB)
