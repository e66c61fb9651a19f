"""A column for the number of objects of a draft: lists of drafts do not read the objects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    count = sa.Column("object_count", sa.Integer(), nullable=False, server_default="0")
    op.add_column("annotation_drafts", count)
    drafts = sa.table(
        "annotation_drafts", sa.column("objects", sa.JSON), sa.column("object_count", sa.Integer)
    )
    op.execute(drafts.update().values(object_count=sa.func.json_array_length(drafts.c.objects)))
