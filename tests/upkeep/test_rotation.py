"""Old backups are deleted beside a new one, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clock import next_instant
from tests.support.furnished_home import Furnished, furnished
from upkeep import rotation
from upkeep.backup import Result, backup
from upkeep.manifest import CHECKSUM, MANIFEST
from upkeep.rotation import Rotated, rotate
from upkeep.storage import OBJECTS, opened, verify


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
    before = names(place)
    newest = saved(home, place / "new")
    assert kept(newest, 1) == Rotated((), ())
    assert names(place) == sorted([*before, "new"])


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
    assert done.kept == (f"{place / 'one'} stays: Operation not permitted.",)
    assert names(place) == ["one", "three"]
