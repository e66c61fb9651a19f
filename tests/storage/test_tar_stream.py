"""Trees as tar streams: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from errors import StoreDamaged, ValidationFailed
from storage.tar_stream import CHECKSUM, pack, unpack
from tests.storage.conftest import content


def packed(folder: Path) -> bytes:
    stream = io.BytesIO()
    pack(folder, stream)
    return stream.getvalue()


def test_a_tree_is_the_same_afterwards(folder: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    digest = pack(folder, stream)
    stream.seek(0)
    copy = tmp_path / "copy"
    copy.mkdir()
    assert unpack(stream, copy) == digest
    assert content(copy) == content(folder)
    times = [(root / "model.json").stat().st_mtime for root in (folder, copy)]
    assert times[0] == pytest.approx(times[1], abs=1e-5)


def test_the_stream_is_an_ordinary_tar_file(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as archive:
        assert set(archive.getnames()) == set(content(folder)) | {CHECKSUM}
        archive.extractall(tmp_path / "copy", filter="data")
    assert {**content(tmp_path / "copy"), CHECKSUM: b""} == {**content(folder), CHECKSUM: b""}


def test_equal_trees_have_equal_digests(folder: Path) -> None:
    first = pack(folder, io.BytesIO())
    assert pack(folder, io.BytesIO()) == first
    os.utime(folder / "model.json", (1, 1))
    assert pack(folder, io.BytesIO()) != first


def test_chosen_files_only(folder: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    pack(folder, stream, ["images/block.bin", "model.json"])
    stream.seek(0)
    copy = tmp_path / "copy"
    copy.mkdir()
    unpack(stream, copy)
    assert {name for name, data in content(copy).items() if data is not None} == {
        "images/block.bin",
        "model.json",
    }


def test_temporary_folders_are_left_out(folder: Path) -> None:
    (folder / "images" / ".partial-x").mkdir()
    (folder / "images" / ".partial-x" / "half").touch()
    assert b".partial-x" not in packed(folder)


@pytest.mark.parametrize("kind", ["link", "pipe", "checksum", "no UTF-8"])
def test_what_cannot_be_stored_is_refused(folder: Path, kind: str) -> None:
    if kind == "link":
        (folder / "a-link").symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(folder / "a-pipe")
    elif kind == "checksum":
        (folder / CHECKSUM).touch()
    else:
        os.close(os.open(os.fsencode(folder) + b"/\xff", os.O_CREAT))
    with pytest.raises(ValidationFailed):
        packed(folder)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.9999])
def test_a_stream_that_was_cut_off_is_refused(folder: Path, tmp_path: Path, share: float) -> None:
    data = packed(folder)
    cut = data[: max(0, int((len(data) - 2048) * share))]
    with pytest.raises(StoreDamaged, match="too early"):
        unpack(io.BytesIO(cut), _new(tmp_path))


@pytest.mark.parametrize("place", [3, 600, 2_000, 5_000_000, -1500])
def test_a_changed_byte_is_found(folder: Path, tmp_path: Path, place: int) -> None:
    data = bytearray(packed(folder))
    data[place] ^= 1
    with pytest.raises(StoreDamaged):
        unpack(io.BytesIO(bytes(data)), _new(tmp_path))


def hostile(kind: str) -> bytes:
    """A tar file that `pack` would not write, made by Python's tarfile."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        good = tarfile.TarInfo("good")
        good.size = 4
        archive.addfile(good, io.BytesIO(b"good"))
        bad = tarfile.TarInfo("bad")
        if kind in ("absolute", "above", "inside and above", "empty"):
            bad.name = {
                "absolute": "/tmp/visionloop-bad",
                "above": "../bad",
                "inside and above": "a/../../bad",
                "empty": ".",
            }[kind]
            archive.addfile(bad)
        elif kind in ("symbolic link", "hard link"):
            bad.type = tarfile.SYMTYPE if kind == "symbolic link" else tarfile.LNKTYPE
            bad.linkname = "../../outside"
            archive.addfile(bad)
        elif kind == "device":
            bad.type = tarfile.CHRTYPE
            archive.addfile(bad)
        elif kind == "sparse":
            bad.type = tarfile.GNUTYPE_SPARSE
            archive.addfile(bad)
        elif kind == "twice":
            bad.name = "good"
            archive.addfile(bad)
        elif kind == "a file is a folder":
            bad.name = "good/inside"
            archive.addfile(bad)
        elif kind == "a folder is a file":
            bad.name, bad.type = "good", tarfile.DIRTYPE
            archive.addfile(bad)
        else:
            bad.pax_headers = {kind: "4"}
            archive.addfile(bad)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind",
    ["absolute", "above", "inside and above", "empty", "symbolic link", "hard link", "device",
     "sparse", "twice", "a file is a folder", "a folder is a file", "GNU.sparse.size", "linkpath",
     "hdrcharset"],
)  # fmt: skip
def test_what_pack_does_not_write_is_not_unpacked(tmp_path: Path, kind: str) -> None:
    place = _new(tmp_path)
    with pytest.raises(StoreDamaged) as caught:
        unpack(io.BytesIO(hostile(kind)), place)
    assert "too early" not in caught.value.message
    assert set(content(tmp_path)) <= {"copy", "copy/good"}


@pytest.mark.parametrize("data", [b"no tar file " * 100, bytes(10_240), b"\xff" * 1024])
def test_no_tar_file_at_all(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(StoreDamaged):
        unpack(io.BytesIO(data), _new(tmp_path))


def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "tree" / "log"
    file.parent.mkdir()
    file.write_bytes(bytes(3 * 2**20))

    class Truncating(io.BytesIO):
        def write(self, data: object, /) -> int:
            os.truncate(file, 0)
            return super().write(data)  # type: ignore[arg-type]

    with pytest.raises(OSError, match="shorter"):
        pack(file.parent, Truncating())


def _new(tmp_path: Path) -> Path:
    place = tmp_path / "copy"
    place.mkdir()
    return place
