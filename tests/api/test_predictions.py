"""What is asked of the runners for an image, and refused before."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.middleware.errors import check
from api.predictions import AnnotateOptions, predict, predict_each, prelabel
from api.schemas import InferOptions
from errors import BackendUnavailable, RateLimited, ValidationFailed, VisionLoopError
from inference.prediction import InferenceItem, ItemResult, Prediction
from models_store.description import ModelDescription, Preprocessing, Task
from models_store.versions import ModelVersion
from serving.fetch import HOLD
from settings import Settings
from tests.support.patience import PATIENCE


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


class Scripted(Runner):
    """Answers an image by its width: an error, a drawn image, or never."""

    def __init__(self, answers: dict[int, VisionLoopError | bytes | None]) -> None:
        super().__init__()
        self.answers = answers
        self.running = self.most = self.left = 0
        self.two = asyncio.Event()  # set while two images are predicted

    async def predict(self, item: InferenceItem) -> ItemResult:
        width = Image.open(io.BytesIO(item.image)).width
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == 2:
            self.two.set()
        try:
            await asyncio.sleep(0)
            answer = self.answers.get(width)
            if width in self.answers and answer is None:
                await asyncio.Event().wait()
            if isinstance(answer, VisionLoopError):
                return ItemResult(error=answer)
            return replace(await super().predict(item), drawn=answer)
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.running -= 1


def several(
    answers: dict[int, VisionLoopError | bytes | None], widths: list[int], **fields: Any
) -> tuple[list[dict[str, Any]], Scripted]:
    gateway: Any = Gateway()
    runner = gateway.runner = gateway.detector = Scripted(answers)
    gateway.settings = Settings(request_timeout=fields.pop("timeout", 60))
    images = [png(width, 1) if width else b"no image" for width in widths]
    found = asyncio.run(predict_each(gateway, images, check(InferOptions, fields)))
    return found, runner


def test_several_images_come_back_in_order_each_with_its_own_error() -> None:
    full = BackendUnavailable("128 requests are already waiting.", 3)
    found, runner = several({2: full, 4: full}, [1, 2, 0, 3])
    assert [one.get("code") for one in found] == [
        None,
        "BACKEND_UNAVAILABLE",
        "INVALID_IMAGE_FORMAT",
        None,
    ]
    assert found[1] == full.to_json()
    assert found[0]["predictions"] == []
    assert runner.most == 3  # at the same time; what is no image is not sent


def test_if_no_image_has_a_result_the_request_fails_and_tells_all() -> None:
    full = BackendUnavailable("Wait.", 7)
    with pytest.raises(BackendUnavailable) as caught:
        several({2: full, 4: full}, [0, 2, 4])
    assert caught.value.retry_after == 7
    assert caught.value.message.startswith("None of the 3 images has a result. Image 1: ")
    assert caught.value.message.endswith("Image 2, 3: Wait.")


def test_what_the_others_cannot_wait_for_is_an_error_of_its_own() -> None:
    found, runner = several({2: None}, [1, 2], timeout=2)
    assert [one.get("code") for one in found] == [None, "BACKEND_TIMEOUT"]
    assert runner.left == 1


def test_a_caller_that_leaves_takes_all_images_with_it() -> None:
    gateway: Any = Gateway()
    runner = gateway.runner = gateway.detector = Scripted({1: None, 2: None})

    async def story() -> None:
        work = predict_each(gateway, [png(1, 1), png(2, 1)], check(InferOptions, {}))
        task = asyncio.create_task(work)
        await runner.two.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(story(), PATIENCE))
    assert (runner.left, runner.running) == (2, 0)


def test_drawn_images_count_as_memory_of_the_request() -> None:
    held: list[int] = []

    def count(length: int) -> None:
        if sum(held) + length > 1000:
            raise RateLimited("Send fewer at once.", 2)
        held.append(length)

    before = HOLD.set(count)
    try:
        found, _ = several({1: bytes(200), 2: bytes(200)}, [1, 2], draw_boxes="1")
    finally:
        HOLD.reset(before)
    assert held == [600]
    assert sorted(one.get("code", "") for one in found) == ["", "RATE_LIMITED"]


@pytest.mark.parametrize(
    ("classes", "ids"),
    [("a", (0,)), (["0", ""], (0,)), ([0, "a"], (0,)), ("", None), (None, None)],
)
def test_the_runner_is_asked_for_the_wanted_classes(classes: Any, ids: Any) -> None:
    _, runner = several({}, [1, 2], classes=classes)
    assert [item.classes for item in runner.items] == [ids, ids]


@pytest.mark.parametrize("classes", ["b", [1], "1", ",", [], True, [None], {"a": 1}, "a" * 70_000])
def test_an_unknown_class_is_refused_before_anything_is_predicted(classes: Any) -> None:
    gateway: Any = Gateway()

    def ask() -> None:
        options = check(InferOptions, {"classes": classes})
        asyncio.run(predict_each(gateway, [png(1, 1)] * 2, options))

    with pytest.raises(ValidationFailed, match="'classes'"):
        ask()
    assert not gateway.runner.items


def test_a_large_jpeg_is_heavy_where_it_is_decoded_in_full() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8000, 6000)).save(buffer, "JPEG")
    image = buffer.getvalue()

    def heavy(decode: str, draw: bool = False, **annotation: Any) -> bool:
        gateway: Any = Gateway()
        gateway.settings = Settings(decode=decode)
        if annotation:
            annotated(gateway, image, **annotation)
        else:
            asyncio.run(predict(gateway, image, InferOptions(draw_boxes=draw)))
        return bool(gateway.runner.items[-1].heavy)

    assert heavy("exact")
    assert not heavy("fast")
    assert not heavy("fast", tiles="off")
    assert heavy("fast", tiles="4")
    assert heavy("fast", tiles="off", return_annotated_image="1")
