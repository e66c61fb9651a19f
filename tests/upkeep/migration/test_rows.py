"""Rows come to another kind of database and back as they were."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text

from database import Database
from jobs.home_references import referring, resolved
from migrations.tables import METADATA
from monitoring.last_backup import backup_gauges, note_backup
from settings import Settings
from tests.support.furnished_home import Furnished, furnished
from upkeep.migration.rows import LEFT_OUT, OWN, copy_rows, counts, tables, used

OLD_HOME = Path(__file__).parents[2] / "support" / "old_home.tar.gz"


def nothing(_: int) -> None:
    pass


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Database]:
    """The database of the home of an older version."""
    with tarfile.open(OLD_HOME) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    database = Database(Settings(home=tmp_path / "old" / "home", database_url=None))
    yield database
    database.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Furnished]:
    made = furnished(tmp_path / "home")
    made.evaluate(made.publish(promote=True))
    made.job("running", dataset=str(made.settings.paths.datasets / "shapes" / "data.yaml"))
    yield made
    made.database.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str | None], Database]]:
    """Opens new databases; None: SQLite."""
    made: list[Database] = []

    def open_new(url: str | None) -> Database:
        home = tmp_path / f"new{len(made)}"
        made.append(Database(Settings(home=home, database_url=url)))
        return made[-1]

    yield open_new
    for database in made:
        database.close()


def copied(source: Database, target: Database, folders: dict[str, str] | None = None) -> None:
    with source.engine.connect() as read, target.engine.begin() as write:
        found = copy_rows(read, write, folders or {}, dict, nothing)
        assert found == counts(read)
        assert found == counts(write)


def rows(database: Database) -> dict[str, list[Any]]:
    with database.engine.connect() as connection:
        return {
            table.name: [
                tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))
            ]
            for table in tables()
        }


def test_an_old_home_s_rows_are_the_same_after_postgres(
    old: Database,
    opened: Callable[[str | None], Database],
    new_postgres: Callable[[], str],
) -> None:
    there, back = opened(new_postgres()), opened(None)
    copied(old, there)
    copied(there, back)
    expected = rows(old)
    assert sum(map(len, expected.values())) > 50
    assert rows(there) == expected
    assert rows(back) == expected


def test_new_rows_get_numbers_that_were_never_given(
    home: Furnished,
    opened: Callable[[str | None], Database],
    new_postgres: Callable[[], str],
) -> None:
    jobs = METADATA.tables["jobs"]
    last = [home.job("stopped") for _ in range(3)][-1]
    with home.database.engine.begin() as connection:
        number = connection.scalar(select(jobs.c.number).where(jobs.c.id == last))
        connection.execute(delete(jobs).where(jobs.c.id == last))
    there, back = opened(new_postgres()), opened(None)
    copied(home.database, there)
    copied(there, back)
    for database in (there, back):
        made = Furnished(database.settings, home.models, database, home.drawer).job()
        with database.engine.connect() as connection:
            new = connection.scalar(select(jobs.c.number).where(jobs.c.id == made))
        assert new is not None
        assert number is not None
        assert new > number


def test_the_time_of_the_last_backup_is_of_the_home_alone(
    home: Furnished, opened: Callable[[str | None], Database]
) -> None:
    note_backup(home.database, "2026-12-01T02:00:00.000+00:00")
    there = opened(None)
    copied(home.database, there)
    assert [gauge.samples[0].value for gauge in backup_gauges(there)] == [0]


def test_paths_in_rows_are_those_of_the_new_home(
    home: Furnished, opened: Callable[[str | None], Database]
) -> None:
    before = str(home.settings.home)
    there = opened(None)
    copied(home.database, there, {before: "/data/home"})
    with there.engine.connect() as connection:
        (path,) = connection.scalars(select(METADATA.tables["evaluations"].c.dataset_path))
    assert path == "/data/home/datasets/shapes/data.yaml"


def test_the_path_of_an_evaluation_holds_on_any_machine_and_in_a_home_again(
    home: Furnished, opened: Callable[[str | None], Database]
) -> None:
    column = METADATA.tables["evaluations"].c.dataset_path
    there, back = opened(None), opened(None)
    own = home.settings.home.resolve()
    found: list[str] = []
    for source, target, change in (
        (home.database, there, partial(referring, home=own)),
        (there, back, partial(resolved, home=own)),
    ):
        with source.engine.connect() as read, target.engine.begin() as write:
            copy_rows(read, write, {}, change, nothing)
        with target.engine.connect() as connection:
            found += connection.scalars(select(column))
    assert found == [
        "$VISIONLOOP_HOME/datasets/shapes/data.yaml",
        str(own / "datasets" / "shapes" / "data.yaml"),
    ]


def test_a_new_database_holds_nothing_and_another_says_what(
    home: Furnished, opened: Callable[[str | None], Database]
) -> None:
    with opened(None).engine.connect() as connection:
        assert used(connection) == []
    with home.database.engine.connect() as connection:
        assert {"jobs", "models", "evaluations"} <= set(used(connection))


def test_every_table_is_copied_or_left_out_on_purpose(
    opened: Callable[[str | None], Database],
) -> None:
    names = {table.name for table in tables()}
    assert names | LEFT_OUT >= set(METADATA.tables)
    with opened(None).engine.connect() as connection:
        made = set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
        keys = set(connection.scalars(select(METADATA.tables["state"].c.key)))
    assert made - {"sqlite_sequence"} == set(METADATA.tables) | {"alembic_version"}
    assert keys == OWN
