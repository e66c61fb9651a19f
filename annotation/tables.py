"""The tables of annotated datasets and of their entries."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from database import Base, now


class AnnotatedDataset(Base):
    """A dataset whose annotations are edited; it has the same id in the dataset store.

    `changes` counts the changes of its annotations; `built` is that count at the newest revision.
    """

    __tablename__ = "annotated_datasets"

    id: Mapped[str] = mapped_column(String(61), primary_key=True)
    source: Mapped[str] = mapped_column(String(200), unique=True)  # such as a tool's project
    name: Mapped[str] = mapped_column(String(100))
    options: Mapped[dict[str, Any]]  # the source's configuration
    changes: Mapped[int] = mapped_column(Integer, default=0)
    built: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[str] = mapped_column(String(40), default=now)
    updated_at: Mapped[str] = mapped_column(String(40), default=now)
    kind: Mapped[str] = mapped_column(String(20), default="project")  # a DatasetKind


class AnnotationEntry(Base):
    """The annotations of one image by one source.

    `document` is the annotation as the source sent it. While `annotations` is None, the image has
    not been fetched yet. Of several entries of an image the one with the highest `rank` is
    effective, among equal ones the newest.
    """

    __tablename__ = "annotation_entries"
    __table_args__ = (Index("ix_annotation_entries_image", "dataset_id", "content"),)

    dataset_id: Mapped[str] = mapped_column(
        ForeignKey("annotated_datasets.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(80), primary_key=True)  # the tool's, else _image_key
    task: Mapped[str] = mapped_column(
        String(80), index=True, default=""
    )  # the tool's id of the image's task
    address: Mapped[str] = mapped_column(Text, default="")
    rank: Mapped[int] = mapped_column(Integer, default=0)
    stamp: Mapped[str] = mapped_column(String(40), default="")  # time of change in the tool
    number: Mapped[int] = mapped_column(Integer, default=0)  # count of changes of this row
    document: Mapped[dict[str, Any]]
    content: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the image's file
    suffix: Mapped[str] = mapped_column(String(8), default="")
    annotations: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)  # why its image is missing
    updated_at: Mapped[str] = mapped_column(String(40), default=now)
    kind: Mapped[str] = mapped_column(String(20), default="tool")  # an EntryKind
