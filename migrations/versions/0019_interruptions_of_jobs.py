"""Why a job was interrupted, and since when it waits for the database or the object store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("outage_since", sa.String(length=40), nullable=True))
        table.add_column(sa.Column("interrupted_at", sa.String(length=40), nullable=True))
        table.add_column(sa.Column("interruption", sa.Text(), nullable=True))
