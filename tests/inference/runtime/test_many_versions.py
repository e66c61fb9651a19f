"""What a runner keeps does not grow with the number of versions that it has loaded."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from errors import ModelDamaged
from inference.engine import Engine
from inference.runtime import loaded_models
from inference.runtime.loaded_models import LoadedModels
from models_store.description import DESCRIPTION_FILE, ModelDescription
from settings import Settings
from tests.support.patience import until


class TinyEngine:
    """As much of an engine as loading and evicting need."""

    backend = "tiny"
    batched = False
    letterbox = "rect"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / DESCRIPTION_FILE).write_text("{}")
    return tmp_path


def test_many_versions_one_after_another_leave_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a new version is promoted each day."""
    engines: list[weakref.ref[Any]] = []
    released: list[int] = []
    monkeypatch.setattr(loaded_models, "RELEASE", 0.01)
    monkeypatch.setattr(loaded_models, "release_free_memory", lambda: released.append(living()))

    def living() -> int:
        return sum(engine() is not None for engine in engines)

    def load(folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
        engine: Any = TinyEngine()
        engines.append(weakref.ref(engine))
        description: Any = SimpleNamespace(any_size=False)
        return engine, description

    async def story() -> None:
        models = LoadedModels(
            lambda tag: folder, Settings(device="cpu", engine="onnxruntime", model_cache=2), load
        )
        for version in range(20):
            await models.use(f"signs:{version}")
        await until(lambda: released and released[-1] <= 2)
        assert len(engines) == 20
        assert set(models.loaded()) == {"signs:18", "signs:19"}
        models.unload("signs:18")
        models.unload("signs:19")
        await until(lambda: released[-1] == 0)
        sizes = {
            name: len(value)
            for name, value in vars(models).items()
            if isinstance(value, dict | list | set)
        }
        assert "_replacing" in sizes
        assert not any(sizes.values()), sizes
        models.close()

    asyncio.run(story())


def test_damaged_versions_are_remembered_up_to_a_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_models, "DAMAGED", 3)
    tries: list[str] = []

    def load(folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
        tries.append(folder.name)
        raise ModelDamaged("It is damaged.")

    async def story() -> None:
        models = LoadedModels(lambda tag: folder, Settings(device="cpu"), load)
        for tag in ("1", "2", "3", "4", "4", "3", "2", "1"):
            with pytest.raises(ModelDamaged):
                await models.use(tag)
        models.close()

    asyncio.run(story())
    assert len(tries) == 5  # the first, forgotten meanwhile, a second time
