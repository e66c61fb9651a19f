"""The tables of drafts, of their commits, and of images that are claimed or were skipped."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from database import Base, now

LONGEST_AUTHOR = 100  # characters


class Draft(Base):
    """What a person has drawn on one image of a dataset, and has not committed yet.

    The dataset may be an upload without a row in `annotated_datasets`: drafts do not refer to it.
    """

    __tablename__ = "annotation_drafts"

    dataset_id: Mapped[str] = mapped_column(String(61), primary_key=True)
    content: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 of the image
    author: Mapped[str] = mapped_column(String(LONGEST_AUTHOR), primary_key=True)
    version: Mapped[str] = mapped_column(String(32))  # another one after each write: the ETag
    state: Mapped[str] = mapped_column(String(10))  # a DraftState
    base: Mapped[str] = mapped_column(String(32))  # `form.base_of` what it was drawn on
    name: Mapped[str] = mapped_column(Text, default="")  # the image's path as users know it
    objects: Mapped[list[Any]] = mapped_column(JSON)  # in the console's form
    object_count: Mapped[int] = mapped_column(default=0, server_default="0")
    reason: Mapped[str] = mapped_column(Text, default="")  # why the image was skipped
    created_at: Mapped[str] = mapped_column(String(40), default=now)
    updated_at: Mapped[str] = mapped_column(String(40), default=now)


class DraftCommit(Base):
    """The answer of a commit, for a client that did not receive it and sends the commit again."""

    __tablename__ = "annotation_commits"
    __table_args__ = (Index("ix_annotation_commits_created_at", "created_at"),)

    dataset_id: Mapped[str] = mapped_column(String(61), primary_key=True)
    author: Mapped[str] = mapped_column(String(LONGEST_AUTHOR), primary_key=True)
    key: Mapped[str] = mapped_column(String(80), primary_key=True)  # the client's
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[str] = mapped_column(String(40), default=now)


class CommittedDraft(Base):
    """The newest committed draft of an image: what its author draws on, who goes on after it."""

    __tablename__ = "annotation_committed_drafts"
    __table_args__ = (Index("ix_annotation_committed_drafts_created_at", "created_at"),)

    dataset_id: Mapped[str] = mapped_column(String(61), primary_key=True)
    content: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 of the image
    author: Mapped[str] = mapped_column(String(LONGEST_AUTHOR), primary_key=True)
    version: Mapped[str] = mapped_column(String(32))  # the draft's, when it was committed
    base: Mapped[str] = mapped_column(String(32))  # `form.base_of` what was committed
    replaced: Mapped[list[Any]] = mapped_column(JSON)  # bases before, by this author's commits
    created_at: Mapped[str] = mapped_column(String(40), default=now)

    def after(self, base: str) -> str:
        """The base that the author's commits have made of a base; another one stays."""
        return self.base if base in self.replaced else base


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
