"""The metric of the last backup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from database import Database, State
from monitoring.last_backup import BACKUP, backup_gauges, note_backup
from settings import Settings

NAME = "visionloop_backup_last_success_timestamp_seconds"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(Settings(home=tmp_path, disk_reserve=0))
    yield opened
    opened.close()


def told(database: Database) -> float:
    (metric,) = backup_gauges(database)
    (sample,) = metric.samples
    assert (metric.type, sample.name, sample.labels) == ("gauge", NAME, {})
    return float(sample.value)


def test_zero_until_the_first_backup_and_then_the_newest(database: Database) -> None:
    assert told(database) == 0
    note_backup(database, "2026-11-30T02:00:00.500+00:00")
    assert told(database) == 1_796_004_000.5
    note_backup(database, "2026-12-01T02:00:00.000+00:00")
    note_backup(database, "2026-11-30T08:00:00.000+00:00")  # it began earlier, and took longer
    assert told(database) == 1_796_090_400.0


def test_another_process_of_the_home_tells_the_same(database: Database) -> None:
    note_backup(database, "2026-12-01T02:00:00.000+00:00")
    other = Database(database.settings)
    try:
        assert told(other) == told(database) > 0
    finally:
        other.close()


def test_no_metric_where_the_files_are_in_a_bucket(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_backup(database, "2026-12-01T02:00:00.000+00:00")
    stored = database.settings.model_copy(update={"store_url": "s3://signs"})
    monkeypatch.setattr(database, "settings", stored)
    assert backup_gauges(database) == []


def test_the_note_is_one_row(database: Database) -> None:
    for day in ("01", "02"):
        note_backup(database, f"2026-12-{day}T02:00:00.000+00:00")
    with database.read() as session:
        row = session.get(State, BACKUP)
    assert row is not None
    assert row.text == "2026-12-02T02:00:00.000+00:00"
