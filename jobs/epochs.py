"""The history of a job's epochs: losses and metrics of each, kept beside the table of jobs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Float, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from database import Base, now


class EpochRow(Base):
    """One completed epoch of a job. An epoch that is trained again replaces its row."""

    __tablename__ = "job_epochs"

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True)  # from 1
    seconds: Mapped[float | None] = mapped_column(Float)  # None: it was resumed within
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    at: Mapped[str] = mapped_column(String(40), default=now)

    def to_json(self) -> dict[str, Any]:
        """The epoch in the form of `GET /jobs/{job_id}/metrics/history`."""
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "metrics": self.metrics,
            "at": self.at,
        }
