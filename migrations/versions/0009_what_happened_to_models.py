"""A table of what happened to model versions, and an index of the jobs that changed last.

The versions that exist get the event of their origin. Their time is that of their creation.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

FACTS = ("kind", "mode", "parent", "dataset", "file", "base")


def upgrade() -> None:
    events = op.create_table(
        "model_events",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("version", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("by", sa.String(length=80), nullable=True),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_model_events_name", "model_events", ["name"])
    op.create_index("ix_jobs_updated_at", "jobs", ["updated_at"])
    models = sa.table(
        "models",
        sa.column("name", sa.String),
        sa.column("version", sa.String),
        sa.column("created_at", sa.String),
        sa.column("source", sa.JSON),
    )
    found = op.get_bind().execute(sa.select(models).order_by(models.c.created_at)).all()
    if rows := [_origin(model) for model in found]:
        op.bulk_insert(events, rows)


def _origin(model: sa.Row[tuple[str, str, str, dict[str, object]]]) -> dict[str, object]:
    source = model.source or {}
    return {
        "name": model.name,
        "version": model.version,
        "kind": "trained" if source.get("kind") == "train" else "imported",
        "by": None,
        "job_id": source.get("job_id"),
        "details": {name: source[name] for name in FACTS if source.get(name)},
        "at": model.created_at,
    }
