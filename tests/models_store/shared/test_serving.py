"""A runner serves a model that another machine has published."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from errors import ModelNotFound, StoreUnavailable
from inference.prediction import InferenceItem
from inference.runtime.model_runtime import ModelRuntime
from models_store.registry import Registry
from models_store.shared.model_trees import located
from settings import Settings
from storage.object_trees import ObjectTrees
from tests.models_store.shared.conftest import Machine
from tests.support.scenes import encoded, scene


@pytest.fixture
def one(machine: Machine) -> Registry:
    return machine("one")


@pytest.fixture
def runner(
    one: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModelRuntime]:
    """A runner of machine two, which has neither models nor a database."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "two" / "bento"))
    settings = Settings(
        home=tmp_path / "two" / "home", store_url=one.settings.store_url, device="cpu"
    )
    runtime = ModelRuntime(partial(located, settings=settings), settings)
    yield runtime
    runtime.close()


def test_a_runner_downloads_what_it_is_asked_for(
    one: Registry, runner: ModelRuntime, model_folder: Path
) -> None:
    made = one.publish(model_folder, "signs", {"kind": "import"})
    item = InferenceItem(encoded(scene(64, 64, 0)), made.id)
    (result,) = asyncio.run(runner.predict_batch([item]))
    assert result.error is None
    assert result.prediction is not None


def test_a_runner_tells_why_it_cannot_and_tries_again(
    one: Registry, runner: ModelRuntime, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = one.publish(model_folder, "signs", {"kind": "import"})
    item = InferenceItem(encoded(scene(64, 64, 0)), made.id)

    def unreachable(*_: object) -> None:
        raise StoreUnavailable("The object store cannot be reached.", 10)

    async def twice() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(ObjectTrees, "get", unreachable)
            (refused,) = await runner.predict_batch([item])
        assert isinstance(refused.error, StoreUnavailable)
        (result,) = await runner.predict_batch([item])
        assert result.error is None

    asyncio.run(twice())


def test_a_runner_that_is_asked_for_a_deleted_model(
    one: Registry, runner: ModelRuntime, model_folder: Path
) -> None:
    made = one.publish(model_folder, "signs", {"kind": "import"})
    one.delete(made.id)
    item = InferenceItem(encoded(scene(64, 64, 0)), made.id)
    (result,) = asyncio.run(runner.predict_batch([item]))
    assert isinstance(result.error, ModelNotFound)
