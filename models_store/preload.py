"""Versions that a job is about to promote: the gateway loads them before requests need them.

A row for each, which the job writes and the gateway removes when the version is loaded. Neither
waits for the other for long: a version that nobody has loaded is promoted all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import delete, select

from database import Database, State
from models_store.versions import ModelVersion

PREFIX = "coming:"
LOOK = 0.2  # seconds between two looks of the job


def await_loading(
    database: Database, model: ModelVersion, patience: float, check: Callable[[], None]
) -> bool:
    """Have a version loaded. Returns whether it was, within `patience` seconds.

    `check` is called meanwhile and may raise.
    """
    key = PREFIX + model.name
    with database.write() as session:
        session.merge(State(key=key, text=model.id))
    deadline = time.monotonic() + patience
    try:
        while time.monotonic() < deadline:
            check()
            if model.id not in preload(database):
                return True
            time.sleep(LOOK)
        return False
    finally:
        loaded(database, model.id)


def preload(database: Database) -> list[str]:
    """The ids of versions that are waited for."""
    with database.read() as session:
        query = select(State.text).where(State.key.startswith(PREFIX, autoescape=True))
        return [model_id for model_id in session.scalars(query) if model_id]


def loaded(database: Database, model_id: str) -> None:
    """Say that a version need not be waited for any longer."""
    query = delete(State).where(State.key.startswith(PREFIX, autoescape=True))
    with database.write() as session:
        session.execute(query.where(State.text == model_id))
