"""Each home of the tests gets a database of its own on PostgreSQL: TEST_DATABASE=postgres.

The tests themselves do not change: `Settings` without a URL then name a database by the path of
their home, in this process and, by `sitecustomize.py` on PYTHONPATH, in those that it starts.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from settings import Settings

CHOICE = "TEST_DATABASE"
"""Environment variable; `postgres` runs the tests on PostgreSQL."""

SERVER = "TEST_POSTGRES"
"""Environment variable that we set: the URL of the server, without the name of a database."""

MIGRATED = "migrated"  # the database that new ones are copies of
_known: set[str] = set()  # names of databases that exist


def chosen() -> bool:
    """Whether the tests are to run on PostgreSQL."""
    return os.environ.get(CHOICE) == "postgres"


def database_of(home: Path) -> str:
    """The name of the database of a home."""
    return "home_" + hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:24]


def prepare(server_url: str) -> None:
    """Let homes have databases on a server, in this process and its children."""
    import settings

    os.environ[SERVER] = server_url
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    _migrate(server_url)
    patch(settings.Settings)


def patch(cls: type[Settings]) -> None:
    """Let settings without a URL name the database of their home, which is made when asked for."""
    original: Any = cls.sqlalchemy_url
    assert isinstance(original, property)

    def url(self: Settings) -> URL:
        from sqlalchemy.engine import make_url

        if "database_url" in self.model_fields_set:  # a test chose: a URL, or none
            return original.fget(self)  # type: ignore[misc]
        name = database_of(self.home)
        if name not in _known:
            create(name, MIGRATED, self.home)
            _known.add(name)
        return make_url(os.environ[SERVER] + name)

    cls.sqlalchemy_url = property(url)  # type: ignore[assignment, method-assign]


def copy(source: Path, target: Path) -> None:
    """Give a home a copy of another one's database, which nobody uses at the moment."""
    if chosen():
        create(database_of(target), database_of(source), target)


def create(name: str, template: str, home: Path) -> None:
    """Create the database of a home, unless it exists."""
    from psycopg.sql import SQL, Identifier, Literal

    with _connection() as connection:
        connection.execute("SELECT pg_advisory_lock(1)")  # a template serves one at a time
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if found.fetchone() is None:
            made, copied = Identifier(name), Identifier(template)
            connection.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(made, copied))
            where = Literal(str(home).encode("unicode_escape").decode())
            connection.execute(SQL("COMMENT ON DATABASE {} IS {}").format(made, where))


def drop_below(folder: Path) -> None:
    """Delete the databases of the homes in a folder, which a test has left."""
    from psycopg.sql import SQL, Identifier

    inside = str(folder).encode("unicode_escape").decode()
    query = (
        "SELECT datname FROM pg_database JOIN pg_shdescription ON objoid = pg_database.oid "
        "WHERE description = %s OR starts_with(description, %s::text)"
    )
    with _connection() as connection:
        for (name,) in connection.execute(query, (inside, inside + os.sep)).fetchall():
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            _known.discard(name)


def _migrate(server_url: str) -> None:
    from database import Database
    from settings import Settings

    with _connection() as connection:
        connection.execute(f"CREATE DATABASE {MIGRATED} TEMPLATE template0")
    with tempfile.TemporaryDirectory() as home:
        Database(Settings(home=Path(home), database_url=server_url + MIGRATED)).close()


def _connection() -> Any:
    import psycopg

    address = os.environ[SERVER].replace("+psycopg", "") + "postgres"
    return psycopg.connect(address, autocommit=True)
