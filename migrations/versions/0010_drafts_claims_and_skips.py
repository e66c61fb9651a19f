"""Tables of drafts of annotations, of their commits, and of claimed and skipped images."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "annotation_drafts",
        sa.Column("dataset_id", sa.String(length=61), nullable=False),
        sa.Column("content", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=100), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("base", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("objects", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.Column("updated_at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", "content", "author"),
    )
    op.create_table(
        "annotation_commits",
        sa.Column("dataset_id", sa.String(length=61), nullable=False),
        sa.Column("author", sa.String(length=100), nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", "author", "key"),
    )
    op.create_index("ix_annotation_commits_created_at", "annotation_commits", ["created_at"])
    op.create_table(
        "annotation_claims",
        sa.Column("content", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=100), nullable=False),
        sa.Column("until", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("content"),
    )
    op.create_table(
        "annotation_skips",
        sa.Column("content", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=100), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("skipped_at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("content"),
    )
