"""What models said of pictures that people annotate, so that corrections can be compared."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import ForeignKey, Integer, String, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import Base, Database, now
from formats.annotations import Annotations

LONGEST_NAME = 200
DAYS = 90  # that an answer is kept; with a person's word it stays for good
SWEEP = 3600.0  # seconds between looks for older ones


class AnnotatedImage(Base):
    """A picture, known by its content: the same file is the same row."""

    __tablename__ = "annotated_images"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    content: Mapped[str] = mapped_column(String(64), unique=True)  # SHA-256 of the file
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    width: Mapped[int]
    height: Mapped[int]
    created_at: Mapped[str] = mapped_column(String(40), default=now)


class PrelabelRow(Base):
    """The newest answer per picture and tool."""

    __tablename__ = "prelabels"

    image_id: Mapped[int] = mapped_column(
        ForeignKey("annotated_images.id", ondelete="CASCADE"), primary_key=True
    )
    tool: Mapped[str] = mapped_column(String(40), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(130))
    confidence: Mapped[float | None]  # the threshold; None: the model's default
    annotations: Mapped[dict[str, Any]]  # Annotations as JSON
    created_at: Mapped[str] = mapped_column(String(40), default=now)


class PrelabelStore:
    """Keeps pre-labels; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._sweep_at = 0.0  # by time.monotonic()

    def add(
        self,
        image: bytes,
        found: Annotations,
        tool: str,
        model_id: str,
        confidence: float | None = None,
    ) -> int:
        """Keep an answer in place of the tool's older one. Returns the picture's id."""
        content = sha256(image).hexdigest()
        try:
            return self._add(content, found, tool, model_id, confidence)
        except IntegrityError:  # a database with several writers: another one was first
            return self._add(content, found, tool, model_id, confidence)

    def _add(
        self, content: str, found: Annotations, tool: str, model_id: str, confidence: float | None
    ) -> int:
        with self.database.write() as session:
            self._sweep(session)
            picture = _picture(session, content)
            if picture is None:
                picture = AnnotatedImage(
                    content=content,
                    name=found.image[-LONGEST_NAME:],
                    width=found.width,
                    height=found.height,
                )
                session.add(picture)
                session.flush()
            row = PrelabelRow(
                image_id=picture.id,
                tool=tool,
                model_id=model_id,
                confidence=confidence,
                annotations=found.to_json(),
                created_at=now(),
            )
            session.merge(row)
            return picture.id

    def _sweep(self, session: Session) -> None:
        """Drop what is old, once an hour: pictures of a person may be behind it."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + SWEEP
        oldest = (datetime.now(UTC) - timedelta(days=DAYS)).isoformat(timespec="milliseconds")
        session.execute(delete(PrelabelRow).where(PrelabelRow.created_at < oldest))
        used = select(PrelabelRow.image_id)
        session.execute(delete(AnnotatedImage).where(AnnotatedImage.id.not_in(used)))


def said_until(session: Session, content: str, until: str) -> list[dict[str, Any]]:
    """What models had said of a picture by a time, the newest first.

    Args:
        session: Of the database.
        content: SHA-256 of the picture's file.
        until: As `now()` writes it.

    Returns:
        Per tool `by` (the model's id), `tool`, and `annotations` (Annotations as JSON).
    """
    query = (
        select(PrelabelRow)
        .join(AnnotatedImage, AnnotatedImage.id == PrelabelRow.image_id)
        .where(AnnotatedImage.content == content, PrelabelRow.created_at <= until)
        .order_by(PrelabelRow.created_at.desc())
    )
    return [
        {"by": row.model_id, "tool": row.tool, "annotations": row.annotations}
        for row in session.scalars(query)
    ]


def _picture(session: Session, content: str) -> AnnotatedImage | None:
    return session.scalar(select(AnnotatedImage).where(AnnotatedImage.content == content))
