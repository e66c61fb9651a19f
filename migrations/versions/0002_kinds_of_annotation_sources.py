"""A `kind` column for annotated datasets and annotation entries.

Until now the prefixes of `source` and `key` encoded the kind; these values are unchanged.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("annotated_datasets", "annotation_entries"):
        op.add_column(table, sa.Column("kind", sa.String(length=20), nullable=True))
    datasets = sa.table("annotated_datasets", sa.column("source"), sa.column("kind"))
    _fill(datasets, datasets.c.source, ("upload", "batch"), "project")
    entries = sa.table("annotation_entries", sa.column("key"), sa.column("kind"))
    _fill(entries, entries.c.key, ("original", "model", "person"), "tool")
    for table in ("annotated_datasets", "annotation_entries"):
        with op.batch_alter_table(table) as batch:
            batch.alter_column("kind", existing_type=sa.String(length=20), nullable=False)


def _fill(
    table: sa.TableClause, prefixed: sa.ColumnClause[str], kinds: tuple[str, ...], other: str
) -> None:
    """Set `kind` from the prefix of a column, such as `batch:`; to `other` if there is none."""
    cases = [(prefixed.like(f"{kind}:%"), kind) for kind in kinds]
    op.execute(table.update().values(kind=sa.case(*cases, else_=other)))
