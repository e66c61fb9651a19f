"""One small model with its engine for the whole session, and a registry in a temporary home."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from database import Database
from models_store.registry import Registry
from settings import Settings, get_settings
from tests.support.small_models import make_model

Publish = Callable[..., str]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detection model: model.json, model.safetensors, model.onnx, engines.json."""
    folder = tmp_path_factory.mktemp("models") / "detect"
    make_model(folder, "detect", 32)
    return folder


@pytest.fixture
def other_folder(model_folder: Path, tmp_path: Path) -> Path:
    """The same with another description text, so with another content."""
    folder = tmp_path / "other"
    shutil.copytree(model_folder, folder)
    path = folder / "model.json"
    path.write_text(path.read_text().replace('"description": ""', '"description": "other"'))
    return folder


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A VISIONLOOP_HOME and a BENTOML_HOME of the test's own."""
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bento"))
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


@pytest.fixture
def registry(homes: Path) -> Iterator[Registry]:
    registry = Registry(Database(Settings()))
    yield registry
    registry.database.close()


@pytest.fixture
def publish(registry: Registry, model_folder: Path) -> Publish:
    """Publish the small model; returns its id."""

    def _publish(name: str = "signs", **options: Any) -> str:
        return registry.publish(model_folder, name, {"kind": "import"}, **options).id

    return _publish
