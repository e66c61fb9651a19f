from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.support import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    """A server for the tests of this process that are about PostgreSQL."""
    if postgres.programs() is None:
        pytest.skip(f"NOT TESTED: {postgres.MISSING}")
    with postgres.running() as server:
        yield server


@pytest.fixture
def new_postgres(postgres_server: postgres.Postgres) -> Iterator[Callable[[], str]]:
    """Makes empty databases; each call returns the URL of another one."""
    made: list[str] = []

    def create() -> str:
        made.append(f"test_{uuid.uuid4().hex}")
        return postgres_server.create(made[-1])

    yield create
    for name in made:
        postgres_server.drop(name)
