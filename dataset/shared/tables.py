"""The table of datasets that several machines share: one row a dataset."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from database import Base, now


class SharedDataset(Base):
    """A dataset in the object store. It exists as long as its row does.

    `number` counts the changes of its content: a copy with a lower one is outdated.
    """

    __tablename__ = "shared_datasets"

    id: Mapped[str] = mapped_column(String(61), primary_key=True)
    number: Mapped[int] = mapped_column(Integer)
    card: Mapped[dict[str, Any]]  # the content of its dataset.json
    first_card: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    revisions: Mapped[list[Any]] = mapped_column(JSON)  # their summaries, the newest first
    parts: Mapped[list[Any]] = mapped_column(JSON)  # `parts.Part` as lists, in order
    updated_at: Mapped[str] = mapped_column(String(40), default=now)
