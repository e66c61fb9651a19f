"""Hourly prediction counts of the models in live traffic, kept for two weeks."""

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
    """Prediction counts of one model in one hour (UTC)."""

    __tablename__ = "live_quality"

    model: Mapped[str] = mapped_column(String(127), primary_key=True)  # name:version
    hour: Mapped[str] = mapped_column(String(13), primary_key=True, index=True)  # 2026-11-21T10
    images: Mapped[int] = mapped_column(Integer, default=0)
    empty: Mapped[int] = mapped_column(Integer, default=0)
    counts: Mapped[dict[str, Any]]  # keys: confidence (per bin), classes (per class id)


def this_hour() -> str:
    """The key of the current hour."""
    return hour_of(datetime.now(UTC))


def hour_of(moment: datetime) -> str:
    """The key of the hour that contains `moment`, such as `2026-11-21T10`."""
    return moment.strftime("%Y-%m-%dT%H")


class LiveStore:
    """Stores prediction counts in the database; blocking. Safe to share between processes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, new: Mapping[tuple[str, str], PredictionCounts]) -> None:
        """Add counts by (model id, hour); delete hours older than two weeks."""
        oldest = hour_of(datetime.now(UTC) - timedelta(hours=KEPT_HOURS))
        with self.database.write() as session:
            for (model, hour), counts in sorted(new.items()):
                row = session.get(LiveHour, (model, hour), with_for_update=True)
                if row is None:
                    row = LiveHour(model=model, hour=hour, images=0, empty=0, counts={})
                    session.add(row)
                else:
                    counts = _sum([_counts(row), counts])
                row.images, row.empty = counts.images, counts.empty
                row.counts = {
                    "confidence": counts.confidence.tolist(),
                    "classes": counts.classes.tolist(),
                }
            session.execute(delete(LiveHour).where(LiveHour.hour < oldest))

    def hours(self, model: str, hours: int) -> dict[str, PredictionCounts]:
        """A model's counts of the last `hours` hours, this one included, the oldest first."""
        with self.database.read() as session:
            rows = session.scalars(
                select(LiveHour)
                .where(LiveHour.model == model, LiveHour.hour > _before(hours))
                .order_by(LiveHour.hour)
            )
            return {row.hour: _counts(row) for row in rows}

    def totals(self, hours: int) -> dict[str, PredictionCounts]:
        """The summed counts of the last `hours` hours, by model; only models that had traffic."""
        found: dict[str, list[PredictionCounts]] = {}
        with self.database.read() as session:
            for row in session.scalars(select(LiveHour).where(LiveHour.hour > _before(hours))):
                found.setdefault(row.model, []).append(_counts(row))
        return {model: _sum(counts) for model, counts in found.items()}


def total(counts: Iterable[PredictionCounts], classes: int) -> PredictionCounts:
    """The sum of the counts of a model with `classes` classes; zeros if there are none."""
    return _sum([PredictionCounts(np.zeros(classes, np.int64)), *counts])


def _before(hours: int) -> str:
    return hour_of(datetime.now(UTC) - timedelta(hours=hours))


def _sum(counts: list[PredictionCounts]) -> PredictionCounts:
    found = PredictionCounts(np.zeros_like(counts[0].classes))
    for one in counts:
        found.add(one)
    return found


def _counts(row: LiveHour) -> PredictionCounts:
    return PredictionCounts(
        np.array(row.counts["classes"], np.int64),
        row.images,
        row.empty,
        np.array(row.counts["confidence"], np.int64),
    )
