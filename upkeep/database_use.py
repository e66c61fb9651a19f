"""A database as it is: which programs use it, and what its tables hold before any migration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from database import client_errors
from settings import Settings

OTHERS = """SELECT COALESCE(NULLIF(application_name, ''), 'a program') || ' on '
  || COALESCE(client_addr::text, 'the server''s own host')
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def others(settings: Settings) -> list[str]:
    """The programs that use a Postgres database now."""
    with client_errors(), connection_to(settings) as connection:
        return list(connection.scalars(text(OTHERS)))


@contextmanager
def connection_to(settings: Settings) -> Iterator[Connection]:
    """A connection to a database as it is: its tables are not migrated."""
    engine = create_engine(settings.sqlalchemy_url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def named(settings: Settings) -> str:
    """A database's URL without its password."""
    return settings.sqlalchemy_url.render_as_string(hide_password=True)
