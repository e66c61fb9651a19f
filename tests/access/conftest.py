from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from access.audit import AuditLog
from access.tokens import TokenStore
from database import Database
from settings import Settings


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(Settings(home=tmp_path / "home"), patience=0.1)
    yield database
    database.close()


@pytest.fixture
def tokens(database: Database) -> TokenStore:
    return TokenStore(database)


@pytest.fixture
def trail(database: Database) -> AuditLog:
    return AuditLog(database)
