from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from disk_space import check_room, free_bytes, is_disk_full, no_room
from errors import InsufficientStorage
from settings import Settings
from tests.support.full_disk import fill, small_disk


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OperationalError("", {}, sqlite3.OperationalError("database or disk is full")), True),
        (RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("full"), False),
        (None, False),
    ],
)
def test_what_means_a_full_disk(error: Exception | None, full: bool) -> None:
    assert is_disk_full(error) == full
    outer = ValueError("x")
    outer.__cause__ = error
    assert is_disk_full(outer) == full


def test_the_reserve_stays_free(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        home = disk / "not" / "yet" / "there"
        settings = Settings(home=home, disk_reserve=2**20)
        check_room(settings)
        check_room(settings, needed=6 * 2**20)
        with pytest.raises(InsufficientStorage, match="8 MiB are needed, and 1 MiB stay free"):
            check_room(settings, needed=7 * 2**20 + 2**19)
        fill(disk, leave=2**19)
        assert free_bytes(home) == 2**19
        error = no_room(settings)
        assert error is not None
        assert "docs/how-to/clean-up.md" in error.message
        check_room(Settings(home=home, disk_reserve=0))


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1GiB", 2**30), ("500MB", 5 * 10**8), ("2048", 2048)]
)
def test_the_reserve_has_units(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("VISIONLOOP_DISK_RESERVE", text)
    assert Settings().disk_reserve == size


@pytest.mark.parametrize("text", ["-1", "much", "1 potato"])
def test_a_reserve_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("VISIONLOOP_DISK_RESERVE", text)
    with pytest.raises(ValueError, match="disk_reserve"):
        Settings()
