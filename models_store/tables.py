"""Database tables of the registry: published versions, promotions, and the change counter.

The names of tables and columns are stored data; migrations refer to them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, String, Text, select
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
