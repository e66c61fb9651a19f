"""When a home was last backed up: the command notes it in the database, a metric tells it."""

from __future__ import annotations

from datetime import datetime

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from database import Database, State

BACKUP = "backup"  # key in the table `state`


def note_backup(database: Database, created_at: str) -> None:
    """Note that a backup was completed.

    Args:
        database: That of the home.
        created_at: Time of the state that it holds, as `database.now` writes it.
    """
    with database.write() as session:
        row = session.get(State, BACKUP)
        if row is None or (row.text or "") < created_at:  # of two at once, the newer state counts
            session.merge(State(key=BACKUP, number=0, text=created_at))


def backup_gauges(database: Database) -> list[Metric]:
    """The gauge of the last backup; none where files are in an object store, which
    `visionloop backup` does not copy. Reads the database."""
    if database.settings.store_url is not None:
        return []
    with database.read() as session:
        row = session.get(State, BACKUP)
    time = datetime.fromisoformat(row.text).timestamp() if row and row.text else 0.0
    return [
        GaugeMetricFamily(
            "visionloop_backup_last_success_timestamp_seconds",
            "When `visionloop backup` last copied the home and completed; 0: never. Missing with "
            "VISIONLOOP_STORE_URL: the bucket is not part of such a backup",
            time,
        )
    ]
