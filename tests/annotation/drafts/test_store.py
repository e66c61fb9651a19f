"""The store of drafts, with more of them than a statement of a database may name."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from annotation.draft_tables import Claim, Draft
from annotation.drafts.store import DraftStore
from database import Database
from settings import Settings

MANY = 1100


@pytest.mark.sqlite
def test_very_many_drafts_of_a_person_are_taken_over_and_discarded(tmp_path: Path) -> None:
    database = Database(Settings(home=tmp_path))

    def limit(connection: Any, *_: Any) -> None:  # as old builds of SQLite have it
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    contents = [f"{number:064x}" for number in range(MANY)]
    with database.write() as session:
        for one in contents:
            values = {"version": "1", "state": "draft", "base": "", "objects": []}
            session.add(Draft(dataset_id="d", content=one, author="bob", **values))
            session.add(Claim(content=one, author="bob", until="2999"))
    event.listen(database.engine, "checkout", limit)
    store = DraftStore(database)
    assert store.take_over("d", "bob", "alice").taken == contents
    assert store.discard_of("d", "alice") == contents
    with database.read() as session:
        assert session.query(Draft).count() == session.query(Claim).count() == 0
    database.close()
