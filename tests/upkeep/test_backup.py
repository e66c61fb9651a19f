"""Backups of a home that changes while it is copied."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from annotation.cleanup import delete_dataset
from annotation.datasets import AnnotatedDatasets
from annotation.drafts.store import DraftStore, Drawn, Place
from database import Database
from errors import (
    Conflict,
    DatabaseDamaged,
    Forbidden,
    InsufficientStorage,
    NotFound,
    ValidationFailed,
)
from files import PARTIAL
from home_paths import HomePaths
from jobs.artifacts import CHECKPOINTS, clear
from models_store.store import ModelStore
from settings import Settings
from tests.support.furnished_home import Furnished, furnished, torn
from tests.support.patience import PATIENCE, wait_until
from tests.support.seeds import rng
from tests.support.serving import ROOT, environment
from upkeep.backup import Result, backup
from upkeep.manifest import TREES, BackupDamaged
from upkeep.restore import restore
from upkeep.storage import opened, verify

LEFT_OUT = {  # properties of HomePaths: what a server makes anew, and what is not a tree
    "database", "scratch", "image_cache", "image_index", "thumbnails", "engines", "exports",
    "metrics", "schema_lock", "locks", "changes", "inbox_signal", "migration_log",
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Furnished]:
    made = furnished(tmp_path / "server")
    yield made
    made.database.close()


@pytest.fixture
def full(home: Furnished) -> Furnished:
    model = home.publish(promote=True)
    dataset = home.upload()
    home.job("running", dataset=str(home.settings.paths.datasets / dataset / "data/data.yaml"))
    home.job("completed")
    home.evaluate(model)
    home.keep_image()
    place = Place(dataset, "c" * 64, "ann")
    DraftStore(home.database).put(place, Drawn([{"id": "a"}], "accepted", "none"), None)
    return home


def saved(home: Furnished, target: Path, **options: object) -> Result:
    return backup(home.settings, target, store=home.models, **options)  # type: ignore[arg-type]


def restored(path: Path, root: Path) -> Furnished:
    made = Settings(home=root / "home", disk_reserve=0)
    models = ModelStore(root / "bento")
    restore(made, path, store=models)
    return Furnished(made, models, Database(made), root / "drawer")


class During:
    """A `Stage` that does something each time that bytes were copied."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def __call__(self, name: str, total: int) -> Callable[[int], None]:
        return (lambda count: self.act()) if name == "copying" else (lambda count: None)


@pytest.mark.parametrize("name", ["saved", "saved.zip"])
def test_a_backup_restores_what_was_there(full: Furnished, tmp_path: Path, name: str) -> None:
    result = saved(full, tmp_path / name)
    counts = {"models": 1, "datasets": 1, "jobs": 2, "evaluations": 1, "drafts": 1}
    assert result.header.counts == counts
    assert result.header.notes == ()
    there = restored(tmp_path / name, tmp_path / "there")
    assert torn(there) == []
    [draft] = DraftStore(there.database).list(there.datasets.list()[0]["id"])
    assert (draft.author, draft.objects) == ("ann", [{"id": "a"}])
    assert [(m.id, m.promoted, m.content) for m in there.registry.list()] == [
        (m.id, m.promoted, m.content) for m in full.registry.list()
    ]
    for mine, other in zip(full.datasets.list(), there.datasets.list(), strict=True):
        assert full.fingerprint(mine["id"]) == there.fingerprint(other["id"])
    assert (there.settings.paths.kept_images / "one.image").read_bytes() == b"bytes"
    there.database.close()


def test_a_backup_is_private_and_appears_as_a_whole(full: Furnished, tmp_path: Path) -> None:
    saved(full, tmp_path / "saved")
    for path in (tmp_path / "saved", *(tmp_path / "saved").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    saved(full, tmp_path / "saved.zip")
    assert stat.S_IMODE((tmp_path / "saved.zip").stat().st_mode) == 0o600
    assert not list(tmp_path.glob(f"{PARTIAL}*"))


def test_every_place_of_a_home_is_backed_up_or_left_out_on_purpose(tmp_path: Path) -> None:
    paths = HomePaths(tmp_path)
    places = {name for name, found in vars(HomePaths).items() if isinstance(found, property)}
    trees = {name for name in places if getattr(paths, name).name in TREES}
    assert places - trees == LEFT_OUT
    assert {getattr(paths, name).name for name in trees} == set(TREES)


def test_only_what_a_job_resumes_from_is_copied(full: Furnished, tmp_path: Path) -> None:
    job = full.jobs.list(None, "running")[0]
    folder = full.jobs.folder(job.id)
    for name in ("data", "base", f"{PARTIAL}abc"):
        (folder / name).mkdir()
        (folder / name / "file").write_text(name)
    saved(full, tmp_path / "saved")
    paths = {entry.path for entry in opened(tmp_path / "saved").manifest().entries}
    there = {path.removeprefix(f"home/jobs/{job.id}/") for path in paths if job.id in path}
    assert there == {"log", "base/file", "checkpoints/last.pt", "checkpoints/state.json"}


def test_equal_files_are_stored_once_and_shared_with_an_earlier_backup(
    full: Furnished, tmp_path: Path
) -> None:
    first = saved(full, tmp_path / "first")
    second = saved(full, tmp_path / "second", onto=tmp_path / "first")
    assert second.header.bytes == first.header.bytes
    assert second.linked > 0.9 * first.header.bytes
    shutil.rmtree(tmp_path / "first")
    verify(opened(tmp_path / "second"))


def test_a_hard_link_is_one_file_again(full: Furnished, tmp_path: Path) -> None:
    folder = full.settings.paths.datasets / full.datasets.list()[0]["id"]
    image = next(folder.rglob("images/*/*.*"))
    os.link(image, folder / "another.jpg")
    saved(full, tmp_path / "saved")
    there = restored(tmp_path / "saved", tmp_path / "there")
    copy = there.settings.paths.datasets / folder.name
    assert (copy / "another.jpg").samefile(copy / image.relative_to(folder))
    there.database.close()


def test_what_is_deleted_meanwhile_is_not_in_the_backup(full: Furnished, tmp_path: Path) -> None:
    model, job = full.publish(), full.job("completed")
    full.evaluate(model)

    def act() -> None:
        during.act = lambda: None
        full.registry.delete(model)
        full.evaluations.delete_for(model)
        full.jobs.delete(job)

    during = During(act)
    result = saved(full, tmp_path / "saved", stage=during)
    assert result.passes > 1
    assert result.header.notes == ()
    there = restored(tmp_path / "saved", tmp_path / "there")
    assert torn(there) == []
    assert model not in {found.id for found in there.registry.list()}
    assert job not in {found.id for found in there.jobs.list()}
    there.database.close()


def test_a_job_that_ends_meanwhile_has_ended_in_the_backup(full: Furnished, tmp_path: Path) -> None:
    job = full.jobs.list(None, "running")[0]

    def act() -> None:
        during.act = lambda: None
        full.jobs.finish(job.id, "completed")
        clear(full.jobs.folder(job.id), completed=True)

    during = During(act)
    assert saved(full, tmp_path / "saved", stage=during).passes > 1
    there = restored(tmp_path / "saved", tmp_path / "there")
    assert there.jobs.get(job.id).status == "completed"
    assert not (there.jobs.folder(job.id) / CHECKPOINTS).exists()
    there.database.close()


def test_a_home_that_changes_all_the_time_is_never_torn(full: Furnished, tmp_path: Path) -> None:
    random = rng()
    annotated = AnnotatedDatasets(full.database)

    def act() -> None:
        if random.random() > 0.15:
            return
        with_name = [model for model in full.registry.list() if not model.promoted]
        match random.integers(7):
            case 0:
                full.publish()
            case 1 if with_name:
                full.registry.delete(with_name[0].id)
                full.evaluations.delete_for(with_name[0].id)
            case 2:
                full.job("running")
            case 3:
                for job in full.jobs.list(None, "running")[:1]:
                    clear(full.jobs.folder(job.id), completed=False)
                    full.jobs.finish(job.id, "stopped")
            case 4:
                for job in full.jobs.list(None, "stopped", "completed")[:1]:
                    full.jobs.delete(job.id)
            case 5:
                full.upload()
            case 6:
                for card in full.datasets.list()[:-1]:
                    delete_dataset(card["id"], full.datasets, annotated, full.jobs)

    passes = 0
    for number in range(5):
        passes += saved(full, tmp_path / f"saved{number}", stage=During(act)).passes
        there = restored(tmp_path / f"saved{number}", tmp_path / f"there{number}")
        assert torn(there) == []
        there.database.close()
    assert passes > 5  # some of what was deleted would have been missing


def test_checkpoints_are_of_one_moment(full: Furnished, tmp_path: Path) -> None:
    job = full.jobs.list(None, "running")[0]
    ended = threading.Event()

    def train() -> None:
        number = 1
        while not ended.is_set():
            full.checkpoint(job.id, number)
            number += 1
            time.sleep(0.002)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for number in range(5):
            saved(full, tmp_path / f"saved{number}")
            there = restored(tmp_path / f"saved{number}", tmp_path / f"there{number}")
            folder = there.jobs.folder(job.id) / CHECKPOINTS
            last, state = (int((folder / name).read_text()) for name in ("last.pt", "state.json"))
            assert 0 <= last - state <= 1  # as a kill between the two would leave them
            there.database.close()
    finally:
        ended.set()
        thread.join()


def test_the_database_is_copied_while_it_is_written(full: Furnished, tmp_path: Path) -> None:
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            full.jobs.create("training", config={"text": "x" * 5000}, recipe={})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        saved(full, tmp_path / "saved")
    finally:
        ended.set()
        thread.join()
    there = restored(tmp_path / "saved", tmp_path / "there")
    with there.database.read() as session:
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
    there.database.close()


def test_what_the_home_itself_lacks_is_noted(full: Furnished, tmp_path: Path) -> None:
    model = full.publish()
    name, version = model.split(":")
    shutil.rmtree(full.models.folder(name, version))
    [note] = saved(full, tmp_path / "saved").header.notes
    assert note == f"The home itself lacks files of the model {model}."


@pytest.mark.parametrize("tree", TREES)
def test_an_empty_folder_of_the_home_is_no_fault(
    home: Furnished, tmp_path: Path, tree: str
) -> None:
    (home.settings.home / tree).mkdir()  # as after `prune kept`
    assert saved(home, tmp_path / "saved").header.notes == ()
    restored(tmp_path / "saved", tmp_path / "there").database.close()


def test_every_name_that_a_file_can_have_is_backed_up(full: Furnished, tmp_path: Path) -> None:
    folder = full.settings.paths.datasets / full.datasets.list()[0]["id"] / "data"
    names = [b"a\\b.txt", b"\xff\n.txt", "ü \u2028.txt".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("x")
    assert saved(full, tmp_path / "saved").header.notes == ()
    there = restored(tmp_path / "saved", tmp_path / "there")
    there.database.close()
    found = os.listdir(os.fsencode(there.settings.paths.datasets / folder.parent.name / "data"))
    assert set(names) <= set(found)


def test_a_path_that_is_too_long_for_other_homes_is_noted(full: Furnished, tmp_path: Path) -> None:
    folder = full.jobs.folder(full.jobs.list()[0].id)
    depth = os.open(folder, os.O_RDONLY)
    for _ in range(16):  # one by one: the whole path is too long for a call
        os.mkdir("x" * 200, dir_fd=depth)
        inner = os.open("x" * 200, os.O_RDONLY, dir_fd=depth)
        os.close(depth)
        depth = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=depth))
    os.close(depth)
    [note] = saved(full, tmp_path / "saved").header.notes
    assert "or overlong paths were not copied: " in note


def test_links_are_not_followed_and_noted(full: Furnished, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = full.settings.paths.datasets / full.datasets.list()[0]["id"]
    (folder / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    [note] = saved(full, tmp_path / "saved").header.notes
    assert note.startswith("2 symbolic links, special files or overlong paths were not copied: ")
    paths = {entry.path for entry in opened(tmp_path / "saved").manifest().entries}
    assert not any(path.endswith(("/link", "/pipe")) for path in paths)


def test_a_killed_backup_leaves_nothing_that_looks_complete(
    full: Furnished, tmp_path: Path
) -> None:
    big = full.settings.paths.jobs / full.jobs.list()[0].id / "big"
    with big.open("wb") as file:
        file.truncate(2**30)
    there = tmp_path / "backups"
    there.mkdir()
    command = [sys.executable, "-P", "-m", "upkeep", "backup", str(there / "saved")]
    variables = environment(tmp_path) | {
        "VISIONLOOP_HOME": str(full.settings.home),
        "BENTOML_HOME": str(full.models.home),
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen(command, cwd=tmp_path, env=variables)
    wait_until(lambda: any(there.glob(f"{PARTIAL}*/saved/*")))
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    assert not (there / "saved").exists()
    [left] = there.iterdir()
    with pytest.raises(BackupDamaged, match="not a complete backup"):
        opened(left / "saved")
    big.unlink()
    saved(full, there / "saved")
    assert [path.name for path in there.iterdir()] == ["saved"]  # the former one was cleared away


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_home_of_another_user_is_refused(full: Furnished, tmp_path: Path) -> None:
    full.settings.paths.database.chmod(0o400)
    with pytest.raises(Forbidden, match="cannot be read and written by this user"):
        saved(full, tmp_path / "saved")


@pytest.mark.parametrize("place", ["home/saved", "bento/saved.zip", "home/jobs/saved"])
def test_a_backup_inside_what_it_copies_is_refused(full: Furnished, place: str) -> None:
    with pytest.raises(Conflict, match="lies inside"):
        saved(full, full.settings.home.parent / place)


def test_a_path_that_is_taken_is_refused(full: Furnished, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(Conflict, match="exists already"):
        saved(full, tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"
    with pytest.raises(NotFound, match="There is no backup"):
        saved(full, tmp_path / "saved", onto=tmp_path / "none")
    saved(full, tmp_path / "first")
    with pytest.raises(Conflict, match=r"a \.zip stands alone"):
        saved(full, tmp_path / "second.zip", onto=tmp_path / "first")


@pytest.mark.parametrize("name", ["saved", "saved.zip"])
def test_two_backups_to_one_place_at_once(full: Furnished, tmp_path: Path, name: str) -> None:
    first: list[Result] = []

    def other() -> None:
        if not first:
            first.append(saved(full, tmp_path / name))

    with pytest.raises(Conflict, match="exists already"):
        saved(full, tmp_path / name, stage=During(other))
    assert verify(opened(tmp_path / name)).header == first[0].header
    assert not [*tmp_path.glob(f"{PARTIAL}*")]


def test_a_disk_that_fills_up_meanwhile_is_named(full: Furnished, tmp_path: Path) -> None:
    def fill() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InsufficientStorage, match=f"The disk of {tmp_path} is full"):
        saved(full, tmp_path / "saved", stage=During(fill))
    assert [path.name for path in tmp_path.iterdir()] == ["server"]


def test_a_home_without_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed, match="There is no VisionLoop in"):
        backup(Settings(home=tmp_path / "nowhere"), tmp_path / "saved")
    assert not (tmp_path / "nowhere").exists()


def test_a_backup_that_does_not_fit_is_refused_before(full: Furnished, tmp_path: Path) -> None:
    with (full.jobs.folder(full.jobs.list()[0].id) / "huge").open("wb") as file:
        file.truncate(2**43)  # a hole: it needs no room here
    with pytest.raises(InsufficientStorage, match="The backup needs about 8,388,6"):
        saved(full, tmp_path / "saved")
    assert not list(tmp_path.glob("*saved*"))


def test_a_damaged_database_is_refused(full: Furnished, tmp_path: Path) -> None:
    full.database.close()
    path = full.settings.paths.database
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 8)
    with pytest.raises(DatabaseDamaged):
        saved(full, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_an_old_home_is_backed_up_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "server" / "home"
    home.mkdir(parents=True)
    with sqlite3.connect(home / "visionloop.db") as connection:
        connection.executescript((ROOT / "tests" / "schema_2.sql").read_text())
    connection.close()
    before = (home / "visionloop.db").read_bytes()
    settings = Settings(home=home, disk_reserve=0)
    made = furnished(tmp_path / "other")
    result = backup(settings, tmp_path / "saved", store=made.models)
    assert result.header.schema is None
    assert (home / "visionloop.db").read_bytes() == before
    there = restored(tmp_path / "saved", tmp_path / "there")
    assert len(there.jobs.list()) == result.header.counts["jobs"] == 2
    made.database.close()
    there.database.close()
