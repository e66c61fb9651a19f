"""An index of annotations by their image."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_annotation_entries_image", "annotation_entries", ["dataset_id", "content"])
