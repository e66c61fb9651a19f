"""Drift is recorded when it reaches another level."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, select

from database import Database
from models_store.registry import Registry
from models_store.store import ModelStore
from models_store.tables import ModelEvent
from models_store.versions import ModelVersion
from monitoring.live_stats import LiveHour, LiveStore, this_hour
from monitoring.prediction_counts import PredictionCounts
from serving.operations import drift_watch
from serving.operations.drift_watch import DriftWatch
from settings import Settings
from tests.support.histories import History


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    found = Registry(Database(Settings(home=tmp_path / "home")), ModelStore(tmp_path / "bento"))
    yield found
    found.database.close()


def see(registry: Registry, model: ModelVersion, *counts: int) -> None:
    """Have live traffic of the last hour with so many predictions of each class."""
    with registry.database.write() as session:
        session.execute(delete(LiveHour))
    seen = PredictionCounts(np.array(counts, np.int64), images=sum(counts))
    seen.confidence[-1] = sum(counts)
    LiveStore(registry.database).add({(model.id, this_hour()): seen})


def recorded(registry: Registry) -> list[str]:
    query = select(ModelEvent).where(ModelEvent.kind == "drift").order_by(ModelEvent.number)
    with registry.database.read() as session:
        return [row.details["verdict"] for row in session.scalars(query)]


def test_a_change_of_level_is_recorded_once(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("round", "square", "star")
    model = History(registry, tmp_path).publish(class_counts=dict.fromkeys(names, 1000))
    assert model.description.names == names
    watch = DriftWatch(registry)
    see(registry, model, 1000, 1000, 1000)
    assert watch.look() == []
    see(registry, model, 1400, 1000, 500)
    assert watch.look() == [model.id]
    assert watch.look() == []
    see(registry, model, 3000, 10, 10)
    assert watch.look() == [model.id]
    assert recorded(registry) == ["moderate shift", "large shift"]
    see(registry, model, 1000, 1000, 1000)
    assert watch.look() == []  # it might rise again at once
    monkeypatch.setattr(drift_watch, "CALM", timedelta(0))
    assert watch.look() == [model.id]
    assert recorded(registry)[-1] == "stable"
