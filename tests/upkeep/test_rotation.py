"""Old backups are deleted beside a new one, and nothing else is."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from home_paths import IDENTITY
from tests.support.clock import next_instant
from tests.support.furnished_home import Furnished, furnished
from tests.support.restoring import restore_into
from upkeep import rotation
from upkeep.backup import Result, backup
from upkeep.identity import identity_of
from upkeep.manifest import CHECKSUM, MANIFEST, BackupDamaged, checksum, written
from upkeep.rotation import Rotated, rotate
from upkeep.storage import OBJECTS, object_in, opened, verify


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Furnished]:
    made = furnished(tmp_path / "server")
    made.publish()
    yield made
    made.database.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def saved(home: Furnished, target: Path, onto: Path | None = None) -> Result:
    next_instant()
    return backup(home.settings, target, onto, store=home.models)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def kept(result: Result, keep: int) -> Rotated:
    return rotate(result.path, result.header, keep)


def test_the_newest_backups_stay_by_their_time_not_their_name(home: Furnished, place: Path) -> None:
    place.mkdir()
    for name in ("z", "a.zip", "m"):
        saved(home, place / name)
    newest = saved(home, place / "b", onto=place / "z")
    assert newest.linked > 0
    assert kept(newest, 9) == Rotated((), ())
    assert kept(newest, 2) == Rotated((place / "z", place / "a.zip"), ())
    assert names(place) == ["b", "m"]
    verify(opened(place / "b"))  # it shared files with the first one
    assert kept(newest, 1).deleted == (place / "m",)
    assert kept(newest, 1).deleted == ()


def test_nothing_but_backups_of_this_home_is_deleted(
    home: Furnished, place: Path, tmp_path: Path
) -> None:
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    (place / "photos.zip").write_bytes(b"PK")
    (place / "photos" / OBJECTS).mkdir(parents=True)
    other = furnished(tmp_path / "other")
    saved(other, place / "of-another-home")
    other.database.close()
    saved(home, place / "with-notes")
    (place / "with-notes" / "why.txt").write_text("before the upgrade")
    saved(home, place / "damaged")
    (place / "damaged" / MANIFEST).write_text("{}")
    saved(home, place / "incomplete")
    (place / "incomplete" / CHECKSUM).unlink()
    saved(home, tmp_path / "elsewhere")
    (place / "link").symlink_to(tmp_path / "elsewhere")
    saved(home, place / "with-notes.zip")
    with zipfile.ZipFile(place / "with-notes.zip", "a") as file:
        file.writestr("why.txt", "before the upgrade")
    os.mkfifo(place / "pipe.zip")
    before = names(place)
    newest = saved(home, place / "new")
    assert kept(newest, 1) == Rotated((), ())
    assert names(place) == sorted([*before, "new"])


def lose(backup: Path, how: str) -> str:
    """Damage the largest file of a backup; returns its path in the manifest."""
    manifest = opened(backup).manifest()
    largest = max(manifest.entries, key=lambda entry: entry.size)
    assert largest.sha256 is not None
    if backup.suffix == ".zip":
        whole = backup.with_name("whole")
        backup.rename(whole)
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(backup, "w") as target:
            for name in source.namelist():
                if not name.endswith(largest.sha256):
                    target.writestr(name, source.read(name))
        whole.unlink()
    elif how == "truncated":
        os.truncate(object_in(backup, largest.sha256), 1)
    else:
        object_in(backup, largest.sha256).unlink()
        if how == "a link":
            object_in(backup, largest.sha256).symlink_to(backup / MANIFEST)
    return largest.path


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("damaged", "missing"),
        ("damaged", "truncated"),
        ("damaged", "a link"),
        ("damaged.zip", "missing"),
    ],
)
def test_a_damaged_backup_does_not_count_and_stays(
    home: Furnished, place: Path, name: str, how: str
) -> None:
    """Good ones would be deleted in its favour."""
    place.mkdir()
    for one in ("oldest", "good", name):
        saved(home, place / one)
    lost = lose(place / name, how)
    newest = saved(home, place / "new")
    done = kept(newest, 2)
    assert done.deleted == (place / "oldest",)
    (note,) = done.notes
    assert f"{place / name} is damaged" in note
    assert lost in note
    assert f"`visionloop backup verify {place / name}`" in note
    assert kept(newest, 1).deleted == (place / "good",)
    assert names(place) == sorted([name, "new"])


def test_another_home_with_the_same_path_keeps_its_backups(home: Furnished, place: Path) -> None:
    """In containers every home is /data/home, and several may save to one folder."""
    place.mkdir()
    saved(home, place / "of-another-machine")
    (home.settings.home / IDENTITY).unlink()
    first, second = saved(home, place / "first"), saved(home, place / "second")
    assert first.header.home == opened(place / "of-another-machine").manifest().header.home
    assert kept(second, 1) == Rotated((place / "first",), ())
    assert names(place) == ["of-another-machine", "second"]


def test_a_copy_of_the_home_elsewhere_keeps_its_backups(home: Furnished, place: Path) -> None:
    place.mkdir()
    saved(home, place / "of-the-copy")
    header = saved(home, place / "new").header
    moved = replace(header, home=("/data/elsewhere",))
    assert rotate(place / "new", moved, 1) == Rotated((), ())


def test_a_home_that_cannot_be_written_deletes_nothing_and_says_so(
    home: Furnished, place: Path
) -> None:
    place.mkdir()
    (home.settings.home / IDENTITY).mkdir()
    saved(home, place / "one")
    done = kept(saved(home, place / "two"), 1)
    assert done.deleted == ()
    (note,) = done.notes
    assert IDENTITY in note
    assert names(place) == ["one", "two"]


def test_a_restored_home_has_an_identity_of_its_own(home: Furnished, tmp_path: Path) -> None:
    """The backups of the machine that it was copied from are not its own."""
    made = saved(home, tmp_path / "saved")
    there = tmp_path / "there" / "home"
    there.mkdir(parents=True)
    own = identity_of(there)
    restore_into(made.path, tmp_path / "there")  # with it alone, a home is still empty
    restore_into(made.path, tmp_path / "there", force=True)
    assert identity_of(there) == own != made.header.home_id == identity_of(home.settings.home)


def dated(place: Path, name: str, created_at: object) -> None:
    """Give a backup another time."""
    found = opened(place / name).manifest()
    data = written(replace(found, header=replace(found.header, created_at=created_at)))  # type: ignore[arg-type]
    (place / name / MANIFEST).write_bytes(data)
    (place / name / CHECKSUM).write_bytes(checksum(data))


def test_a_clock_that_was_ahead_costs_no_new_backup(home: Furnished, place: Path) -> None:
    place.mkdir()
    for name in ("old", "ahead"):
        saved(home, place / name)
    dated(place, "ahead", "2099-01-01T00:00:00.000+00:00")
    newest = saved(home, place / "new")
    assert kept(newest, 2).deleted == (place / "old",)
    assert kept(newest, 1) == Rotated((), ())
    assert names(place) == ["ahead", "new"]


def test_a_folder_that_cannot_be_read_and_a_manifest_without_a_time_stop_nothing(
    home: Furnished, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root of a disk has such a folder: lost+found."""
    place.mkdir()
    (place / "lost+found").mkdir()
    for name in ("old", "timeless"):
        saved(home, place / name)
    dated(place, "timeless", 5)
    with pytest.raises(BackupDamaged, match="no time"):
        opened(place / "timeless").manifest()
    opened_before = rotation.opened

    def refuse(path: Path) -> object:
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return opened_before(path)

    monkeypatch.setattr(rotation, "opened", refuse)
    assert kept(saved(home, place / "new"), 1).deleted == (place / "old",)
    assert names(place) == ["lost+found", "new", "timeless"]


def test_a_backup_that_cannot_be_deleted_is_said(
    home: Furnished, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir()
    for name in ("one", "two"):
        saved(home, place / name)
    newest = saved(home, place / "three")

    def refuse(path: Path) -> None:
        if path.name == "one":
            raise PermissionError(1, "Operation not permitted")
        delete(path)

    delete = rotation._delete
    monkeypatch.setattr(rotation, "_delete", refuse)
    done = kept(newest, 1)
    assert done.notes == (f"{place / 'one'} stays: Operation not permitted.",)
    assert names(place) == ["one", "three"]
