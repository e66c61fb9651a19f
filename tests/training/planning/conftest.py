"""A home with data, and a registry with models that no test here runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from database import Database
from models_store.description import ModelDescription, Preprocessing, Task
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from tests.support.shapes import write_shapes


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home").resolve()
    (home / "pretrained").mkdir()
    return Settings(home=home / "home", data_roots=(home / "data",), pretrained=home / "pretrained")


@pytest.fixture(scope="module")
def data(settings: Settings) -> Path:
    return write_shapes(settings.data_roots[0] / "shapes", "detect", train=4, val=2, imgsz=32)


@pytest.fixture(scope="module")
def registry(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    registry = Registry(Database(settings), ModelStore(tmp_path_factory.mktemp("bento")))
    for name, task in (("signs", "detect"), ("leaves", "classify"), ("yolov8m", "detect")):
        folder = tmp_path_factory.mktemp(name)
        description(task).save(folder)  # type: ignore[arg-type]
        for file in ("model.safetensors", "model.onnx"):
            (folder / file).write_bytes(name.encode())
        registry.publish(folder, name, {"kind": "import"})
    yield registry
    registry.database.close()


def description(task: Task) -> ModelDescription:
    return ModelDescription(
        task=task,
        family="yolo",
        names=("a", "circle"),
        architecture={"backbone": [1], "head": [1]},
        preprocessing=Preprocessing(resize="letterbox", imgsz=320),
    )
