"""A `caller` column for jobs: who requested them; empty for jobs of before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("caller", sa.String(length=80), nullable=True))
    op.create_index("ix_jobs_caller", "jobs", ["caller"])
