"""What is asked of the runners for an image, and refused before."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.middleware.errors import check
from api.predictions import AnnotateOptions, predict, prelabel
from api.schemas import InferOptions
from errors import ValidationFailed
from inference.prediction import InferenceItem, ItemResult, Prediction
from models_store.description import ModelDescription, Preprocessing, Task
from models_store.versions import ModelVersion
from settings import Settings


class Runner:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.items: list[InferenceItem] = []

    async def predict(self, item: InferenceItem) -> ItemResult:
        self.items.append(item)
        nothing = np.zeros((0, 4), np.float32)
        found = Prediction("detect", ("a",), 1, 1, np.zeros(0, np.int64), nothing[:, 0], nothing)
        return ItemResult(found)


class Gateway:
    """As much of a gateway as a prediction needs."""

    def __init__(self, task: Task = "detect") -> None:
        about = ModelDescription(
            task=task,
            family="yolo",
            names=("a",),
            architecture={},
            preprocessing=Preprocessing(resize="letterbox", imgsz=640),
        )
        self.settings = Settings()
        self.runner = self.detector = Runner()
        self.runners = {"annotator": self.runner}
        self.model: Any = type("Model", (), {"id": "a:1", "description": about})
        self.registry: Any = type("Models", (), {"resolve": lambda _, __: self.model})()

    def answered(self, *_: Any) -> None:
        pass


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def annotated(gateway: Any, image: bytes, **fields: Any) -> AnnotateOptions:
    options = check(AnnotateOptions, {"tool": "object_detection", **fields})
    model: ModelVersion = gateway.model
    asyncio.run(prelabel(gateway, image, options, model))
    return options


@pytest.mark.parametrize(
    ("size", "tiles", "views", "note"),
    [
        ((100, 100), "8", 1, "'tiles' was off instead of 8"),
        ((1280, 1280), "8", 17, "'tiles' was 4 instead of 8"),
        ((1280, 1280), "4", 17, ""),
        ((1280, 1280), "auto", 1, ""),
        ((1280, 1280), "off", 1, ""),
    ],
)
def test_tiles_are_no_smaller_than_they_are_useful(
    size: tuple[int, int], tiles: str, views: int, note: str
) -> None:
    gateway = Gateway()
    options = annotated(gateway, png(*size), tiles=tiles)
    (item,) = gateway.runner.items
    assert item.views == views
    assert note in " ".join(options.notes)
    assert bool(note) == bool(options.notes)


def test_classification_has_no_tiles() -> None:
    gateway = Gateway("classify")
    options = annotated(gateway, png(4000, 4000), tiles="8", tool="image_classification")
    assert gateway.runner.items[0].views == 1
    assert "no effect" in " ".join(options.notes)
    assert not annotated(gateway, png(4000, 4000), tool="image_classification").notes


@pytest.mark.parametrize("size", [(70_000, 1), (1, 70_000)])
def test_what_cannot_be_drawn_on_is_refused_before_it_is_predicted(size: tuple[int, int]) -> None:
    gateway: Any = Gateway()
    with pytest.raises(ValidationFailed, match="65500"):
        asyncio.run(predict(gateway, png(*size), check(InferOptions, {"draw_boxes": "1"})))
    with pytest.raises(ValidationFailed, match="65500"):
        annotated(gateway, png(*size), return_annotated_image="1")
    assert not gateway.runner.items
    annotated(gateway, png(*size))
    assert len(gateway.runner.items) == 1
