"""Copies the rows of all tables from one database into another, whatever kind either is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
)

from jobs.finalizer import LEADER
from migrations.tables import METADATA
from monitoring.last_backup import BACKUP
from storage.agreement import STORE
from upkeep.relocation import moved_value

LEFT_OUT = frozenset({"shared_datasets", "job_logs"})
"""Tables of a cluster only: what a home has in files. The kinds of trees fill them."""
RECORDS = frozenset({"audit"})
"""Records of the past, whose paths stay what they were; no database lets them be changed."""
MARKER = "migration"  # key in the table `state`
NOT_COPIED = frozenset({MARKER, STORE, LEADER, BACKUP})
"""Keys of rows of `state` that are about the one database, or the one home."""
OWN = frozenset({"schema", "generation"})  # rows of `state` that a new database has
BLOCK = 500  # rows that are in memory at once


def tables() -> list[Table]:
    """The tables whose rows are copied; those that others refer to come first."""
    return [table for table in METADATA.sorted_tables if table.name not in LEFT_OUT]


def counts(connection: Connection) -> dict[str, int]:
    """The number of rows of each table that is copied."""
    return {table.name: _count(connection, table) for table in tables()}


def used(connection: Connection) -> list[str]:
    """The tables of a database that hold rows which a new one does not have, of the store, too."""
    others = METADATA.tables["state"].c.key.not_in([*OWN, MARKER])
    return [
        table.name
        for table in METADATA.sorted_tables
        if _count(connection, table, *([others] if table.name == "state" else []))
    ]


def _count(connection: Connection, table: Table, *where: ColumnElement[bool]) -> int:
    """The number of rows; 0 if the database is of a version that lacks the table."""
    if not inspect(connection).has_table(table.name):
        return 0
    query = select(func.count()).select_from(table).where(*where)
    if table.name == "state":
        query = query.where(table.c.key.not_in(NOT_COPIED))
    return int(connection.scalar(query) or 0)


def copy_rows(
    source: Connection,
    target: Connection,
    folders: Mapping[str, str],
    recipes: Callable[[Mapping[str, Any]], dict[str, Any]],
    progress: Callable[[int], object],
) -> dict[str, int]:
    """Copy every row, and continue each sequence where the source's stands.

    Args:
        source: In a transaction that sees one moment.
        target: In a write transaction; its tables are empty.
        folders: Old folder → new folder, in paths that rows hold.
        recipes: What becomes of a job's recipe, and of an evaluation's path: any machine can read
            them.
        progress: Called with numbers of rows.

    Returns:
        The number of rows of each table.
    """
    state = METADATA.tables["state"]
    target.execute(delete(state).where(state.c.key.not_in(NOT_COPIED)))
    found = {}
    for table in tables():
        moved = {} if table.name in RECORDS else folders
        number = 0
        for block in _blocks(source, table):
            for row in block:
                if table.name == "jobs":
                    row["recipe"] = recipes(row["recipe"])
                elif table.name == "evaluations":
                    row["dataset_path"] = recipes({"path": row["dataset_path"]})["path"]
                row.update({name: moved_value(value, moved) for name, value in row.items()})
            target.execute(insert(table), block)
            number += len(block)
            progress(len(block))
        found[table.name] = number
        if (column := table.autoincrement_column) is not None:
            _continue(source, target, table, column)
    return found


def _blocks(source: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    query = select(table).order_by(*table.primary_key.columns)
    if table.name == "state":
        query = query.where(table.c.key.not_in(NOT_COPIED))
    with source.execution_options(yield_per=BLOCK).execute(query) as result:
        for block in result.mappings().partitions():
            yield [dict(row) for row in block]


def _continue(source: Connection, target: Connection, table: Table, column: Column[Any]) -> None:
    """Have the target number new rows after every number that the source has given, as those of
    deleted rows are not given again."""
    last = max(_last(source, table, column), int(target.scalar(select(func.max(column))) or 0))
    if not last:
        return
    if target.dialect.name == "postgresql":
        sequence = {"table": table.name, "column": column.name, "last": last}
        query = "SELECT setval(pg_get_serial_sequence(:table, :column), :last)"
        target.execute(text(query), sequence)
    elif _counts_on(target):
        known = {"name": table.name, "last": last}
        target.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), known)
        query = "INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"
        target.execute(text(query), known)


def _last(connection: Connection, table: Table, column: Column[Any]) -> int:
    """The last number that a database has given to a row of a table, or more."""
    known = {"table": table.name, "column": column.name}
    if connection.dialect.name == "postgresql":
        name = connection.scalar(text("SELECT pg_get_serial_sequence(:table, :column)"), known)
        value = connection.scalar(text(f"SELECT last_value FROM {name}")) if name else 0  # noqa: S608
        return int(value or 0)
    if not _counts_on(connection):
        return 0
    query = text("SELECT seq FROM sqlite_sequence WHERE name = :table")
    return int(connection.scalar(query, known) or 0)


def _counts_on(connection: Connection) -> bool:
    """Whether a SQLite database has a table of the numbers given (AUTOINCREMENT)."""
    query = text("SELECT COUNT(*) FROM sqlite_master WHERE name = 'sqlite_sequence'")
    return bool(connection.scalar(query))
