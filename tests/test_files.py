"""Atomic writes: what readers see, and what a killed process leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from files import (
    PARTIAL,
    atomic_folder,
    atomic_path,
    atomic_write,
    delete_abandoned,
    link_or_copy,
    temporary_folder,
)
from tests.test_requirements import ROOT

WRITING = """
import sys
from pathlib import Path
from files import atomic_path
with atomic_path(Path(sys.argv[1])) as path:
    path.write_text("half")
    print("written", flush=True)
    sys.stdin.read()
"""


@contextmanager
def writing(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has begun to write `target`, and goes on when its input ends."""
    command = [sys.executable, "-c", WRITING, str(target)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        try:
            yield process
        finally:
            process.kill()


def partials(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{PARTIAL}*"))


def test_what_a_killed_process_left_is_deleted_wherever_it_is(tmp_path: Path) -> None:
    targets = [tmp_path / "a.json", tmp_path / "datasets" / "dogs" / "pictures" / "1.png"]
    for target in targets:
        with writing(target) as process:
            process.send_signal(signal.SIGKILL)
    assert len(partials(tmp_path)) == 2
    assert delete_abandoned(tmp_path) == 2
    assert partials(tmp_path) == []
    assert not any(target.exists() for target in targets)


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    target = tmp_path / "jobs" / "a.json"
    with writing(target) as process:
        assert delete_abandoned(tmp_path) == 0
        process.communicate("", timeout=60)
    assert process.returncode == 0
    assert target.read_text() == "half"
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_what_this_process_is_writing_stays(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as path:
        assert delete_abandoned(tmp_path) == 0
        path.touch()
    with temporary_folder(tmp_path / "scratch") as folder:
        assert delete_abandoned(tmp_path) == 0
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["a", "scratch"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_no_write_fails_while_leftovers_are_deleted(tmp_path: Path) -> None:
    def write(number: int) -> None:
        atomic_write(tmp_path / f"{number}.txt", str(number))

    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(write, number) for number in range(300)]
        while not all(one.done() for one in writes):
            delete_abandoned(tmp_path)  # may delete a folder that is not locked yet
    for one in writes:
        one.result()
    assert {path.name for path in tmp_path.iterdir()} == {f"{i}.txt" for i in range(300)}


def test_a_leftover_without_a_lock_is_deleted_and_links_are_not_followed(tmp_path: Path) -> None:
    """Killed before it was locked; or left by a version without locks."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        (folder / f"{PARTIAL}old").mkdir(parents=True)
        (folder / f"{PARTIAL}old" / "a.json").write_text("half")
    (home / "data").symlink_to(elsewhere)
    assert delete_abandoned(home) == 1
    assert partials(elsewhere) == [elsewhere / f"{PARTIAL}old"]
    assert delete_abandoned(tmp_path / "none") == 0


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", "old")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "old").touch()
    for context in (atomic_path(tmp_path / "a"), atomic_folder(tmp_path / "b")):
        with pytest.raises(ZeroDivisionError), context:
            raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["old"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("before", ["none", "folder", "file", "link"])
def test_a_folder_replaces_whatever_was_there(tmp_path: Path, before: str) -> None:
    target, other = tmp_path / "data", tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    match before:
        case "folder":
            target.mkdir()
            (target / "old").touch()
        case "file":
            target.touch()
        case "link":
            target.symlink_to(other)
    with atomic_folder(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert (other / "kept").exists()


@pytest.mark.parametrize("linkable", [True, False])
def test_a_link_or_copy_never_replaces_a_file(
    tmp_path: Path, linkable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no hard links here")

    if not linkable:
        monkeypatch.setattr(os, "link", refused)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    link_or_copy(source, target)
    assert target.read_text() == "new"
    assert target.samefile(source) == linkable
    target.unlink()
    target.write_text("old")
    with pytest.raises(FileExistsError):
        link_or_copy(source, target)
    assert target.read_text() == "old"
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "none", tmp_path / "c")
    assert not (tmp_path / "c").exists()
