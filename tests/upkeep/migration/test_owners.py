"""A whole home goes to Postgres and S3 and comes back; a server's code reads it on either side."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from database import Database
from dataset.store import open_datasets
from errors import Conflict
from evaluation.store import EvaluationStore
from files import sha256_of
from jobs.shared_folders import resumed_from
from models_store.registry import Registry
from models_store.store import REQUIRED, ModelStore, content_hash
from models_store.tables import PublishedModel
from monitoring.kept_images import KeptImages
from settings import Settings
from tests.support.furnished_home import Furnished, furnished, torn
from tests.support.patience import wait_until
from tests.support.seeds import rng
from tests.support.serving import ROOT, environment
from upkeep.migration.kinds import content
from upkeep.migration.migrate import Sides, migrate, moved, sides
from upkeep.migration.owners import kinds
from upkeep.migration.rows import tables

OLD_HOME = Path(__file__).parents[2] / "support" / "old_home.tar.gz"
PER_MACHINE = {"run", "engines", "cache", "scratch", "pretrained"}


@pytest.fixture
def home(tmp_path: Path) -> Furnished:
    made = furnished(tmp_path / "source")
    made.publish("signs", promote=True)
    made.evaluate(made.publish("signs"))
    made.upload()
    made.job("stopped")
    made.jobs.log(made.job("failed")).write_bytes(b"")
    made.keep_image()
    uploaded = made.settings.paths.uploads / "pictures-1"
    uploaded.mkdir(parents=True)
    (uploaded / "one.jpg").write_bytes(b"an image")
    made.job("queued", dataset=str(uploaded))
    made.database.close()
    return made


@pytest.fixture
def found(home: Furnished, new_postgres: Callable[[], str], store_url: str) -> Sides:
    return both(home.settings, home.models, new_postgres(), store_url)


def both(settings: Settings, models: ModelStore, database_url: str, store_url: str) -> Sides:
    urls = {"database_url": database_url, "store_url": store_url}
    return sides(settings.model_copy(update=urls), models)


def elsewhere(found: Sides, folder: Path) -> Sides:
    """The same cluster, and an empty home."""
    cluster = found.cluster.model_copy(update={"home": folder / "home"})
    return sides(cluster, ModelStore(folder / "bento"))


def servers(found: Sides) -> dict[Path, str]:
    return {found.home.home: "/data/home", found.models.home: "/data/bento"}


def files(found: Sides) -> dict[str, str]:
    """The hash of every file of both homes that is to come back."""
    hashes = {}
    for top in (found.home.home, found.models.models):
        for file in top.rglob("*"):
            name = file.relative_to(top)
            if (
                file.is_file()
                and name.parts[0] not in PER_MACHINE
                and not any(part.startswith(".") for part in name.parts)
                and file.suffix not in (".lock", ".db", ".db-wal", ".db-shm")
                and name.name not in ("dataset.json", "model.yaml")
                and (name.parts[0] != "jobs" or kept(top, file))
            ):
                hashes[f"{top.name}/{name}"] = sha256_of(file)
    return hashes


def kept(home: Path, file: Path) -> bool:
    """Whether a file of a job is not made again when the job resumes."""
    folder = home / "jobs" / file.relative_to(home / "jobs").parts[0]
    return file.relative_to(folder).as_posix() in {"log", *resumed_from(folder)}


def rows(found: Sides) -> dict[str, list[str]]:
    """All rows of a home's database, as texts in which its folders have other names."""
    database = Database(found.home)
    try:
        with database.engine.connect() as connection:
            return {
                table.name: sorted(
                    repr(tuple(row))
                    .replace(str(found.home.home), "HOME")
                    .replace(str(found.models.home), "MODELS")
                    for row in connection.execute(select(table))
                )
                for table in tables()
            }
    finally:
        database.close()


def test_a_home_comes_back_as_it_was(home: Furnished, found: Sides, tmp_path: Path) -> None:
    before, numbers = files(found), rows(found)
    there = migrate("to-cluster", found, kinds, moved("to-cluster", servers(found)))
    assert files(found) == before  # the source stays
    back = elsewhere(found, tmp_path / "back")
    again = migrate("to-home", back, kinds, moved("to-home", servers(back)))
    assert files(back) == before
    assert rows(back) == numbers
    assert [replace(line, bytes=0) for line in again.trees] == [
        replace(line, bytes=0) for line in there.trees
    ]
    assert {line.name: line.source for line in there.trees}["models"] == 2
    returned = Furnished(back.home, back.models, Database(back.home), tmp_path / "drawer")
    assert torn(returned) == []
    assert returned.registry.get("signs").id == home.registry.get("signs").id
    returned.database.close()


def test_a_server_of_the_cluster_has_it_all(home: Furnished, found: Sides, tmp_path: Path) -> None:
    promoted = home.registry.get("signs")
    (card,) = home.datasets.list()
    fingerprint = home.fingerprint(card["id"])
    home.database.close()
    migrate("to-cluster", found, kinds)
    replica = elsewhere(found, tmp_path / "replica")
    database = Database(replica.cluster)
    try:
        registry = Registry(database, replica.models)
        model = registry.get("signs")
        assert model.id == promoted.id
        here = registry.trees.locate(model.id)
        assert content(here)[0] == content(promoted.path)[0]
        datasets = open_datasets(database)
        assert datasets.list() == [card]
        assert datasets.open(card["id"]).fingerprint == fingerprint
        evaluations = EvaluationStore(database)
        (row,) = [one for version in registry.list() for one in evaluations.history(version.id)]
        assert (evaluations.files(row) / "report.json").read_text() == "{}"
        assert len(list(KeptImages(replica.cluster).folder.parent.iterdir())) > 0
    finally:
        database.close()


@pytest.fixture
def old(tmp_path: Path, new_postgres: Callable[[], str], store_url: str) -> Sides:
    """The home of an older version, whose archive lacks the models' weights."""
    with tarfile.open(OLD_HOME) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    settings = Settings(home=tmp_path / "old" / "home", disk_reserve=0)
    models = ModelStore(tmp_path / "old" / "bento")
    database = Database(settings)
    with database.write() as session:
        for row in session.query(PublishedModel):
            folder = models.folder(row.name, row.version)
            for file in REQUIRED:
                if not (folder / file).exists():
                    (folder / file).write_bytes(rng(1).bytes(300))
            session.execute(
                update(PublishedModel)
                .where(PublishedModel.name == row.name, PublishedModel.version == row.version)
                .values(content=content_hash(folder))
            )
    database.close()
    return both(settings, models, new_postgres(), store_url)


def test_an_old_home_comes_back_as_it_was(old: Sides, tmp_path: Path) -> None:
    before, numbers = files(old), rows(old)
    assert len(before) > 20
    migrate("to-cluster", old, kinds, moved("to-cluster", servers(old)))
    back = elsewhere(old, tmp_path / "back")
    migrate("to-home", back, kinds, moved("to-home", servers(back)))
    assert files(back) == before
    assert rows(back) == numbers


def command(found: Sides, *words: str) -> tuple[list[str], dict[str, str]]:
    """The shell command of a migration, and its environment."""
    env = environment(found.home.home.parent) | {
        "VISIONLOOP_HOME": str(found.home.home),
        "BENTOML_HOME": str(found.models.home),
        "VISIONLOOP_DATABASE_URL": str(found.cluster.database_url),
        "VISIONLOOP_STORE_URL": str(found.cluster.store_url),
        "VISIONLOOP_DISK_RESERVE": "0",
    }
    env |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return [sys.executable, str(ROOT / "cli.py"), "migrate", *words], env


def run(found: Sides, *words: str) -> Any:
    argv, env = command(found, *words, "--json")
    ran = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
def test_the_command_goes_on_after_a_kill(home: Furnished, found: Sides, tmp_path: Path) -> None:
    for _ in range(8):
        home.publish("signs")
    home.database.close()
    before, log = files(found), found.home.paths.migration_log
    argv, env = command(found, "to-cluster")
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) > 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    planned = run(found, "to-cluster", "--dry-run")
    report = run(found, "to-cluster")
    assert planned["resumed"]
    assert report["resumed"]
    assert files(found) == before
    back = elsewhere(found, tmp_path / "back")
    argv, env = command(back, "to-home")
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
    log = back.home.paths.migration_log
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) > 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    returned = run(back, "to-home")
    assert returned["resumed"]
    assert files(back) == before
    assert [line["digest"] for line in returned["trees"]] == [
        line["digest"] for line in report["trees"]
    ]


def test_a_model_without_files_is_named(found: Sides) -> None:
    (folder,) = list((found.models.models / "signs").glob("*/"))[:1]
    shutil.rmtree(folder)
    with pytest.raises(Conflict, match=r"The model signs:\w+ lacks model"):
        migrate("to-cluster", found, kinds)
