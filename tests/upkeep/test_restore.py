"""Restoring a whole backup: what comes back, and what is already in its place."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from sqlalchemy import text

from access.sessions import SessionStore, all_sessions
from database import Database
from errors import Conflict, ValidationFailed
from home_paths import SERVER_LOCK, UNFINISHED_RESTORE, database_lock
from models_store.store import ModelStore
from serving.lifecycle import refuse_unfinished_restore
from settings import Settings
from tests.support.furnished_home import Furnished, furnished, torn
from tests.support.patience import PATIENCE
from tests.support.restoring import nothing_in, restore_into
from tests.support.serving import ROOT, environment
from upkeep.backup import backup, dump_sentence
from upkeep.restore import ASIDE, restore


def test_paths_in_the_database_are_those_of_the_new_place(
    source: Furnished, folder: Path, tmp_path: Path
) -> None:
    done = restore_into(folder, tmp_path / "there")
    assert done.relocated == 2  # a recipe with two paths, an evaluation's dataset
    with sqlite3.connect(tmp_path / "there/home/visionloop.db") as connection:
        content = "\n".join(connection.iterdump())
    connection.close()
    assert str(source.settings.home) not in content
    assert str(source.models.home) not in content
    assert f'"{tmp_path}/there/bento/x"' in content


def test_sessions_of_before_are_over(source: Furnished, tmp_path: Path) -> None:
    """One that was signed out after the backup would be open again."""
    sessions = SessionStore(source.database)
    _, opened_before = sessions.open(None, b"digest")
    backup(source.settings, tmp_path / "saved", store=source.models)
    restore_into(tmp_path / "saved", tmp_path / "there")
    database = Database(Settings(home=tmp_path / "there/home"))
    with database.read() as session:
        assert all_sessions(session) == ()
    with source.database.read() as session:
        assert opened_before in all_sessions(session), "those of this server go on"
    database.close()


def test_running_jobs_wait_for_the_next_server(folder: Path, tmp_path: Path) -> None:
    restore_into(folder, tmp_path / "there")
    database = Database(Settings(home=tmp_path / "there/home"))
    there = Furnished(database.settings, ModelStore(tmp_path / "there/bento"), database, tmp_path)
    assert sorted(job.status for job in there.jobs.list()) == ["queued", "stopped"]
    job = there.jobs.list(None, "queued")[0]
    assert (job.pid, job.crashes, job.checkpoint) == (None, 0, 1)
    assert "Restored from a backup of 20" in there.jobs.log(job.id).read_text()
    assert torn(there) == []
    database.close()


def test_what_is_restored_is_private(folder: Path, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        restore_into(folder, tmp_path / "there")
    finally:
        os.umask(mask)
    for top in ("home", "bento"):
        assert stat.S_IMODE((tmp_path / "there" / top).stat().st_mode) == 0o700
    for path in (tmp_path / "there/home/datasets").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize("place", ["home", "bento"])
def test_a_server_on_the_home_is_refused(folder: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "there" / place).mkdir(parents=True)
    with (
        FileLock(tmp_path / "there" / place / SERVER_LOCK),
        pytest.raises(Conflict, match="A VisionLoop server is using"),
    ):
        restore_into(folder, tmp_path / "there", force=True)
    assert nothing_in(tmp_path / "there")


def test_former_content_is_never_merged_and_moved_aside_by_force(
    folder: Path, tmp_path: Path
) -> None:
    other = furnished(tmp_path / "there")
    mine = other.publish("mine")
    (other.settings.home / "datasets" / "mine").mkdir(parents=True)
    other.database.close()
    with pytest.raises(Conflict, match="A restore does not merge") as refused:
        restore_into(folder, tmp_path / "there")
    assert str(tmp_path / "there/home") in str(refused.value)
    assert str(tmp_path / "there/bento/models") in str(refused.value)
    assert other.registry.get(mine)
    done = restore_into(folder, tmp_path / "there", force=True)
    assert [path.parent.name for path in done.aside] == ["home", "bento"]
    assert (done.aside[0] / "datasets/mine").is_dir()
    assert (done.aside[0] / "visionloop.db").is_file()
    assert (done.aside[1] / "models/mine").is_dir()
    assert not (tmp_path / "there/home/datasets/mine").exists()
    database = Database(Settings(home=tmp_path / "there/home"))
    with database.read() as session:
        assert list(session.scalars(text("SELECT name FROM models"))) == ["signs"]
    database.close()


def test_a_failed_exchange_is_undone(folder: Path, tmp_path: Path) -> None:
    other = furnished(tmp_path / "there")
    other.publish("mine")
    other.database.close()
    before = sorted(path.name for path in (tmp_path / "there/home").iterdir())

    class Stubborn(ModelStore):
        """Its models cannot be moved: they are a file on another file system, so to say."""

        @property
        def models(self) -> Path:
            return Path("/proc/self") if self.stuck else self._models

        @models.setter
        def models(self, value: Path) -> None:
            self._models, self.stuck = value, False

    store = Stubborn(tmp_path / "there/bento")
    settings = Settings(home=tmp_path / "there/home", disk_reserve=0)

    def stage(name: str, total: int) -> Any:
        store.stuck = True
        return lambda count: None

    with pytest.raises(OSError, match="/proc/self"):
        restore(settings, folder, force=True, stage=stage, store=store)
    left = [path.name for path in (tmp_path / "there/home").iterdir()]
    assert {name for name in left if not name.startswith(ASIDE)} == {*before, SERVER_LOCK}
    assert not [*(tmp_path / "there/home").glob(f"{ASIDE}*/*")]
    with sqlite3.connect(tmp_path / "there/home/visionloop.db") as connection:
        assert connection.execute("SELECT name FROM models").fetchall() == [("mine",)]
    connection.close()
    assert UNFINISHED_RESTORE not in left


KILLED = """
import os, sys
from pathlib import Path
from models_store.store import ModelStore
from settings import Settings
from upkeep.restore import restore
backup, root, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rename, renamed = Path.rename, []
def dying(self, target):
    if len(renamed) == last:
        os._exit(9)
    renamed.append(target)
    return rename(self, target)
Path.rename = dying
settings = Settings(home=root / "home", disk_reserve=0)
restore(settings, backup, True, store=ModelStore(root / "bento"))
"""


@pytest.mark.parametrize("last", [0, 2, 6])
def test_a_killed_exchange_is_told_by_all_and_repeated(
    folder: Path, tmp_path: Path, last: int
) -> None:
    """Nothing that was there is lost, and the last restore names where all of it is."""
    root = tmp_path / "there"
    other = furnished(root)
    other.publish("mine")
    other.upload("precious")
    other.database.close()
    shutil.rmtree(other.drawer)
    before = files_in(root)
    command = [sys.executable, "-c", KILLED, str(folder), str(root), str(last)]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), timeout=PATIENCE)
        assert done.returncode == 9
    for act in (
        lambda: Database(other.settings),
        lambda: backup(other.settings, tmp_path / "torn", store=other.models),
    ):
        with pytest.raises(Conflict, match="Run `visionloop restore BACKUP --force` again"):
            act()
    with pytest.raises(SystemExit, match="was killed while it put files in place"):
        refuse_unfinished_restore(other.settings.home)
    aside = restore_into(folder, root, force=True).aside
    found = set().union(*(files_in(path) for path in aside))
    assert before <= found
    refuse_unfinished_restore(other.settings.home)
    Database(other.settings).close()


def files_in(folder: Path) -> set[str]:
    """The names of files and their folders, without locks and SQLite's logs."""
    return {
        f"{path.parent.name}/{path.name}"
        for path in folder.rglob("*")
        if path.is_file()
        and path.parent != folder
        and path.parent.name != "home"
        and path.suffix != ".lock"
    }


def test_models_of_other_programs_stay(folder: Path, tmp_path: Path) -> None:
    models = tmp_path / "there/bento/models"
    for name in ("iris", "signs"):  # the second one's name is in the backup, too
        (models / name / "v1").mkdir(parents=True)
        (models / name / "v1/model.yaml").write_text(f"name: {name}\nmetadata: {{}}\n")
    with pytest.raises(Conflict, match="A restore does not merge"):
        restore_into(folder, tmp_path / "there")
    [aside] = restore_into(folder, tmp_path / "there", force=True).aside
    assert (models / "iris/v1/model.yaml").is_file()
    assert [path.name for path in (aside / "models").iterdir()] == ["signs"]
    shutil.rmtree(tmp_path / "there/home")
    shutil.rmtree(models / "signs")
    assert restore_into(folder, tmp_path / "there").aside == ()  # without force
    assert (models / "iris/v1/model.yaml").is_file()


@pytest.mark.parametrize(("home", "bento"), [("a", "a/bento"), ("a", "a"), ("a/home", "a")])
def test_one_home_may_lie_in_the_other(folder: Path, tmp_path: Path, home: str, bento: str) -> None:
    settings = Settings(home=tmp_path / home, disk_reserve=0)
    store = ModelStore(tmp_path / bento)
    (store.home / "bentos/vision").mkdir(parents=True)
    assert restore(settings, folder, store=store).aside == ()
    before = files_in(store.models)
    assert before
    with pytest.raises(Conflict, match="A restore does not merge"):
        restore(settings, folder, store=store)
    done = restore(settings, folder, True, store=store)
    assert files_in(store.models) == before
    assert before <= set().union(*map(files_in, done.aside))
    assert (store.home / "bentos/vision").is_dir()
    Database(settings).close()


def test_a_database_in_another_place_goes_there(folder: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/elsewhere/mine.db"
    settings = Settings(home=tmp_path / "there/home", disk_reserve=0, database_url=url)
    restore(settings, folder, store=ModelStore(tmp_path / "there/bento"))
    assert not (tmp_path / "there/home/visionloop.db").exists()
    with closing(sqlite3.connect(tmp_path / "elsewhere/mine.db")) as connection:
        assert connection.execute("SELECT count(*) FROM models").fetchone() == (1,)


@pytest.mark.parametrize("name", ["mine.db", "visionloop.db"])
def test_a_server_of_another_home_on_the_database_is_refused(
    folder: Path, tmp_path: Path, name: str
) -> None:
    """The home is new, and the URL is still that of the server, which would lose its database."""
    file = tmp_path / "live" / name
    file.parent.mkdir()
    file.write_text("live")
    settings = Settings(home=tmp_path / "home", disk_reserve=0, database_url=f"sqlite:///{file}")
    with (
        FileLock(database_lock(file)),
        pytest.raises(Conflict, match=rf"is using {file}. Stop it, or set VISIONLOOP_DATABASE_URL"),
    ):
        restore(settings, folder, force=True, store=ModelStore(tmp_path / "bento"))
    assert file.read_text() == "live"
    assert nothing_in(tmp_path / "home")


def test_other_databases_are_told_what_to_do(
    source: Furnished, folder: Path, tmp_path: Path
) -> None:
    url = "postgresql+psycopg://user:secret@db.example/vision"
    settings = source.settings.model_copy(update={"database_url": url})
    sentence = dump_sentence(settings)
    assert "pg_dump --format=custom --file=visionloop.dump" in sentence
    assert "'postgresql://user:***@db.example/vision'" in sentence
    with pytest.raises(ValidationFailed, match="VISIONLOOP_DATABASE_URL names another one"):
        restore(
            settings.model_copy(update={"home": tmp_path / "there/home"}),
            folder,
            store=ModelStore(tmp_path / "there/bento"),
        )


def test_a_backup_inside_the_home_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="lies inside"):
        restore(
            Settings(home=tmp_path, disk_reserve=0), folder, store=ModelStore(tmp_path / "bento")
        )
