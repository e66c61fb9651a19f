"""The backups in a folder are listed, with whatever is left of damaged ones."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from errors import NotFound
from home_paths import IDENTITY
from settings import get_settings
from source_tree import VERSION
from tests.support.clock import next_instant
from tests.support.furnished_home import Furnished, furnished
from upkeep.__main__ import main
from upkeep.backup import backup
from upkeep.listing import Listed, backups_in, table
from upkeep.manifest import CHECKSUM, MANIFEST, checksum, written
from upkeep.storage import OBJECTS, object_in, opened


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Furnished]:
    made = furnished(tmp_path / "server")
    made.publish()
    yield made
    made.database.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


def save(home: Furnished, target: Path) -> None:
    next_instant()
    backup(home.settings, target, store=home.models)


def listed(home: Furnished, place: Path) -> dict[str, Listed]:
    found, notes = backups_in(place, home.settings.home)
    assert notes == []
    return {one.path.name: one for one in found}


def test_folders_and_zips_are_listed_the_newest_first(home: Furnished, place: Path) -> None:
    save(home, place / "z")
    save(home, place / "a.zip")
    home.publish("other")
    save(home, place / "m")
    found = listed(home, place)
    assert list(found) == ["m", "a.zip", "z"]
    for name, models in (("z", 1), ("a.zip", 1), ("m", 2)):
        one = found[name]
        assert (one.fault, one.of_this_home) == (None, True)
        assert one.header == opened(place / name).manifest().header
        assert one.header.counts["models"] == models
    first, *lines = table(list(found.values())).splitlines()
    assert first.split() == ["PATH", "TIME", "VERSION", "HOLDS", "SIZE", "THIS", "HOME", "STATE"]
    assert lines[0].startswith(str(place / "m"))
    assert f"UTC  {VERSION}  " in lines[0]
    assert "  2 models, 0 datasets, " in lines[0]
    assert lines[0].endswith("yes        complete")


def test_what_is_no_backup_is_not_listed(home: Furnished, place: Path, tmp_path: Path) -> None:
    (place / "notes.txt").write_text("mine")
    (place / "photos" / OBJECTS).mkdir(parents=True)
    with zipfile.ZipFile(place / "photos.zip", "w") as file:
        file.writestr("one.jpg", b"1")
    os.mkfifo(place / "pipe.zip")
    save(home, tmp_path / "elsewhere")
    (place / "link").symlink_to(tmp_path / "elsewhere")
    assert listed(home, place) == {}
    with pytest.raises(NotFound, match="There is no folder"):
        backups_in(place / "nowhere", home.settings.home)


def test_damaged_and_unfinished_backups_are_listed_with_the_reason(
    home: Furnished, place: Path
) -> None:
    for name in ("missing", "truncated", "unfinished", "changed", "cut.zip", "whole"):
        save(home, place / name)
    manifest = opened(place / "missing").manifest()
    largest = max(manifest.entries, key=lambda entry: entry.size)
    assert largest.sha256 is not None
    object_in(place / "missing", largest.sha256).unlink()
    os.truncate(object_in(place / "truncated", largest.sha256), 1)
    (place / "unfinished" / CHECKSUM).unlink()
    (place / "changed" / MANIFEST).write_text("{}")
    os.truncate(place / "cut.zip", 1000)
    found = listed(home, place)
    faults = {name: one.fault or "" for name, one in found.items()}
    assert faults.pop("whole") == ""
    assert faults.pop("missing") == f"it lacks the file {largest.path}"
    assert faults.pop("truncated") == f"{largest.path} has 1 bytes instead of {largest.size:,}"
    assert faults.pop("unfinished").startswith(f"The backup lacks the file {CHECKSUM}.")
    assert faults.pop("changed").startswith(f"{MANIFEST} does not have the hash")
    assert faults.pop("cut.zip").startswith("cut.zip is not a complete backup")
    assert not faults
    assert found["missing"].header is not None
    assert found["missing"].of_this_home
    assert found["cut.zip"].header is None
    assert found["cut.zip"].of_this_home is None
    shown = table(list(found.values()))
    assert all(str(one.fault or "complete") in shown for one in found.values())


def test_whose_home_a_backup_is_of(home: Furnished, place: Path, tmp_path: Path) -> None:
    save(home, place / "mine")
    other = furnished(tmp_path / "other")
    save(other, place / "of-another")
    other.database.close()
    save(home, place / "old")
    manifest = opened(place / "old").manifest()
    data = written(replace(manifest, header=replace(manifest.header, home_id=None)))
    (place / "old" / MANIFEST).write_bytes(data)
    (place / "old" / CHECKSUM).write_bytes(checksum(data))
    mine = {name: one.of_this_home for name, one in listed(home, place).items()}
    assert mine == {"mine": True, "of-another": False, "old": None}
    nobody = backups_in(place, tmp_path / "nowhere")[0]
    assert {one.path.name: one.of_this_home for one in nobody} == {
        "mine": False, "of-another": False, "old": None,
    }  # fmt: skip
    assert not (tmp_path / "nowhere").exists()
    (home.settings.home / IDENTITY).unlink()
    (home.settings.home / IDENTITY).mkdir()
    assert {one.of_this_home for one in listed(home, place).values()} == {None}


def test_a_folder_that_cannot_be_read_is_said(
    home: Furnished, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(home, place / "mine")
    (place / "lost+found").mkdir()
    iterate = Path.iterdir

    def refuse(folder: Path) -> Iterator[Path]:
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return iterate(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    found, notes = backups_in(place, home.settings.home)
    assert [one.path.name for one in found] == ["mine"]
    assert notes == [f"{place / 'lost+found'} cannot be read: Permission denied."]


@pytest.mark.parametrize("change", [{"counts": {"models": "many"}}, {"bytes": "1"}, {"counts": []}])
def test_a_header_of_other_types_is_damage(
    home: Furnished, place: Path, change: dict[str, Any]
) -> None:
    save(home, place / "odd")
    manifest = opened(place / "odd").manifest()
    data = written(replace(manifest, header=replace(manifest.header, **change)))
    (place / "odd" / MANIFEST).write_bytes(data)
    (place / "odd" / CHECKSUM).write_bytes(checksum(data))
    assert MANIFEST in str(listed(home, place)["odd"].fault)


@pytest.fixture
def read_anew() -> Iterator[None]:
    """The settings are read from this test's environment, and by the next test again."""
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.usefixtures("read_anew")
def test_the_command_prints_a_table_or_json(
    home: Furnished,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VISIONLOOP_HOME", str(home.settings.home))
    assert main(["list", str(place)]) == 0
    assert capsys.readouterr().out == f"There is no backup in {place}.\n"
    save(home, place / "one")
    monkeypatch.chdir(place.parent)
    assert main(["list", "backups", "--json"]) == 0
    [shown] = json.loads(capsys.readouterr().out)
    header = opened(place / "one").manifest().header
    assert shown == {
        "path": str(place / "one"),
        "created_at": header.created_at,
        "visionloop": VERSION,
        "database": "sqlite",
        "counts": header.counts,
        "files": header.files,
        "bytes": header.bytes,
        "notes": list(header.notes),
        "complete": True,
        "fault": None,
        "of_this_home": True,
    }
    assert main(["list", "nowhere"]) == 1
    assert "There is no folder" in capsys.readouterr().err
