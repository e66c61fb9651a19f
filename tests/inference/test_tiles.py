"""Tiles, with a network that sees bright shapes from three pixels on."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from formats.geometry import area
from inference.images import Pixels
from inference.postprocess import MAX_DET
from inference.prediction import Float, InferenceItem, Prediction
from inference.preprocess import LetterboxKind
from inference.runtime.model_runtime import ModelRuntime
from inference.tiles import AUTO, MOST, OFF, OVERLAP, View, merge, views
from models_store.description import ModelDescription, Preprocessing, Task
from settings import Settings
from tests.support.scenes import encoded
from tests.support.seeds import rng

IMGSZ = 160
LEAST = 3  # pixels of the network's input


class BrightShapes:
    """A network's stand-in: boxes and masks of red (class 0) and blue (class 1) shapes."""

    backend = "bright-shapes"

    letterbox: LetterboxKind = "square"

    def __init__(self, task: Task, batched: bool) -> None:
        self.task = task
        self.batched = batched
        self.calls: list[int] = []

    def run(self, pixels: Pixels, wide: bool = False, halt: Any = None) -> tuple[Float, ...]:
        self.calls.append(len(pixels))
        rows = [self._one(picture) for picture in pixels]
        return tuple(np.stack(parts) for parts in zip(*rows, strict=True))

    def _one(self, picture: Pixels) -> tuple[Float, ...]:
        cells, anchors = IMGSZ // 4, 80
        output = np.zeros((4 + 2 + (anchors if self.task == "segment" else 0), anchors), np.float32)
        protos = np.full((anchors, cells, cells), -1, np.float32)
        found = 0
        for cls, channel in ((0, 0), (1, 2)):
            bright = (picture[..., channel] > 150) & (picture[..., 1] < 120)
            _, labels, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8))
            for label, (x, y, w, h, _) in enumerate(stats[1:], 1):
                thick = cv2.distanceTransform((labels == label).astype(np.uint8), cv2.DIST_C, 3)
                if thick.max() < LEAST / 2 or found == anchors:
                    continue
                output[:4, found] = x + w / 2, y + h / 2, w, h
                output[4 + cls, found] = 0.9
                if self.task == "segment":
                    mask = (labels == label).astype(np.float32) * 2 - 1
                    protos[found] = cv2.resize(mask, (cells, cells), interpolation=cv2.INTER_AREA)
                    output[6 + found, found] = 1
                found += 1
        return (output, protos) if self.task == "segment" else (output,)


@pytest.fixture
def see(tmp_path: Path) -> Any:
    """Predict an image by a runtime; `engine` of the result is what it ran."""

    def predict(
        pixels: Pixels, tiles: int, task: Task = "detect", batched: bool = False
    ) -> tuple[Prediction, BrightShapes]:
        description = ModelDescription(
            task=task,
            family="yolo",
            names=("red", "blue"),
            architecture={},
            preprocessing=Preprocessing(resize="letterbox", imgsz=IMGSZ),
        )
        description.save(tmp_path)
        engine = BrightShapes(task, batched)
        settings = Settings(device="cpu", sessions=2, max_batch=8)
        runtime = ModelRuntime(lambda _: tmp_path, settings, lambda *_: (engine, description))
        item = InferenceItem(encoded(pixels, "PNG"), "a:1", tiles=tiles)
        (result,) = asyncio.run(runtime.predict_batch([item]))
        runtime.close()
        assert result.prediction is not None, result.error
        return result.prediction, engine

    return predict


def canvas(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), 90, np.uint8)


RED, BLUE = (250, 0, 0), (0, 0, 250)


def boxes_of(prediction: Prediction) -> list[list[int]]:
    return sorted([round(float(value)) for value in box] for box in prediction.boxes)


@pytest.mark.parametrize(
    ("size", "tiles", "count"),
    [
        ((1920, 1080), OFF, 1),
        ((640, 480), AUTO, 1),
        ((1600, 900), AUTO, 1),
        ((1700, 900), AUTO, 9),  # 4 × 2 and the whole
        ((900, 1700), AUTO, 9),
        ((8000, 6000), AUTO, 49),  # 8 × 6: no more
        ((100000, 10), AUTO, 9),
        ((640, 480), 2, 5),
        ((640, 640), 3, 5),  # three would be smaller than 320 pixels
        ((831, 831), 3, 5),
        ((832, 832), 3, 10),
        ((320, 320), 2, 1),
        ((100, 100), MOST, 1),
        ((1280, 1280), MOST, 17),
        ((1, 1), 8, 1),
    ],
)
def test_views_cover_the_picture_and_overlap(size: tuple[int, int], tiles: int, count: int) -> None:
    found = views(*size, 640, tiles)
    assert len(found) == count
    assert found[0] == View(0, 0, *size)
    assert len(found) <= 1 + MOST**2
    covered = np.zeros((min(size[1], 6000), min(size[0], 8000)), np.uint8)
    for view in found[1:]:
        assert view.x >= 0
        assert view.x + view.width <= size[0]
        assert view.y + view.height <= size[1]
        covered[view.y : view.y + view.height, view.x : view.x + view.width] += 1
    if count > 1:
        assert covered.all()
        columns = sorted({view.x for view in found[1:]})
        steps = np.diff(columns)
        assert (steps <= (1 - OVERLAP) * found[1].width + 1).all()


@pytest.mark.parametrize("batched", [False, True])
def test_small_objects_of_a_large_picture_are_found_once(see: Any, batched: bool) -> None:
    """Twenty pixels of 2000 are one and a half of the network's input."""
    picture = canvas(2000, 1500)
    chance = rng(0)
    corners = [
        (x * 100 + int(chance.integers(0, 70)), y * 100 + int(chance.integers(0, 70)))
        for x in range(20)
        for y in range(15)
        if chance.random() < 0.25
    ]
    for index, (x, y) in enumerate(corners):
        picture[y : y + 20, x : x + 20] = (RED, BLUE)[index % 2]
    without, _ = see(picture, OFF, batched=batched)
    tiled, engine = see(picture, AUTO, batched=batched)
    assert len(corners) > 60
    assert len(without) == 0
    assert len(tiled) == len(corners)
    wanted = np.array([[x, y, x + 20, y + 20] for x, y in corners])
    distances = np.abs(tiled.boxes[:, None] - wanted[None]).max(axis=2)
    assert distances.min(axis=0).max() < 4
    assert sum(engine.calls) == 49
    assert max(engine.calls) == (8 if batched else 1)


def test_an_object_across_seams_is_one(see: Any) -> None:
    """Longer than a tile, and too thin for the whole image's view."""
    picture = canvas(2000, 1500)
    picture[700:725, 100:1900] = RED
    picture[1000:1400, 300:330] = BLUE
    assert len(see(picture, OFF)[0]) == 0
    tiled, _ = see(picture, AUTO)
    np.testing.assert_allclose(
        boxes_of(tiled), [[100, 700, 1900, 725], [300, 1000, 330, 1400]], atol=5
    )


def test_what_fills_the_picture_is_seen_as_a_whole_and_once(see: Any) -> None:
    picture = canvas(2000, 1500)
    picture[50:1450, 80:1900] = RED
    tiled, _ = see(picture, AUTO)
    np.testing.assert_allclose(boxes_of(tiled), [[80, 50, 1900, 1450]], atol=15)


def test_neighbours_at_a_seam_stay_two(see: Any) -> None:
    picture = canvas(2000, 1500)
    seam = views(2000, 1500, IMGSZ, AUTO)[1].width
    picture[300:340, seam - 45 : seam - 5] = RED
    picture[300:340, seam + 5 : seam + 45] = RED
    picture[300:340, seam + 60 : seam + 100] = BLUE
    tiled, _ = see(picture, AUTO)
    assert sorted(tiled.class_ids.tolist()) == [0, 0, 1]


def test_masks_of_a_cut_object_are_joined(see: Any) -> None:
    picture = canvas(2000, 1500)
    cv2.line(picture, (150, 200), (1800, 1300), RED, 25)
    cv2.circle(picture, (400, 1100), 60, BLUE, -1)
    tiled, _ = see(picture, AUTO, "segment")
    assert tiled.class_ids.tolist().count(0) == 1
    line = tiled.class_ids.tolist().index(0)
    assert tiled.polygons is not None
    assert len(tiled.polygons[line]) == 1
    length = np.hypot(1650, 1100)
    assert abs(area(tiled.polygons[line][0])) == pytest.approx(length * 25, rel=0.25)
    np.testing.assert_allclose(tiled.polygons[line][0].min(axis=0), (145, 190), atol=15)
    np.testing.assert_allclose(tiled.polygons[line][0].max(axis=0), (1805, 1310), atol=15)


def seen(box: list[float], score: float, cls: int = 0, **parts: Any) -> Prediction:
    return Prediction(
        task="pose" if "keypoints" in parts else "detect",
        names=("red", "blue"),
        width=100,
        height=100,
        class_ids=np.array([cls]),
        scores=np.array([score], np.float32),
        boxes=np.array([box], np.float32),
        **parts,
    )


WHOLE, LEFT, RIGHT = View(0, 0, 180, 100), View(0, 0, 100, 100), View(80, 0, 100, 100)


def nothing(like: Prediction) -> Prediction:
    points = None if like.keypoints is None else like.keypoints[:0]
    return replace(
        like,
        class_ids=like.class_ids[:0],
        scores=like.scores[:0],
        boxes=like.boxes[:0],
        keypoints=points,
    )


@pytest.mark.parametrize(
    ("left", "right", "boxes"),
    [
        pytest.param(([60, 20, 100, 40], 0.6), ([0, 20, 50, 40], 0.8), [[60, 20, 130, 40]],
                     id="cut in two: joined"),
        pytest.param(([82, 20, 100, 40], 0.9), ([3, 20, 25, 40], 0.5), [[83, 20, 105, 40]],
                     id="cut here, whole there"),
        pytest.param(([60, 20, 100, 40], 0.6), ([0, 60, 50, 80], 0.8),
                     [[60, 20, 100, 40], [80, 60, 130, 80]], id="one above the other"),
        pytest.param(([85, 20, 95, 40], 0.6), ([5, 20, 15, 40], 0.8), [[85, 20, 95, 40]],
                     id="seen twice"),
        pytest.param(([10, 20, 30, 40], 0.6), ([50, 20, 70, 40], 0.8),
                     [[10, 20, 30, 40], [130, 20, 150, 40]], id="far apart"),
    ],
)  # fmt: skip
def test_two_tiles_agree_on_what_both_see(left: Any, right: Any, boxes: list[Any]) -> None:
    first, second = seen(*left), seen(*right)
    merged = merge([(WHOLE, nothing(first)), (LEFT, first), (RIGHT, second)], MAX_DET)
    assert boxes_of(merged) == boxes
    assert (merged.width, merged.height) == (180, 100)


def test_other_classes_are_never_joined_and_the_best_are_kept() -> None:
    first, second = seen([60, 20, 100, 40], 0.6), seen([0, 20, 50, 40], 0.8, cls=1)
    views_of = [(WHOLE, nothing(first)), (LEFT, first), (RIGHT, second)]
    assert merge(views_of, MAX_DET).class_ids.tolist() == [1, 0]
    assert merge(views_of, 1).class_ids.tolist() == [1]


@pytest.mark.parametrize("classes", [1, 80])
def test_however_much_is_seen_it_is_merged_soon(classes: int) -> None:
    """65 views of 300 boxes each, as with 8 tiles and without a confidence."""
    chance = rng(0)
    found = []
    for view in views(4000, 4000, 640, 8):
        low = chance.random((300, 2)) * (view.width - 60)
        made = seen([0, 0, 1, 1], 0.5)
        boxes = np.concatenate((low, low + chance.random((300, 2)) * 50 + 5), axis=1)
        made = replace(
            made,
            class_ids=chance.integers(0, classes, 300),
            scores=chance.random(300).astype(np.float32),
            boxes=boxes.astype(np.float32),
        )
        found.append((view, made))
    assert len(found) == 65
    began = time.process_time()
    merged = merge(found, MAX_DET)
    assert time.process_time() - began < 60  # minutes before there was a bound
    assert len(merged) == MAX_DET
    assert merged.scores.min() > 0.9


def test_of_key_points_the_most_certain_counts() -> None:
    first = seen([60, 20, 100, 40], 0.6, keypoints=np.array([[[70, 30, 0.9], [99, 30, 0.2]]]))
    second = seen([0, 20, 50, 40], 0.8, keypoints=np.array([[[0, 30, 0.1], [40, 30, 0.8]]]))
    merged = merge([(WHOLE, nothing(first)), (LEFT, first), (RIGHT, second)], MAX_DET)
    assert merged.keypoints is not None
    np.testing.assert_allclose(merged.keypoints, [[[70, 30, 0.9], [120, 30, 0.8]]])
