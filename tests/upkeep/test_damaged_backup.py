"""Backups that are damaged, hostile or newer are refused before anything is in place."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from errors import InsufficientStorage, ValidationFailed, VisionLoopError
from files import sha256_of
from tests.support.furnished_home import Furnished
from tests.support.restoring import nothing_in, restore_into
from tests.support.seeds import rng
from upkeep.manifest import CHECKSUM, MANIFEST, BackupDamaged, checksum, is_harmless
from upkeep.storage import OBJECTS, FolderBackup, object_in, opened, verify


def test_a_flipped_byte_anywhere_is_found_and_named(folder: Path, tmp_path: Path) -> None:
    manifest = opened(folder).manifest()
    entries = [entry for entry in reversed(manifest.entries) if entry.sha256 and entry.size]
    names = {str(entry.sha256): entry.path for entry in entries}
    random = rng()
    for sha256 in sorted(names)[:: max(1, len(names) // 8)]:
        path = object_in(folder, sha256)
        data = bytearray(path.read_bytes())
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        whole = path.read_bytes()
        path.write_bytes(data)
        with pytest.raises(BackupDamaged) as refused:
            verify(opened(folder))
        assert names[sha256] in str(refused.value)
        with pytest.raises(BackupDamaged) as refused:
            restore_into(folder, tmp_path / "there")
        assert names[sha256] in str(refused.value)
        assert nothing_in(tmp_path / "there")
        path.write_bytes(whole)
    verify(opened(folder))


def test_a_flipped_byte_of_the_manifest_is_found(folder: Path) -> None:
    data = (folder / MANIFEST).read_bytes()
    place = int(rng().integers(len(data)))
    (folder / MANIFEST).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(BackupDamaged, match=rf"^{MANIFEST} does not have the hash in {CHECKSUM}"):
        opened(folder).manifest()


def test_a_truncated_file_and_a_missing_one_are_named(folder: Path) -> None:
    entry = max(opened(folder).manifest().entries, key=lambda entry: entry.size)
    assert entry.sha256 is not None
    path = object_in(folder, entry.sha256)
    os.truncate(path, entry.size // 2)
    with pytest.raises(BackupDamaged, match=f"^{entry.path} in the backup is damaged"):
        verify(opened(folder))
    path.unlink()
    with pytest.raises(BackupDamaged, match=f"lacks the file {entry.path}"):
        verify(opened(folder))


def test_a_damaged_zip_is_refused(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    random = rng()
    for _ in range(20):
        data = bytearray(whole)
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        packed.write_bytes(data)
        try:
            verify(opened(packed))
        except BackupDamaged:
            continue
        # A byte that nobody reads, such as the time of an entry
        assert contents(packed) == contents_of(whole, tmp_path)
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackupDamaged, match=r"saved\.zip is not a complete backup"):
        opened(packed)


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def contents_of(data: bytes, folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def rewritten(folder: Path, change: Any) -> None:
    """Change the lines of a manifest, and its hash with it."""
    lines = [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]
    lines = change(lines)
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / CHECKSUM).write_bytes(checksum(data))


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd", "/etc/passwd", "home/../../x", "home/datasets/../../x", "home//x/y",
        "home/visionloop.db", "home/.visionloop-server.lock", "home/run/x", "home/datasets",
        "models/x", "models/../x/y", "models/./x/y", "database/x", "other/x/y", "",
        "home/datasets/a\0b", "home\\..\\x\\y", "home/datasets/" + "x" * 4000, "home/kept",
    ],
)  # fmt: skip
def test_a_hostile_path_is_refused(folder: Path, tmp_path: Path, path: str) -> None:
    assert not is_harmless(path)
    rewritten(folder, lambda lines: [*lines, [path, lines[1][1], lines[1][2], 0, 0]])
    with pytest.raises(BackupDamaged, match="has the path"):
        restore_into(folder, tmp_path / "there")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    "line", [["home/jobs/a", "xyz", 1, 0, 0], ["home/jobs/a", "../x", 1, 0, 0], [7, None, 0, 0, 0],
             ["home/jobs/a", None, -1, 0, 0], ["home/jobs/a"], {"a": 1}, [[[]]], "x",
             ["home/jobs/a", None, True, 0, 0], ["home/jobs/a", None, 0, 2**70, 0]],
)  # fmt: skip
def test_a_line_that_is_no_file_is_refused(folder: Path, line: Any) -> None:
    rewritten(folder, lambda lines: [*lines, line])
    with pytest.raises(BackupDamaged):
        opened(folder).manifest()


def test_a_path_that_stands_twice_or_in_a_file_is_refused(folder: Path) -> None:
    whole = (folder / MANIFEST).read_bytes(), (folder / CHECKSUM).read_bytes()
    rewritten(folder, lambda lines: [*lines, lines[-1]])
    with pytest.raises(BackupDamaged, match="names a file twice"):
        opened(folder).manifest()
    (folder / MANIFEST).write_bytes(whole[0])
    rewritten(folder, lambda lines: [*lines, [f"{lines[-1][0]}/x", *lines[-1][1:]]])
    with pytest.raises(BackupDamaged, match="as a file and as a folder"):
        opened(folder).manifest()


def test_a_link_in_place_of_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    entry = opened(folder).manifest().entries[-1]
    assert entry.sha256 is not None
    path = object_in(folder, entry.sha256)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupDamaged, match="cannot be read: "):
        verify(opened(folder))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BackupDamaged, match="is not a regular file"):
        verify(opened(folder))


def test_a_zip_that_grows_is_refused(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{OBJECTS}/aa/{'a' * 64}", b"\0" * 2**26)
    with pytest.raises(BackupDamaged, match="unpacks to more than"):
        opened(packed)


def test_something_else_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BackupDamaged, match=f"it has no {CHECKSUM}"):
        opened(tmp_path / "folder")
    (tmp_path / "file").write_text("hello")
    with pytest.raises(BackupDamaged, match="file is not a complete backup"):
        opened(tmp_path / "file")


def test_a_backup_of_a_newer_version_is_refused(folder: Path, tmp_path: Path) -> None:
    rewritten(folder, lambda lines: [lines[0] | {"schema": "9999"}, *lines[1:]])
    with pytest.raises(ValidationFailed, match="whose database has schema revision 9999"):
        restore_into(folder, tmp_path / "there")
    rewritten(folder, lambda lines: [lines[0] | {"format": 2}, *lines[1:]])
    with pytest.raises(BackupDamaged, match="has the format 2"):
        restore_into(folder, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_database_with_code_of_its_own_is_refused(
    source: Furnished, folder: Path, tmp_path: Path
) -> None:
    entry = opened(folder).manifest().entries[0]
    assert entry.path == "database"
    assert entry.sha256 is not None
    copy = tmp_path / "changed.db"
    copy.write_bytes(object_in(folder, entry.sha256).read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("CREATE TRIGGER t AFTER UPDATE ON jobs BEGIN DELETE FROM models; END")
        connection.commit()
    sha256 = sha256_of(copy)
    object_in(folder, sha256).parent.mkdir(exist_ok=True)
    copy.rename(object_in(folder, sha256))
    size = object_in(folder, sha256).stat().st_size
    rewritten(folder, lambda lines: [lines[0], ["database", sha256, size, 0, 0], *lines[2:]])
    with pytest.raises(BackupDamaged, match="has a trigger or view"):
        restore_into(folder, tmp_path / "there")
    assert nothing_in(tmp_path / "there")


def test_too_little_room_is_said_before(folder: Path, tmp_path: Path) -> None:
    rewritten(folder, lambda lines: [*lines, ["home/jobs/x/huge", lines[-1][1], 2**50, 0, 0]])
    with pytest.raises(InsufficientStorage, match="The backup needs 1,073,741,8"):
        restore_into(folder, tmp_path / "there")


def test_every_refusal_is_an_error_of_ours(folder: Path) -> None:
    assert issubclass(BackupDamaged, VisionLoopError)
    assert isinstance(opened(folder), FolderBackup)
