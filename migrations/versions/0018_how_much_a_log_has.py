"""How much of a worker's output a log has, for the machine that takes over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job_logs", sa.Column("claim", sa.String(length=120), nullable=True))
    op.add_column("job_logs", sa.Column("copied", sa.BigInteger(), nullable=True))
    op.create_index("ix_job_logs_claim", "job_logs", ["claim", "copied"])
