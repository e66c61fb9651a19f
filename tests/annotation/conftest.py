"""An empty home with one dataset of a tool's project."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotation.datasets import AnnotatedDatasets
from annotation.tables import AnnotatedDataset
from database import Database
from settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def annotated(settings: Settings) -> AnnotatedDatasets:
    return AnnotatedDatasets(Database(settings))


@pytest.fixture
def dataset(annotated: AnnotatedDatasets) -> AnnotatedDataset:
    return annotated.ensure("tool:1", "My project", {})
