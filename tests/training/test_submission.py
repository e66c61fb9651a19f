"""Trainings that are queued, or too late to be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from database import Database
from dataset.store import DatasetStore
from errors import BackendTimeout
from jobs.store import JobStore
from models_store.registry import Registry
from settings import Settings
from tests.support.patience import PATIENCE
from tests.support.shapes import write_shapes
from training.planning.recipe import TrainingRequest
from training.submission import submit_training

REQUEST: dict[str, Any] = {"mode": "regular", "task": "detect", "model": "n"}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bento"))
    settings = Settings(home=tmp_path / "home", data_roots=(tmp_path,), device="cpu")
    made = Registry(Database(settings))
    yield made
    made.database.close()


@pytest.mark.parametrize("in_time", [True, False])
def test_a_training_is_queued_before_its_deadline_only(
    registry: Registry, tmp_path: Path, in_time: bool
) -> None:
    data = write_shapes(tmp_path / "data", "detect", 2, 2, 64)
    request = TrainingRequest(data=str(data), **REQUEST)
    jobs = JobStore(registry.database)
    stores = registry, DatasetStore(registry.settings), jobs
    deadline = time.monotonic() + (PATIENCE if in_time else -1.0)
    if not in_time:
        with pytest.raises(BackendTimeout, match="No job was queued"):
            submit_training(request, *stores, {"sent": 1}, deadline=deadline)
        assert jobs.list() == []
        return
    job = submit_training(request, *stores, {"sent": 1}, deadline=deadline)
    assert [listed.id for listed in jobs.list("training", "queued")] == [job.id]
    assert (job.config["sent"], job.mode, job.model_name) == (1, "regular", "detect_yolov8n")
    assert "Waits for a slot: regular, detect." in jobs.log(job.id).read_text()
