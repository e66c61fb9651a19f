"""The tables of images that somebody works on, or has skipped."""

from __future__ import annotations

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from annotation.drafts.tables import LONGEST_AUTHOR
from database import Base, now


class Claim(Base):
    """An image that a person works on; the queue gives it to nobody else until then.

    Of equal images in several datasets there is one claim.
    """

    __tablename__ = "annotation_claims"

    content: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 of the image
    author: Mapped[str] = mapped_column(String(LONGEST_AUTHOR))
    until: Mapped[str] = mapped_column(String(40))


class Skip(Base):
    """An image that a person has put at the end of the queue."""

    __tablename__ = "annotation_skips"

    content: Mapped[str] = mapped_column(String(64), primary_key=True)
    author: Mapped[str] = mapped_column(String(LONGEST_AUTHOR))
    reason: Mapped[str] = mapped_column(Text, default="")
    skipped_at: Mapped[str] = mapped_column(String(40), default=now)
