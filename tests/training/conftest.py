from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models_store.registry import Registry
from settings import get_settings
from tests.training.trainer_job import RecordingJob


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    registry = Registry(get_settings())
    yield registry
    registry.close()


@pytest.fixture
def job(tmp_path: Path) -> RecordingJob:
    return RecordingJob(tmp_path / "job")
