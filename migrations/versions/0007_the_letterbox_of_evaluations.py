"""A column for the letterbox of evaluations. Until now it was a square, a classifier had none.

The metrics that models have from evaluations get it too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SQUARE = "square"


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("letterbox", sa.String(length=20), nullable=True))
    evaluations = sa.table(
        "evaluations",
        sa.column("id", sa.String),
        sa.column("figures", sa.JSON),
        sa.column("letterbox", sa.String),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(evaluations.c.id, evaluations.c.figures)).all():
        if "mAP50" in row.figures:
            connection.execute(
                evaluations.update().where(evaluations.c.id == row.id).values(letterbox=SQUARE)
            )
    models = sa.table(
        "models",
        sa.column("name", sa.String),
        sa.column("version", sa.String),
        sa.column("metrics", sa.JSON(none_as_null=True)),
    )
    for model in connection.execute(sa.select(models)).all():
        if model.metrics and "mAP50" in model.metrics:
            connection.execute(
                models.update()
                .where(models.c.name == model.name, models.c.version == model.version)
                .values(metrics=model.metrics | {"letterbox": SQUARE})
            )
