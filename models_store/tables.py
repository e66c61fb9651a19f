"""Database tables of the registry: versions, promotions, events, and the change counter.

The names of tables and columns are stored data; migrations refer to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import JSON, BigInteger, Integer, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import CHANGED, Base, State, now


class PublishedModel(Base):
    """A published model version. A folder in the store without a row is not visible."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[str] = mapped_column(String(63), primary_key=True)
    created_at: Mapped[str] = mapped_column(String(40))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    description: Mapped[str] = mapped_column(Text)  # ModelDescription as JSON
    source: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    content: Mapped[str] = mapped_column(String(64))  # hash of description and weights


class Promotion(Base):
    """The promoted version of a model name."""

    __tablename__ = "promotions"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[str] = mapped_column(String(63))
    promoted_at: Mapped[str] = mapped_column(String(40), default=now)


ModelEventKind = Literal["trained", "imported", "activated", "deleted", "drift", "engine"]


class ModelEvent(Base):
    """Something that happened to a model version, besides the decisions on its promotion.

    Rows are never changed, and stay when the version is deleted.
    """

    __tablename__ = "model_events"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), index=True)
    version: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(20))  # a ModelEventKind
    by: Mapped[str | None] = mapped_column(String(80))  # None: a job or the service itself
    job_id: Mapped[str | None] = mapped_column(String(32))
    details: Mapped[dict[str, Any]]  # what the kind needs
    at: Mapped[str] = mapped_column(String(40), default=now)

    @property
    def model_id(self) -> str:
        return f"{self.name}:{self.version}"


def record_event(
    session: Session,
    kind: ModelEventKind,
    model: tuple[str, str],
    details: Mapping[str, Any] | None = None,
    by: str | None = None,
    job_id: str | None = None,
) -> None:
    """Add an event of a version, given as name and version."""
    name, version = model
    session.add(
        ModelEvent(
            name=name,
            version=version,
            kind=kind,
            by=by[:80] if by else None,
            job_id=job_id,
            details=dict(details or {}),
        )
    )


def generation(session: Session) -> int:
    """The registry's change counter: every change of models or promotions increments it."""
    number = session.scalar(select(State.number).where(State.key == "generation"))
    return number or 0


def raise_generation(session: Session) -> None:
    """Increment the change counter, so that other processes reload their snapshot."""
    session.info[CHANGED] = True
    row = session.get(State, "generation", with_for_update=True)
    if row is None:
        session.add(State(key="generation", number=1))
    else:
        row.number += 1
