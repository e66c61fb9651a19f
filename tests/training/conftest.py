from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models_store.registry import Registry
from settings import Settings, get_settings
from tests.training.trainer_job import RecordingJob
from training.jobs import JobStore


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    registry = Registry(get_settings())
    yield registry
    registry.close()


@pytest.fixture
def job(tmp_path: Path) -> RecordingJob:
    return RecordingJob(tmp_path / "job")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(Settings(home=tmp_path))
    yield store
    store.close()
