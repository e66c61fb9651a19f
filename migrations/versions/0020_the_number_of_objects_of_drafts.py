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
    # PostgreSQL refuses the length of what is no list; SQLite says 0.
    name = "json_typeof" if op.get_bind().dialect.name == "postgresql" else "json_type"
    is_list = getattr(sa.func, name)(drafts.c.objects) == "array"
    length = sa.case((is_list, sa.func.json_array_length(drafts.c.objects)), else_=0)
    op.execute(drafts.update().values(object_count=length))
