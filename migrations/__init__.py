"""Changes of the database's tables, one module each in `versions`, applied by Alembic.

`python -m migrations TEXT` writes the next one from what the tables in the code have and the
database has not. Read it before you commit it, then raise `HEAD` in the database module.
"""
