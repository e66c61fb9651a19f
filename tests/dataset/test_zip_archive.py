from __future__ import annotations

import contextlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import zip_archive
from dataset.zip_archive import safe_name, unpack
from dataset.zip_names import names_of
from errors import DatasetInvalid, InsufficientStorage, PayloadTooLarge
from tests.support.seeds import rng

LIMIT = 2**20


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
    buffer.seek(0)
    return buffer


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.orig_filename = info.filename = name  # as an attacker's packer writes it
    info.external_attr = mode << 16
    return info


def test_data_comes_out_and_everything_else_stays(tmp_path: Path) -> None:
    source = zipped(
        ("signs/data.yaml", b"names: [a]"),
        ("signs/images/train/a.JPG", b"jpeg"),
        ("signs/labels/train/a.txt", b""),
        ("__MACOSX/signs/._a.JPG", b"mac"),
        ("signs/.DS_Store", b"mac"),
        ("signs/labels/train.cache", b"pickle"),
        ("signs/run.py", b"print()"),
        ("signs/.git/x.txt", b"x"),
    )
    unpacked = unpack(source, tmp_path, LIMIT)
    assert unpacked.root == tmp_path / "signs"
    assert (unpacked.files, unpacked.size, unpacked.skipped) == (3, 14, 5)
    assert files(tmp_path / "signs") == ["data.yaml", "images/train/a.JPG", "labels/train/a.txt"]


def test_windows_paths_and_foreign_names_become_folders(tmp_path: Path) -> None:
    source = zipped(
        (entry("train\\stop\\a.jpg"), b"1"),
        (entry("train\\go\\"), b""),
        (entry("./train//überhol/ж.jpg"), b"2"),
    )
    unpack(source, tmp_path, LIMIT)
    assert files(tmp_path) == ["train/stop/a.jpg", "train/überhol/ж.jpg"]


@pytest.mark.parametrize(
    "name",
    [
        "../a.jpg",
        "a/../../b.jpg",
        "/etc/a.jpg",
        "..\\a.jpg",
        "C:\\a.jpg",
        "c:a.jpg",
        "\\\\host\\share\\a.jpg",
        "a/..",
    ],
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(DatasetInvalid, match=r"has a path outside the zip.s folder"):
        unpack(zipped(("ok.jpg", b""), (entry(name), b"x")), folder, LIMIT)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (io.BytesIO(b""), "not a zip"),
        (io.BytesIO(b"PK\3\4 but no more"), "not a zip"),
        (zipped((entry("a.jpg", stat.S_IFLNK | 0o777), b"/etc/passwd")), "link or device"),
        (zipped((entry("a.jpg", stat.S_IFIFO | 0o777), b"")), "link or device"),
        (zipped(("a.txt", b"0" * 3 * 2**20)), "more than 200 times"),
        (zipped(("a.jpg", b"1"), ("b/../a.txt", b"")), "outside the zip's folder"),
        (zipped(("./a.jpg", b"1"), ("a.jpg", b"2")), "contains 'a.jpg' twice"),
        (zipped(("a.txt", b"1"), ("a.txt/b.txt", b"2")), "both a file and a folder"),
        (zipped(("a.py", b"1"), ("b.sh", b"2")), "neither images nor labels"),
        (zipped((f"{'x/' * 30}a.jpg", b"1")), "a name that is too long"),
        (zipped((f"{'x' * 220}.jpg", b"1")), "a name that is too long"),
        (zipped(("a\x01.jpg", b"1")), "control characters"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, source: io.BytesIO, said: str) -> None:
    with pytest.raises(DatasetInvalid, match=said):
        unpack(source, tmp_path, LIMIT)


def test_a_damaged_or_encrypted_entry_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(("a.jpg", bytes(range(256)) * 8)).getvalue())
    damaged = bytes(data[:60] + bytes([data[60] ^ 255]) + data[61:])
    with pytest.raises(DatasetInvalid, match="damaged"):
        unpack(io.BytesIO(damaged), tmp_path, LIMIT)
    at = data.index(b"PK\1\2")
    struct.pack_into("<H", data, at + 8, 1)  # general purpose flags of the directory's entry
    with pytest.raises(DatasetInvalid, match="encrypted"):
        unpack(io.BytesIO(bytes(data)), tmp_path, LIMIT)


def test_a_bomb_is_refused_by_what_it_says_and_by_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = rng(0).bytes(768_000)
    source = zipped(*((f"{i}.jpg", noise) for i in range(20)))
    with pytest.raises(PayloadTooLarge, match="VISIONLOOP_MAX_UPLOAD_MB"):
        unpack(source, tmp_path, LIMIT)
    monkeypatch.setattr(zip_archive, "_check_size", lambda *_: None)  # as if the sizes were lies
    with pytest.raises(PayloadTooLarge, match="more than its declared size"):
        unpack(source, tmp_path, LIMIT)
    monkeypatch.setattr(zip_archive, "MOST_ENTRIES", 3)
    with pytest.raises(DatasetInvalid, match="more than 3 entries"):
        unpack(source, tmp_path, LIMIT)


def test_a_full_disk_is_seen_before(tmp_path: Path) -> None:
    with pytest.raises(InsufficientStorage, match="disk has"):
        unpack(zipped(("a.jpg", b"1")), tmp_path, LIMIT, reserve=2**60)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_meanwhile_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_archive, "_check_size", lambda *_: None)
    monkeypatch.setattr(zip_archive, "ROOM_STEP", 0)
    with pytest.raises(InsufficientStorage, match="disk has"):
        unpack(zipped(("a.jpg", b"1")), tmp_path, LIMIT, reserve=2**60)


names = st.text(st.sampled_from("ab./\\:.. \0\n￼\ud800üC"), max_size=24) | st.text(max_size=24)


@given(names, st.booleans())
def test_a_name_is_refused_or_stays_below_its_folder(name: str, utf8: bool) -> None:
    info = zipfile.ZipInfo("x")
    info.orig_filename = name
    info.flag_bits = 0x800 if utf8 else 0
    try:
        parts = safe_name(names_of([info]).names[0])
    except DatasetInvalid as error:
        error.message.encode()  # can be sent
        return
    folder = Path("/srv/data")
    target = folder.joinpath(*parts)
    assert target.is_relative_to(folder)
    assert ".." not in target.parts
    assert "\0" not in str(target)


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(0, 200))
def test_mangled_zips_are_refused_with_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    data = zipped(("a/a.txt", b"0 1 1 1 1"), ("b.jpg", b"x" * 50)).getvalue()
    folder = tmp_path_factory.mktemp("zip")
    with contextlib.suppress(DatasetInvalid, PayloadTooLarge):
        unpack(io.BytesIO(data[:at] + noise + data[at + len(noise) :]), folder, LIMIT)
    for path in folder.rglob("*"):
        assert path.is_relative_to(folder)


def test_what_might_have_been_data_is_named_and_other_rests_are_counted(tmp_path: Path) -> None:
    source = zipped(
        ("images/train/a.jpg", b"1"),
        ("images/train/b.HEIC", b"2"),
        ("inner.zip", b"3"),
        ("clip.mp4", b"4"),
        ("__MACOSX/images/._b.HEIC", b"5"),
        ("Thumbs.db", b"6"),
        ("labels/train.cache", b"7"),
        ("wandb/run-1/files/model.pt", b"8"),
        ("empty/", b""),
    )
    unpacked = unpack(source, tmp_path, LIMIT)
    assert unpacked.skipped == 7
    (finding,) = unpacked.findings
    assert finding.kind == "not_unpacked"
    assert set(finding.examples) == {"images/train/b.HEIC", "inner.zip", "clip.mp4"}
    assert not (tmp_path / "empty").exists()


def test_a_zip_of_a_zip_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"neither images nor labels.*inner\.zip"):
        unpack(zipped(("inner.zip", b"PK")), tmp_path, LIMIT)
