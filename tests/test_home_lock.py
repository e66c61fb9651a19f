"""A home on a file system without locks is refused with a sentence."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from database import Database
from errors import Forbidden
from exclusive import FileExclusive
from files import NO_FLOCK, HomeLock
from home_paths import HomePaths
from serving.lifecycle import hold
from settings import Settings, get_settings
from shell import on_database
from upkeep.restore import no_server

REASON = r"its file system has no locks \(flock\), .* Use a folder on a local disk, or mount"

Refuse = Callable[[int], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Has each call of flock fail."""

    def set_up(number: int) -> None:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return set_up


@pytest.fixture
def read_anew() -> Iterator[None]:
    """The settings are read from this test's environment, and by the next test again."""
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.parametrize("number", sorted(NO_FLOCK))
def test_the_folder_and_the_remedy_are_named(tmp_path: Path, refuse: Refuse, number: int) -> None:
    """ENOSYS is no reason to take a mere file for a lock: a killed process would leave it."""
    refuse(number)
    lock = FileExclusive(HomePaths(tmp_path).lock("seed"), 0)
    with pytest.raises(OSError, match=REASON) as refused, lock:
        pass
    assert refused.value.errno == number
    assert refused.value.filename == str(tmp_path / "run" / "locks")
    assert not lock.is_held()


def test_another_error_stays_what_it_is(tmp_path: Path, refuse: Refuse) -> None:
    refuse(errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        HomeLock(tmp_path / "a.lock").acquire()


@pytest.mark.sqlite
@pytest.mark.usefixtures("read_anew")
def test_commands_and_the_server_say_it(
    tmp_path: Path,
    refuse: Refuse,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path))
    refuse(errno.ENOLCK)
    with pytest.raises(OSError, match=REASON):
        Database(Settings(home=tmp_path))
    assert on_database(lambda _: None, verbose=True) == 1
    assert re.search(
        rf"error: {tmp_path}: {REASON} this one with locks\.\n", capsys.readouterr().err
    )
    with pytest.raises(SystemExit, match=f"VISIONLOOP_HOME cannot be used: {REASON}.*: {tmp_path}"):
        hold(tmp_path, "VISIONLOOP_HOME")
    with (
        pytest.raises(Forbidden, match=f"VISIONLOOP_HOME cannot be used: {REASON}"),
        no_server(tmp_path, "VISIONLOOP_HOME"),
    ):
        pass
