"""Alembic environment: applies the revisions on the connection that `Database` passes in."""

from __future__ import annotations

from alembic import context

config = context.config
context.configure(
    connection=config.attributes["connection"],
    target_metadata=config.attributes.get("metadata"),
    render_as_batch=True,  # SQLite can alter most of a table only by copying it
)
with context.begin_transaction():
    context.run_migrations()
