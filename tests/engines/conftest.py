"""Small networks with random weights that do find something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from database import Database
from models_store.description import Task
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from tests.support import sure_models
from tests.support.small_models import make_mobilenet, make_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small exported model, by what it is: made once a session."""
    return sure_models.folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def gentle_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The same of networks that half precision hardly changes."""
    root = tmp_path_factory.mktemp("gentle")

    def folder(kind: str) -> Path:
        path = root / kind
        if not path.exists():
            make_mobilenet(path) if kind == "mobilenet" else make_model(path, cast(Task, kind))
        return path

    return folder


@pytest.fixture
def registry_of_its_own(tmp_path: Path) -> Iterator[Registry]:
    settings = Settings(home=tmp_path / "registry")
    registry = Registry(Database(settings), ModelStore(tmp_path / "bento"))
    yield registry
    registry.database.close()
