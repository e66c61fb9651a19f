"""The datasets whose files are in an object store, for all machines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shared_datasets",
        sa.Column("id", sa.String(length=61), primary_key=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("first_card", sa.JSON(), nullable=True),
        sa.Column("revisions", sa.JSON(), nullable=False),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.String(length=40), nullable=False),
    )
