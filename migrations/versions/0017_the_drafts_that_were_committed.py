"""What committed drafts have become, for authors who go on drawing after their commit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "annotation_committed_drafts",
        sa.Column("dataset_id", sa.String(length=61), primary_key=True),
        sa.Column("content", sa.String(length=64), primary_key=True),
        sa.Column("author", sa.String(length=100), primary_key=True),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("base", sa.String(length=32), nullable=False),
        sa.Column("replaced", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
    )
    op.create_index(
        "ix_annotation_committed_drafts_created_at", "annotation_committed_drafts", ["created_at"]
    )
