from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from database import Database
from inference.prediction import Prediction
from models_store.description import ModelDescription, Task
from monitoring.live_stats import KEPT_HOURS, LiveStore, hour_of, this_hour, total
from monitoring.prediction_counts import PredictionCounts, counted
from settings import Settings
from tests.support.small_models import small_description

MODEL = "signs:1"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LiveStore]:
    database = Database(Settings(home=tmp_path))
    yield LiveStore(database)
    database.close()


def seen(description: ModelDescription, *objects: tuple[int, float]) -> Prediction:
    ids = np.array([class_id for class_id, _ in objects], np.int64)
    scores = np.array([score for _, score in objects], np.float32)
    boxes = np.zeros((len(ids), 4), np.float32)
    return Prediction(description.task, description.names, 64, 64, ids, scores, boxes)


def tally(images: int, *classes: int) -> PredictionCounts:
    found = PredictionCounts(np.array(classes, np.int64), images)
    found.confidence[12] = sum(classes)
    return found


def test_answers_are_tallied() -> None:
    description = small_description("detect")  # serves from a confidence of 0.25 on
    answers = [
        seen(description, (2, 0.97), (0, 0.52), (0, 0.49), (1, 0.24), (1, 0.001)),
        seen(description, (1, 0.2)),
        seen(description),
        seen(description, (2, 1.0)),
    ]
    found = PredictionCounts.of(description, answers)
    assert (found.images, found.empty, found.predictions, found.low) == (4, 2, 4, 1)
    assert found.classes.tolist() == [2, 0, 2]
    assert np.flatnonzero(found.confidence).tolist() == [9, 10, 19]
    assert found.confidence[19] == 2


@pytest.mark.parametrize(
    ("task", "kept"), [("detect", [0.9, 0.25]), ("segment", [0.9, 0.25]), ("classify", [0.9])]
)
def test_what_counts_in_an_answer(task: Task, kept: list[float]) -> None:
    description = small_description(task)
    scores, class_ids = counted(description, seen(description, (0, 0.9), (1, 0.25), (2, 0.2)))
    assert scores.tolist() == pytest.approx(kept)
    assert len(class_ids) == len(kept)


def test_counts_add_up_over_flushes_and_processes(store: LiveStore) -> None:
    hour = this_hour()
    store.add({(MODEL, hour): tally(2, 1, 0, 4), ("other:1", hour): tally(1, 1, 1, 1)})
    LiveStore(store.database).add({(MODEL, hour): tally(3, 0, 5, 1)})
    found = store.hours(MODEL, 1)
    assert list(found) == [hour]
    assert (found[hour].images, found[hour].classes.tolist()) == (5, [1, 5, 5])
    assert found[hour].confidence[12] == 11
    totals = store.totals(24)
    assert {model: one.images for model, one in totals.items()} == {MODEL: 5, "other:1": 1}


def test_hours_are_chosen_and_old_ones_go(store: LiveStore) -> None:
    now = datetime.now(UTC)
    hours = [hour_of(now - timedelta(hours=ago)) for ago in (KEPT_HOURS + 2, 30, 5, 0)]
    store.add({(MODEL, hour): tally(10**i, 0, 0, 0) for i, hour in enumerate(hours)})
    assert list(store.hours(MODEL, KEPT_HOURS + 10)) == hours[1:]
    assert total(store.hours(MODEL, 24).values(), 3).images == 1100
    assert total(store.hours(MODEL, 1).values(), 3).images == 1000
    assert total([], 3).classes.tolist() == [0, 0, 0]
