"""A table for the losses and metrics of each epoch; columns for a job's batches and remaining time.

Jobs of before have no history.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_epochs",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "epoch"),
    )
    op.add_column("jobs", sa.Column("batch", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("batches", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("eta_seconds", sa.Float(), nullable=True))
