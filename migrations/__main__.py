"""`python -m migrations TEXT`: generates the next migration."""

from __future__ import annotations

import tempfile
from pathlib import Path

from alembic import command

from database import Database, alembic_config
from migrations.tables import METADATA
from settings import Settings
from shell import Parser


def main() -> None:
    parser = Parser(prog="python -m migrations", description=__doc__)
    parser.add_argument("text", help="short description of the change")
    text = parser.parse_args().text
    with tempfile.TemporaryDirectory() as home:
        database = Database(Settings(home=Path(home), database_url=None))
        with database.engine.connect() as connection:
            config = alembic_config(connection)
            config.attributes["metadata"] = METADATA
            number = 1 + max(
                int(path.name[:4]) for path in (Path(__file__).parent / "versions").glob("[0-9]*")
            )
            command.revision(config, text, autogenerate=True, rev_id=f"{number:04}")
        database.close()
    print(f"Review the new file, then set HEAD = '{number:04}' in the database module.")


if __name__ == "__main__":
    main()
