"""What the models see in live traffic: counted by model and hour, kept for two weeks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Integer, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from database import Base, Database
from monitoring.prediction_counts import PredictionCounts

KEPT_HOURS = 14 * 24


class LiveHour(Base):
    """A model's counts of one hour (UTC)."""

    __tablename__ = "live_quality"

    model: Mapped[str] = mapped_column(String(127), primary_key=True)  # name:version
    hour: Mapped[str] = mapped_column(String(13), primary_key=True, index=True)  # 2026-11-21T10
    images: Mapped[int] = mapped_column(Integer, default=0)
    empty: Mapped[int] = mapped_column(Integer, default=0)
    counts: Mapped[dict[str, Any]]  # confidence: per bin; classes: per class id


def this_hour() -> str:
    return hour_of(datetime.now(UTC))


def hour_of(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H")


class LiveStore:
    """Adds up counts in the database; all methods wait for it. Several processes may add."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, tallies: Mapping[tuple[str, str], PredictionCounts]) -> None:
        """Add counts by model id and hour; hours older than two weeks go."""
        oldest = hour_of(datetime.now(UTC) - timedelta(hours=KEPT_HOURS))
        with self.database.write() as session:
            for (model, hour), tally in sorted(tallies.items()):
                row = session.get(LiveHour, (model, hour), with_for_update=True)
                if row is None:
                    row = LiveHour(model=model, hour=hour, images=0, empty=0, counts={})
                    session.add(row)
                else:
                    tally = _sum([_tally(row), tally])
                row.images, row.empty = tally.images, tally.empty
                row.counts = {
                    "confidence": tally.confidence.tolist(),
                    "classes": tally.classes.tolist(),
                }
            session.execute(delete(LiveHour).where(LiveHour.hour < oldest))

    def hours(self, model: str, hours: int) -> dict[str, PredictionCounts]:
        """A model's counts by hour, the oldest first; this hour and those before it."""
        with self.database.read() as session:
            rows = session.scalars(
                select(LiveHour)
                .where(LiveHour.model == model, LiveHour.hour > _before(hours))
                .order_by(LiveHour.hour)
            )
            return {row.hour: _tally(row) for row in rows}

    def totals(self, hours: int) -> dict[str, PredictionCounts]:
        """The counts of every model that had traffic."""
        found: dict[str, list[PredictionCounts]] = {}
        with self.database.read() as session:
            for row in session.scalars(select(LiveHour).where(LiveHour.hour > _before(hours))):
                found.setdefault(row.model, []).append(_tally(row))
        return {model: _sum(tallies) for model, tallies in found.items()}


def total(tallies: Iterable[PredictionCounts], classes: int) -> PredictionCounts:
    """The sum, of a model with so many classes."""
    return _sum([PredictionCounts(np.zeros(classes, np.int64)), *tallies])


def _before(hours: int) -> str:
    return hour_of(datetime.now(UTC) - timedelta(hours=hours))


def _sum(tallies: list[PredictionCounts]) -> PredictionCounts:
    found = PredictionCounts(np.zeros_like(tallies[0].classes))
    for tally in tallies:
        found.add(tally)
    return found


def _tally(row: LiveHour) -> PredictionCounts:
    return PredictionCounts(
        np.array(row.counts["classes"], np.int64),
        row.images,
        row.empty,
        np.array(row.counts["confidence"], np.int64),
    )
