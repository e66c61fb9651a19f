"""Old databases on PostgreSQL: each migration, one at a time, does what it does on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, Table

from database import HEAD, Database, alembic_config, known_revisions
from evaluation.store import EvaluationStore
from jobs.store import JobStore
from migrations.tables import METADATA
from models_store.registry import Registry
from settings import Settings

OLD = Path(__file__).parents[1] / "schema_2.sql"  # rows of the version before Alembic
TEXT = "é1"  # in columns of text that are empty
STEPS = list(reversed(known_revisions()))

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def engines(tmp_path: Path, new_postgres: Callable[[], str]) -> Iterator[tuple[Engine, Engine]]:
    """The same old rows on SQLite and on PostgreSQL, both with the first revision."""
    file = tmp_path / "visionloop.db"
    with sqlite3.connect(file) as connection:
        connection.executescript(OLD.read_text())
    connection.close()
    made = sa.create_engine(f"sqlite:///{file}"), sa.create_engine(new_postgres())
    for engine in made:
        migrate(engine, STEPS[0])
    with made[0].connect() as old, made[1].begin() as new:
        rows = rows_of(old)
        for table in tables_of(new):
            if rows[table.name]:
                new.execute(table.insert(), rows[table.name])
        restart_numbers(new)
    yield made
    for engine in made:
        engine.dispose()


def restart_numbers(connection: Connection) -> None:
    """Let the numbers that PostgreSQL gives begin after those of the rows."""
    for table in tables_of(connection):
        for column in table.primary_key:
            name = connection.scalar(
                sa.text("SELECT pg_get_serial_sequence(:table, :column)"),
                {"table": table.name, "column": column.name},
            )
            if name:
                connection.execute(
                    sa.text("SELECT setval(CAST(:name AS regclass), :number)"),
                    {"name": name, "number": 1000},
                )


def migrate(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), revision)


def tables_of(connection: Connection) -> list[Table]:
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def rows_of(connection: Connection) -> Rows:
    """The rows of each table, in the order of their keys."""
    found: Rows = {}
    for table in tables_of(connection):
        rows = connection.execute(sa.select(table)).mappings()
        keys = [column.name for column in table.primary_key]
        plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
        found[table.name] = sorted(plain, key=partial(_key, keys))
    return found


def _key(names: list[str], row: dict[str, Any]) -> list[str]:
    return [str(row[name]) for name in names]


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def value_of(column: sa.Column[Any], parents: dict[str, Any]) -> Any:
    """Something to put into a column of a new table."""
    for key in column.foreign_keys:
        return parents[key.target_fullname]
    kind = column.type
    if isinstance(kind, sa.JSON):
        return {"a": [1, TEXT]}
    if isinstance(kind, sa.Boolean):
        return True
    if isinstance(kind, sa.Integer):
        return 7
    if isinstance(kind, sa.Float):
        return 1.5
    if isinstance(kind, sa.LargeBinary):
        return b"\0\xff"
    return TEXT


def fill_empty_tables(engines: tuple[Engine, Engine]) -> None:
    """Give each table without rows one, the same on both databases."""
    with engines[0].begin() as old, engines[1].begin() as new:
        rows, parents = rows_of(old), dict[str, Any]()
        written = {table.name: table for table in tables_of(old)}
        for table in tables_of(new):  # those that are referred to come first
            if not rows[table.name]:
                row = {column.name: value_of(column, parents) for column in table.columns}
                new.execute(table.insert(), row)
                old.execute(written[table.name].insert(), row)
                rows[table.name] = [row]
            parents |= {f"{table.name}.{k}": v for k, v in rows[table.name][0].items()}


def test_each_migration_keeps_and_changes_the_rows_that_it_does_on_sqlite(
    engines: tuple[Engine, Engine], tmp_path: Path
) -> None:
    assert STEPS[-1] == HEAD
    fill_empty_tables(engines)
    for step in STEPS[1:]:
        for engine in engines:
            migrate(engine, step)
        with engines[0].connect() as old, engines[1].connect() as new:
            assert rows_of(new) == rows_of(old), step
        fill_empty_tables(engines)
    with engines[1].connect() as connection:
        assert all(rows_of(connection)[name] for name in METADATA.tables)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    url = engines[1].url.render_as_string(hide_password=False)
    database = Database(Settings(home=tmp_path / "home", database_url=url))
    jobs, registry = JobStore(database), Registry(database)
    assert {job.status for job in jobs.list()} == {"completed", "stopped"}
    trained = next(job for job in jobs.list() if job.status == "completed")
    assert trained.model_id in [version.id for version in registry.list()]
    assert EvaluationStore(database).of_job(trained.id, trained.model_id or "") is not None
    assert jobs.create("training", config={}, recipe={}).number > trained.number
    database.close()
