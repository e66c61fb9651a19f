"""A column for the classes that a decision on a promotion names; deletions as events, too.

Deletions of promoted versions were decisions only. They become events of the versions, as those of
other versions are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("regressed", sa.JSON(), nullable=True))
    names = ("name", "version", "by", "at", "job_id", "action")
    decisions = sa.table("decisions", *(sa.column(name) for name in names))
    events = sa.table(
        "model_events",
        *(sa.column(name) for name in ("name", "version", "kind", "by", "at", "job_id")),
        sa.column("details", sa.JSON),
    )
    known = sa.select(events.c.version).where(
        events.c.kind == "deleted",
        events.c.name == decisions.c.name,
        events.c.version == decisions.c.version,
    )
    query = sa.select(decisions).where(decisions.c.action == "deleted", ~known.exists())
    rows = [
        {
            "name": row.name,
            "version": row.version,
            "kind": "deleted",
            "by": row.by,
            "at": row.at,
            "job_id": row.job_id,
            "details": {"promoted": True},
        }
        for row in op.get_bind().execute(query).all()
    ]
    if rows:
        op.bulk_insert(events, rows)
