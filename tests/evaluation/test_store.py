"""The store of evaluations."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from database import BLOCK, Database
from evaluation.store import EvaluationRow, EvaluationStore
from settings import Settings

MANY = 2 * BLOCK + 1


def row(number: int) -> EvaluationRow:
    return EvaluationRow(
        id=f"{number:032x}",
        name="signs",
        version="1",
        dataset="shapes",
        dataset_path="/data/shapes",
        fingerprint="0" * 64,
        split="val",
        letterbox=None,
        figures={},
        job_id=None,
    )


@pytest.mark.sqlite
def test_more_are_deleted_than_a_statement_of_the_database_takes(tmp_path: Path) -> None:
    """SQLite takes 32,766 values, or as many as its builder chose."""
    store = EvaluationStore(Database(Settings(home=tmp_path, disk_reserve=0)))
    with store.database.write() as session:
        session.add_all(map(row, range(MANY)))
    with store.database.engine.connect() as connection:  # the pool gives it to the next ones, too
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, BLOCK)
    assert store.delete_for("signs:1") == MANY
    assert store.history("signs:1") == []
    store.database.close()
