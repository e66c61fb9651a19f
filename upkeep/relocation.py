"""Rewrites the folders in a restored database: its paths begin with the folders of its origin."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, inspect, text


def relocate(connection: Connection, folders: Mapping[str, str]) -> int:
    """Replace folders at the beginning of every path in a SQLite database.

    Texts that are a path and strings in JSON values are rewritten; sentences are not.

    Args:
        connection: In a write transaction.
        folders: Old folder → new folder.

    Returns:
        The number of values that were changed.
    """
    moved = {old: new for old, new in folders.items() if old != new and len(old) > 1}
    if not moved:
        return 0
    changed = 0
    inspector = inspect(connection)
    quote = connection.dialect.identifier_preparer.quote
    triggers = text("SELECT tbl_name FROM sqlite_master WHERE type = 'trigger'")
    unchangeable = set(connection.scalars(triggers))  # records of the past, such as the audit trail
    for table in inspector.get_table_names():
        if table in unchangeable:
            continue
        for column in inspector.get_columns(table):
            name, place = quote(column["name"]), quote(table)
            # The names come from the database's own catalogue, and are quoted.
            query = f"SELECT rowid, {name} FROM {place} WHERE typeof({name}) = 'text'"  # noqa: S608
            found = list(connection.execute(text(query)))
            for rowid, value in found:
                new = _rewritten(value, moved)
                if new != value:
                    changed += 1
                    update = f"UPDATE {place} SET {name} = :new WHERE rowid = :rowid"  # noqa: S608
                    connection.execute(text(update), {"new": new, "rowid": rowid})
    return changed


def moved_value(value: Any, folders: Mapping[str, str]) -> Any:
    """A column's value, which may be JSON, with the folders at the beginning of its paths
    replaced."""
    if not folders:
        return value
    return _rewritten(value, folders) if isinstance(value, str) else _walked(value, folders)


def _rewritten(value: str, folders: Mapping[str, str]) -> str:
    if value[:1] == "/":
        return _moved(value, folders)
    if value[:1] in ("{", "[", '"') and any(_escaped(old) in value for old in folders):
        try:
            parsed = json.loads(value)
        except ValueError:
            return value
        new = _walked(parsed, folders)
        return value if new == parsed else json.dumps(new)
    return value


def _walked(value: Any, folders: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _walked(part, folders) for key, part in value.items()}
    if isinstance(value, list):
        return [_walked(part, folders) for part in value]
    return _moved(value, folders) if isinstance(value, str) and value[:1] == "/" else value


def _moved(path: str, folders: Mapping[str, str]) -> str:
    """The path with the longest of the folders that it lies in replaced."""
    for old in sorted(folders, key=len, reverse=True):
        if path == old or path.startswith(f"{old}/"):
            return folders[old] + path[len(old) :]
    return path


def _escaped(folder: str) -> str:
    """A folder as it stands in JSON."""
    return re.sub(r'^"|"$', "", json.dumps(folder))
