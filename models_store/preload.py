"""Preloading of versions that a job is about to promote, so that no request waits for loading.

The job writes a row per version; the gateway deletes it once the runners have loaded the version.
A version that is not loaded in time is promoted anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import delete, select

from database import Database, State
from models_store.versions import ModelVersion

PREFIX = "coming:"
POLL = 0.2  # seconds between two reads by the job


def await_loading(
    database: Database, model: ModelVersion, patience: float, check: Callable[[], None]
) -> bool:
    """Request the loading of a version; returns whether it was loaded within `patience` seconds.

    `check` is called repeatedly during the wait and may raise.
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
            time.sleep(POLL)
        return False
    finally:
        loaded(database, model.id)


def preload(database: Database) -> list[str]:
    """The ids of the versions that jobs have requested to load."""
    with database.read() as session:
        query = select(State.text).where(State.key.startswith(PREFIX, autoescape=True))
        return [model_id for model_id in session.scalars(query) if model_id]


def loaded(database: Database, model_id: str) -> None:
    """Delete the request for a version: it is loaded, or the job no longer waits."""
    query = delete(State).where(State.key.startswith(PREFIX, autoescape=True))
    with database.write() as session:
        session.execute(query.where(State.text == model_id))
