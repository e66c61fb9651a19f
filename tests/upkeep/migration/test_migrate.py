"""Migrations: home → Postgres and S3 → home, interrupted and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from filelock import FileLock
from sqlalchemy import create_engine, select

from database import Database
from errors import Conflict, StoreDamaged, ValidationFailed
from home_paths import SERVER_LOCK
from migrations.tables import METADATA
from models_store.store import ModelStore
from settings import Settings
from storage.trees import TreeStore
from tests.support.furnished_home import Furnished, furnished
from upkeep.migration.kinds import Kind, Place, content
from upkeep.migration.migrate import Sides, migrate, planned, sides
from upkeep.migration.report import summary, to_json
from upkeep.migration.rows import counts


@dataclass
class Folders:
    """The folders of jobs, as plain trees; `fault` is called before each copy."""

    trees: TreeStore
    source: Database
    fault: Callable[[str], None]
    name: str = "folders"
    prefixes: tuple[str, ...] = ("folders",)

    def keys(self) -> list[str]:
        from jobs.store import JobStore

        return sorted(job.id for job in JobStore(self.source).list(None))

    def folder(self, key: str, place: Place) -> Path:
        return place.home.jobs / key

    def content(self, key: str, place: Place) -> tuple[str, int]:
        return content(self.folder(key, place))

    def upload(self, key: str, place: Place) -> None:
        self.fault(key)
        self.trees.put(self.folder(key, place), f"folders/{key}")

    def download(self, key: str, place: Place) -> None:
        self.trees.get(f"folders/{key}", self.folder(key, place))


class Killed(BaseException):
    """Ends a migration as a kill does: nothing cleans up after it."""


@dataclass
class Fault:
    """Ends the migration before the tree with a number."""

    at: int = 0
    seen: int = 0

    def __call__(self, key: str) -> None:
        self.seen += 1
        if self.seen == self.at:
            raise Killed(key)

    def kinds(self, found: Sides, source: Database, target: Database) -> Sequence[Kind]:
        return [Folders(found.trees, source, self)]


@pytest.fixture
def home(tmp_path: Path) -> Furnished:
    made = furnished(tmp_path / "source")
    for number in range(3):
        made.job("stopped", number, dataset=str(made.settings.home / "datasets/one/data.yaml"))
    made.database.close()
    return made


@pytest.fixture
def found(home: Furnished, new_postgres: Callable[[], str], store_url: str) -> Sides:
    return sides(cluster(home.settings.home, new_postgres(), store_url), home.models)


def cluster(home: Path, database_url: str, store_url: str) -> Settings:
    return Settings(home=home, disk_reserve=0, database_url=database_url, store_url=store_url)


@pytest.fixture
def back(found: Sides, tmp_path: Path) -> Sides:
    """The same cluster, and another home, which is empty."""
    settings = found.cluster.model_copy(update={"home": tmp_path / "back" / "home"})
    return sides(settings, ModelStore(tmp_path / "back" / "bento"))


def rows(settings: Settings) -> dict[str, int]:
    database = Database(settings)
    try:
        with database.engine.connect() as connection:
            return counts(connection)
    finally:
        database.close()


def files(folder: Path) -> dict[str, str]:
    return {path.name: content(path)[0] for path in folder.iterdir()}


def test_there_and_back_everything_is_the_same(found: Sides, back: Sides) -> None:
    before = rows(found.home)
    there = migrate("to-cluster", found, Fault().kinds)
    assert rows(found.cluster) == before == rows(found.home)
    returned = migrate("to-home", back, Fault().kinds)
    assert rows(back.home) == before
    assert files(back.home.paths.jobs) == files(found.home.paths.jobs)
    assert there.trees[0].source == there.trees[0].target == 3
    assert replace(there.trees[0], name="") == replace(returned.trees[0], name="")
    assert not found.home.paths.migration_log.exists()
    assert "rows of jobs" in summary(there, planned=False)
    assert json.loads(to_json(there))["trees"][0]["digest"] == returned.trees[0].digest


def test_paths_lead_to_each_server_s_home_and_back(found: Sides, back: Sides) -> None:
    migrate("to-cluster", found, Fault().kinds)
    assert dataset_of(found.cluster) == "$VISIONLOOP_HOME/datasets/one/data.yaml"
    migrate("to-home", back, Fault().kinds)
    assert dataset_of(back.home) == str(back.home.home / "datasets/one/data.yaml")


def dataset_of(settings: Settings) -> str:
    """The dataset of the first job, as its row says."""
    database = Database(settings)
    try:
        with database.engine.connect() as connection:
            recipe = connection.scalars(select(METADATA.tables["jobs"].c.recipe)).first()
    finally:
        database.close()
    assert recipe is not None
    return str(recipe["dataset"])


def test_one_that_was_killed_goes_on_and_is_closed_until_then(found: Sides) -> None:
    with pytest.raises(Killed):
        migrate("to-cluster", found, Fault(at=3).kinds)
    with pytest.raises(Conflict, match=r"did not end\. Run it again"):
        Database(found.cluster)
    assert planned("to-cluster", found, Fault().kinds).resumed
    again = Fault()
    report = migrate("to-cluster", found, again.kinds)
    assert again.seen == 1  # two were done
    assert report.resumed
    assert report.trees[0].target == 3
    assert rows(found.cluster) == rows(found.home)


def test_another_migration_s_target_is_refused(found: Sides, back: Sides) -> None:
    with pytest.raises(Killed):
        migrate("to-cluster", found, Fault(at=2).kinds)
    shutil.copytree(found.home.home, back.home.home)
    with pytest.raises(Conflict, match="target of another migration"):
        migrate("to-cluster", back, Fault().kinds)


def test_a_target_that_is_not_empty_is_refused(found: Sides, back: Sides) -> None:
    migrate("to-cluster", found, Fault().kinds)
    with pytest.raises(Conflict, match=r"is not empty: .*A migration does not merge"):
        migrate("to-cluster", found, Fault().kinds)
    with pytest.raises(Conflict, match=r"visionloop\.db is not empty: .*jobs"):
        migrate("to-home", found, Fault().kinds)
    back.home.home.mkdir(parents=True)
    (back.home.home / "notes.txt").touch()
    with pytest.raises(Conflict, match=r"Not empty: .*notes\.txt"):
        migrate("to-home", back, Fault().kinds)


def test_a_store_with_other_trees_is_refused(found: Sides, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    found.trees.put(tmp_path / "tree", "folders/other")
    for run in (planned, migrate):
        with pytest.raises(Conflict, match="The store is not empty: it has folders/other"):
            run("to-cluster", found, Fault().kinds)


def test_a_server_on_the_home_is_refused(found: Sides) -> None:
    for folder in (found.home.home, found.models.home):
        folder.mkdir(exist_ok=True, parents=True)
        with (
            FileLock(folder / SERVER_LOCK),
            pytest.raises(Conflict, match="A VisionLoop server is using"),
        ):
            migrate("to-cluster", found, Fault().kinds)


def test_a_program_on_the_cluster_is_refused(found: Sides) -> None:
    engine = create_engine(found.cluster.sqlalchemy_url)
    with engine.connect(), pytest.raises(Conflict, match=r"is in use: .*Stop all servers and jobs"):
        migrate("to-cluster", found, Fault().kinds)
    engine.dispose()
    migrate("to-cluster", found, Fault().kinds)


def test_a_dry_run_writes_nothing(found: Sides) -> None:
    report = planned("to-cluster", found, Fault().kinds)
    assert report.trees[0].source == 3
    assert report.trees[0].bytes > 0
    assert {line.name: line.source for line in report.tables}["jobs"] == 3
    assert "Nothing was done yet." in summary(report, planned=True)
    assert found.trees.list("folders") == []
    engine = create_engine(found.cluster.sqlalchemy_url)
    with engine.connect() as connection:
        assert not connection.dialect.has_table(connection, "jobs")
    engine.dispose()


def test_a_copy_that_differs_is_no_migration(found: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    put = type(found.trees).put

    def changed(self: TreeStore, folder: Path, key: str, files: object = None) -> str:
        (folder / "late.txt").write_text("a program writes here")
        digest = put(self, folder, key)
        (folder / "late.txt").unlink()
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(type(found.trees), "put", changed)
        with pytest.raises(StoreDamaged, match="has other files than"):
            migrate("to-cluster", found, Fault().kinds)
    with pytest.raises(Conflict, match="did not end"):
        Database(found.cluster)
    migrate("to-cluster", found, Fault().kinds)


@pytest.mark.parametrize(
    ("left_out", "named"),
    [("database_url", "VISIONLOOP_DATABASE_URL"), ("store_url", "VISIONLOOP_STORE_URL")],
)
def test_a_cluster_has_both(found: Sides, left_out: str, named: str) -> None:
    with pytest.raises(ValidationFailed, match=f"Set {named} to"):
        sides(found.cluster.model_copy(update={left_out: None}), found.models)


def test_a_home_that_is_not_there_is_no_source(back: Sides) -> None:
    with pytest.raises(ValidationFailed, match="There is no VisionLoop in"):
        migrate("to-cluster", back, Fault().kinds)


def test_a_torn_line_of_the_log_is_done_again(found: Sides) -> None:
    with pytest.raises(Killed):
        migrate("to-cluster", found, Fault(at=3).kinds)
    log = found.home.paths.migration_log
    log.write_text(log.read_text()[:-20])
    again = Fault()
    migrate("to-cluster", found, again.kinds)
    assert again.seen == 2
