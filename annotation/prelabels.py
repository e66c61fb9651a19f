"""Stores the prelabels sent to annotation tools, to compare corrections with them."""

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

MAX_NAME = 200
RETENTION_DAYS = 90  # each human annotation has its own copy, without expiry
CLEANUP_INTERVAL = 3600.0  # seconds between two deletions of expired prelabels


class AnnotatedImage(Base):
    """An image, identified by the SHA-256 of its file."""

    __tablename__ = "annotated_images"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    content: Mapped[str] = mapped_column(String(64), unique=True)  # SHA-256 of the file
    name: Mapped[str] = mapped_column(String(MAX_NAME))
    width: Mapped[int]
    height: Mapped[int]
    created_at: Mapped[str] = mapped_column(String(40), default=now)


class PrelabelRow(Base):
    """The newest prelabel of one image for one annotation tool."""

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
    """Stores prelabels; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._next_cleanup = 0.0  # time.monotonic() of the next deletion

    def add(
        self,
        image: bytes,
        found: Annotations,
        tool: str,
        model_id: str,
        confidence: float | None = None,
    ) -> int:
        """Store a prelabel; it replaces an older one for the same image and tool.

        Args:
            image: Content of the image file.
            found: The prediction.
            tool: The annotation tool that requested it.
            model_id: Id of the model.
            confidence: The score threshold; None: the model's default.

        Returns:
            The id of the image's row.
        """
        content = sha256(image).hexdigest()
        try:
            return self._add(content, found, tool, model_id, confidence)
        except IntegrityError:  # a database with several writers: another one was first
            return self._add(content, found, tool, model_id, confidence)

    def _add(
        self, content: str, found: Annotations, tool: str, model_id: str, confidence: float | None
    ) -> int:
        with self.database.write() as session:
            self._delete_expired(session)
            row = _image(session, content)
            if row is None:
                row = AnnotatedImage(
                    content=content,
                    name=found.image[-MAX_NAME:],
                    width=found.width,
                    height=found.height,
                )
                session.add(row)
                session.flush()
            prelabel = PrelabelRow(
                image_id=row.id,
                tool=tool,
                model_id=model_id,
                confidence=confidence,
                annotations=found.to_json(),
                created_at=now(),
            )
            session.merge(prelabel)
            return row.id

    def _delete_expired(self, session: Session) -> None:
        """Delete prelabels older than RETENTION_DAYS, at most once an hour (privacy)."""
        if time.monotonic() < self._next_cleanup:
            return
        self._next_cleanup = time.monotonic() + CLEANUP_INTERVAL
        oldest = (datetime.now(UTC) - timedelta(days=RETENTION_DAYS)).isoformat(
            timespec="milliseconds"
        )
        session.execute(delete(PrelabelRow).where(PrelabelRow.created_at < oldest))
        used = select(PrelabelRow.image_id)
        session.execute(delete(AnnotatedImage).where(AnnotatedImage.id.not_in(used)))


def prelabels_until(session: Session, content: str, until: str) -> list[dict[str, Any]]:
    """The prelabels of an image that were stored up to a time, newest first.

    Args:
        session: Session of the database.
        content: SHA-256 of the image's file.
        until: The time, as `database.now` writes it.

    Returns:
        Per annotation tool a dict of `by` (the model's id), `tool`, and `annotations`
        (`Annotations` as JSON).
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


def _image(session: Session, content: str) -> AnnotatedImage | None:
    return session.scalar(select(AnnotatedImage).where(AnnotatedImage.content == content))
