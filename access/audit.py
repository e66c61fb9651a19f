"""The audit trail: who changed what, and who was refused.

Rows are added and, when they are older than VISIONLOOP_AUDIT_DAYS, deleted; nothing changes one.
The reasons of promotions are in the decision log of the registry, which entries refer to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, or_, select

from access.entry import Entry, without_secrets
from access.tables import LONGEST_WHAT, AuditEntry
from database import Database

DECIDING = re.compile(r".*/promote|.*/rollback|/models/import|/models/\{model_id\}")
LISTED = 100  # entries of a page, unless another number is asked for
MOST_LISTED = 1000
LARGEST = 2**63 - 1  # number of an entry; databases take no larger one


class AuditLog:
    """The table of the audit trail; safe to use from several threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries, in one transaction."""
        with self.database.write() as session:
            session.add_all(AuditEntry(**_bounded(entry)) for entry in entries)

    def list(
        self,
        who: str = "",
        what: str = "",
        since: str = "",
        limit: int = LISTED,
        before: int | None = None,
    ) -> list[AuditEntry]:
        """Entries, the newest first.

        Args:
            who: Only those of this name, whatever its case.
            what: Only those whose route, target, description or request id has this text, whatever
                its case.
            since: Only those from this time on.
            limit: Maximum number of entries.
            before: Only those with a smaller number.
        """
        query = select(AuditEntry).order_by(AuditEntry.number.desc()).limit(limit)
        if who:
            query = query.where(func.lower(AuditEntry.who) == who.lower())
        if what:
            fields = (AuditEntry.route, AuditEntry.target, AuditEntry.what, AuditEntry.request_id)
            query = query.where(
                or_(*(column.icontains(what, autoescape=True) for column in fields))
            )
        if since:
            query = query.where(AuditEntry.at >= since)
        if before is not None:
            query = query.where(AuditEntry.number < before)
        with self.database.read() as session:
            return list(session.scalars(query))

    def prune(self, days: int) -> int:
        """Delete entries older than `days`; 0: none. Returns their number."""
        if not days:
            return 0
        oldest = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")
        with self.database.write() as session:
            done = session.execute(delete(AuditEntry).where(AuditEntry.at < oldest))
            return cast("CursorResult[Any]", done).rowcount


def to_json(entry: AuditEntry) -> dict[str, Any]:
    """An entry in responses and listings."""
    names = ("number", "at", "who", "address", "request_id", "method", "route", "target", "status")
    shown = {name: getattr(entry, name) for name in (*names, "what")}
    decided = entry.target is not None and (entry.status or 200) < 400 and _decides(entry.route)
    name = (entry.target or "").partition(":")[0]
    return shown | {"decisions": f"/models/{name}/decisions" if decided else None}


def _decides(route: str) -> bool:
    """Whether a route or command writes to the decision log as well."""
    if route.startswith("models_store "):
        return route.split()[1] in ("promote", "rollback", "delete", "import", "import-archive")
    return DECIDING.fullmatch(route) is not None


def _bounded(entry: Entry) -> dict[str, Any]:
    """The columns of an entry, cut to their lengths, without tokens and control characters."""
    lengths = {"who": 80, "address": 80, "request_id": 200, "method": 10, "what": LONGEST_WHAT}
    values = asdict(entry)
    for name, value in values.items():
        if isinstance(value, str):
            text = without_secrets(value).encode("utf-8", "backslashreplace").decode()
            printable = "".join(c if c.isprintable() else "\ufffd" for c in text)
            values[name] = printable[: lengths.get(name, 200)]
    return values
