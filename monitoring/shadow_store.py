"""Table of shadow deployments: candidate models that get a copy of live traffic.

At most one runs at a time: the one in the newest row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy import Float, Integer, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import Base, Database, now
from errors import NotFound

Ending = Literal["stopped", "replaced", "deleted", "activated", "promoted"]


class ShadowRow(Base):
    """One shadow deployment of a candidate. Rows that the store returns are detached copies."""

    __tablename__ = "shadows"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    model_id: Mapped[str] = mapped_column(String(127))  # name:version
    against: Mapped[str | None] = mapped_column(String(127))  # traffic to copy; None: any
    fraction: Mapped[float] = mapped_column(Float)
    promoted: Mapped[bool]  # whether the candidate was already promoted at the start
    started_at: Mapped[str] = mapped_column(String(40), default=now)
    ended_at: Mapped[str | None] = mapped_column(String(40))
    ended_because: Mapped[str | None] = mapped_column(String(20))
    figures: Mapped[dict[str, Any]]  # counts of ShadowStats


class ShadowStore:
    """Reads and writes shadow deployments; thread- and process-safe, blocking."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def newest(self) -> ShadowRow | None:
        """The running shadow, else the one that ended last."""
        with self.database.read() as session:
            return _newest(session)

    def begin(
        self, model_id: str, against: str | None, fraction: float, promoted: bool
    ) -> ShadowRow:
        """Start a shadow; a running one ends as `replaced`.

        Args:
            model_id: The candidate, `name:version`.
            against: The model whose traffic is copied, `name` or `name:version`; None: any of
                the candidate's type.
            fraction: Share of the requests that are copied, from 0 to 1.
            promoted: Whether the candidate is promoted already.
        """
        with self.database.write() as session:
            _end(_newest(session), "replaced")
            row = ShadowRow(
                model_id=model_id,
                against=against,
                fraction=fraction,
                promoted=promoted,
                figures={},
            )
            session.add(row)
            return row

    def end(self, number: int, because: Ending) -> ShadowRow:
        """End a shadow; one that has already ended is unchanged.

        Raises:
            NotFound: No shadow has this number.
        """
        with self.database.write() as session:
            row = session.get(ShadowRow, number, with_for_update=True)
            if row is None:
                raise NotFound(
                    f"No shadow has the number {number}. GET /models/shadow shows the newest."
                )
            _end(row, because)
            return row

    def add(self, number: int, merged: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Replace a shadow's counts by `merged(counts)`, in one transaction."""
        with self.database.write() as session:
            row = session.get(ShadowRow, number, with_for_update=True)
            if row is not None:
                row.figures = merged(row.figures)


def _newest(session: Session) -> ShadowRow | None:
    return session.scalar(select(ShadowRow).order_by(ShadowRow.number.desc()).limit(1))


def _end(row: ShadowRow | None, because: Ending) -> None:
    if row is not None and row.ended_at is None:
        row.ended_at, row.ended_because = now(), because
