"""Alembic migrations of the database tables; `versions` has one module per revision.

`python -m migrations TEXT` generates the next revision from the difference between the tables in
the code and those of a migrated database. Review it before committing, then update `HEAD` in the
database module.
"""
