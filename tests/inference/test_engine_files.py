"""Damaged files of a stored model: rebuilt from the weights, or refused with what to do."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from database import Database
from errors import ModelDamaged
from inference import engine_files
from inference.engine import Engine, load_engine
from inference.prediction import Float
from inference.runtime.model_runtime import ModelRuntime
from models_store.description import (
    ENGINES_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    ModelDescription,
    engines,
)
from models_store.registry import Registry
from models_store.store import ModelStore, content_hash
from settings import Settings
from tests.support.damage import DAMAGES, Damage, scribbled, truncated, zeroed
from tests.support.seeds import rng
from tests.support.small_models import make_engine_of_before, make_model


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model in a store."""
    home = tmp_path_factory.mktemp("published")
    make_model(home / "made")
    database = Database(Settings(home=home / "home"))
    model = Registry(database, ModelStore(home / "bento")).publish(
        home / "made", "shapes", {"kind": "import"}
    )
    database.close()
    return model.path


@pytest.fixture
def folder(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return Path(shutil.copytree(published, tmp_path / "models" / "shapes" / published.name))


@pytest.fixture
def settings() -> Settings:
    return Settings(device="cpu")


@pytest.fixture
def rebuilds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that were run to rebuild a file."""
    run, called = engine_files.run_module, []

    def counted(module: str, *arguments: object) -> object:
        called.append(module)
        return run(module, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_files, "run_module", counted)
    return called


def output(folder: Path, settings: Settings) -> Float:
    engine, description = load_engine(folder, settings)
    size = description.imgsz
    pixels = rng(1).integers(0, 256, (1, size, size, 3), np.uint8)
    return engine.run(pixels)[0]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_engine_is_rebuilt_from_the_weights(
    folder: Path, settings: Settings, rebuilds: list[str], damage: Damage
) -> None:
    expected = output(folder, settings)
    assert not rebuilds
    damage(folder / ONNX_FILE)
    np.testing.assert_allclose(output(folder, settings), expected, atol=1e-4)
    assert len(rebuilds) == 1
    np.testing.assert_array_equal(output(folder, settings), output(folder, settings))
    assert len(rebuilds) == 1


@pytest.mark.parametrize("damage", [truncated, zeroed, scribbled], ids=lambda d: d.__name__)
def test_with_damaged_weights_the_error_names_the_model_and_the_remedy(
    folder: Path, settings: Settings, rebuilds: list[str], damage: Damage
) -> None:
    damage(folder / ONNX_FILE)
    damage(folder / "model.safetensors")
    with pytest.raises(ModelDamaged) as caught:
        load_engine(folder, settings)
    assert f"'shapes:{folder.name}' is damaged" in caught.value.message
    assert "Restore its folder in BENTOML_HOME from a backup" in caught.value.message
    assert not rebuilds


def test_a_damaged_description_names_the_model_too(folder: Path, settings: Settings) -> None:
    truncated(folder / "model.json")
    with pytest.raises(ModelDamaged, match=r"'shapes:.*' is damaged: its model.json"):
        load_engine(folder, settings)


def test_a_damaged_list_of_engines_is_written_anew(
    folder: Path, settings: Settings, rebuilds: list[str]
) -> None:
    before = engines(folder)["onnx"]["sha256"]
    truncated(folder / ENGINES_FILE)
    output(folder, settings)
    assert engines(folder)["onnx"]["sha256"] == before
    assert not rebuilds


def test_a_model_of_the_version_before_has_no_digest_yet(
    folder: Path, settings: Settings, rebuilds: list[str]
) -> None:
    (folder / ENGINES_FILE).write_text('{"onnx": {"opset": 17}}')
    output(folder, settings)
    assert not rebuilds
    assert engine_files.is_intact(folder)
    (folder / ENGINES_FILE).write_text('{"onnx": {"opset": 17}}')
    truncated(folder / ONNX_FILE)
    output(folder, settings)
    assert len(rebuilds) == 1


def test_a_model_that_cannot_be_rebuilt_is_not_tried_again_until_a_file_changes(
    folder: Path, published: Path, settings: Settings
) -> None:
    loads = 0

    def counted(folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
        nonlocal loads
        loads += 1
        return load_engine(folder, settings)

    for name in (ONNX_FILE, "model.safetensors"):
        scribbled(folder / name)

    async def run() -> None:
        runtime = ModelRuntime(lambda _: folder, settings, counted)
        for _ in range(3):
            with pytest.raises(ModelDamaged):
                await runtime.warm("shapes:1")
        assert loads == 1
        shutil.copyfile(published / "model.safetensors", folder / "model.safetensors")
        await runtime.warm("shapes:1")
        assert loads == 2
        runtime.close()

    asyncio.run(run())


def test_an_engine_of_the_version_before_serves_squares_until_it_is_made_again(
    folder: Path, settings: Settings, rebuilds: list[str]
) -> None:
    make_engine_of_before(folder)
    described = ModelDescription.load(folder)
    assert engine_files.is_outdated(folder, described)
    assert engine_files.served_letterbox(folder, described, settings) == "square"
    old, _ = load_engine(folder, settings)
    assert old.letterbox == "square"
    assert not rebuilds
    content = content_hash(folder)
    assert engine_files.renew(folder, described) is None
    assert engine_files.renew(folder, described) is None  # nothing to do
    assert len(rebuilds) == 1
    assert not engine_files.is_outdated(folder, described)
    assert engine_files.served_letterbox(folder, described, settings) == "rect"
    new, _ = load_engine(folder, settings)
    assert new.letterbox == "rect"
    assert content_hash(folder) == content
    size = described.imgsz
    square = rng(2).integers(0, 256, (1, size, size, 3), np.uint8)
    np.testing.assert_allclose(new.run(square)[0], old.run(square)[0], atol=1e-3)
    assert new.run(square[:, : size // 2])[0].shape[-1] < new.run(square)[0].shape[-1]


def test_an_engine_that_cannot_be_made_again_stays(
    folder: Path, settings: Settings, rebuilds: list[str]
) -> None:
    make_engine_of_before(folder)
    described = ModelDescription.load(folder)
    before = (folder / ONNX_FILE).read_bytes()
    truncated(folder / WEIGHTS_FILE)
    reason = engine_files.renew(folder, described)
    assert reason is not None
    assert "are not as they were published" in reason
    assert (folder / ONNX_FILE).read_bytes() == before
    assert engine_files.is_intact(folder)
    assert not rebuilds


def test_an_export_that_is_killed_leaves_the_old_engine(
    folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_engine_of_before(folder)
    described = ModelDescription.load(folder)
    monkeypatch.setattr(engine_files, "RENEWAL_TIMEOUT", 1.0)  # it is killed while it imports torch
    assert engine_files.renew(folder, described) == "model.onnx could not be rebuilt in time"
    assert engine_files.is_intact(folder)
    assert load_engine(folder, settings)[0].letterbox == "square"
