from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from database import Database
from jobs.store import JobStore
from models_store.description import Task
from models_store.registry import Registry
from settings import Settings, get_settings
from tests.support.data_sets import Shapes
from tests.support.shapes import write_shapes
from tests.support.trainer_job import RecordingJob


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    registry = Registry(Database(get_settings()))
    yield registry
    registry.database.close()


@pytest.fixture
def job(tmp_path: Path) -> RecordingJob:
    return RecordingJob(tmp_path / "job")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(Database(Settings(home=tmp_path)))
    yield store
    store.database.close()


@pytest.fixture
def shapes(tmp_path: Path) -> Shapes:
    """A small data set under `tmp_path / "data"`; answers its folder."""

    def make(task: Task = "detect", train: int = 6, val: int = 3) -> Path:
        write_shapes(tmp_path / "data", task, train, val, imgsz=48)
        return tmp_path / "data"

    return make
