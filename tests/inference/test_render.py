from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from errors import ValidationFailed
from inference import render
from inference.prediction import DrawnFormat, Prediction
from inference.render import LONGEST, class_colour, draw
from models_store.description import Task
from tests.support.scenes import scene


def prediction(task: Task, width: int, height: int, **given: Any) -> Prediction:
    box = np.array([[width * 0.25, height * 0.25, width * 0.75, height * 0.75]], np.float32)
    values: dict[str, Any] = {
        "names": ("stop", "Größe 标志 знак"),
        "class_ids": np.array([1]),
        "scores": np.array([0.87], np.float32),
        "boxes": box if task != "classify" else np.zeros((0, 4), np.float32),
    }
    return Prediction(task=task, width=width, height=height, **(values | given))


def drawn(pixels: np.ndarray, found: Prediction) -> np.ndarray:
    image = Image.open(io.BytesIO(draw(pixels, found)))
    assert image.format == "JPEG"
    return np.asarray(image).astype(int)


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel - colour).max() < 60)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (900, 3), (64, 48), (640, 480), (3000, 2000)])
@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify"])
def test_any_size_can_be_drawn_on(size: tuple[int, int], task: Task) -> None:
    width, height = size
    corners = np.array(((0, 0), (width, 0), (width, height)), np.float32)
    given: dict[str, Any] = {}
    if task == "segment":
        given["polygons"] = ((corners, corners / 2),)
    if task == "pose":
        given["keypoints"] = np.array([[[width / 2, height / 2, 0.9], [0, 0, 0.1]]], np.float32)
    picture = drawn(scene(*size), prediction(task, *size, **given))
    assert picture.shape == (height, width, 3)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize("tall", [False, True])
def test_what_no_jpeg_can_hold_is_refused_with_the_remedy(form: DrawnFormat, tall: bool) -> None:
    size = (1, LONGEST[form] + 1) if tall else (LONGEST[form] + 1, 1)
    width, height = size
    pixels, found = np.zeros((height, width, 3), np.uint8), prediction("detect", *size)
    with pytest.raises(ValidationFailed, match=f"{form}.*without the drawn image"):
        draw(pixels, found, form)
    shown = render.drawn(pixels, found)  # for others that scale it first
    assert shown.size == size
    most = LONGEST[form]
    longest = Image.open(io.BytesIO(draw(pixels[:most, :most], found, form)))
    assert longest.format == form
    assert longest.size == (min(width, most), min(height, most))


def test_a_png_holds_what_was_drawn_and_a_side_of_any_length() -> None:
    pixels = scene(70_000, 4)
    found = prediction("detect", 70_000, 4)
    picture = Image.open(io.BytesIO(draw(pixels, found, "PNG")))
    assert picture.format == "PNG"
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(render.drawn(pixels, found)))


def test_box_and_label_have_the_colour_of_the_class() -> None:
    grey = np.full((480, 640, 3), 128, np.uint8)
    picture = drawn(grey, prediction("detect", 640, 480))
    assert near(picture[240, 160], class_colour(1))  # the left edge
    assert near(picture[119, 162], class_colour(1))  # the plate above the box
    assert near(picture[240, 320], (128, 128, 128))
    assert near(picture[20, 20], (128, 128, 128))


def test_masks_are_veiled_and_key_points_dotted() -> None:
    grey = np.full((480, 640, 3), 128, np.uint8)
    square = np.array(((200, 200), (400, 200), (400, 300), (200, 300)), np.float32)
    masked = drawn(grey, prediction("segment", 640, 480, polygons=((square,),)))
    assert np.abs(masked[230, 300] - 128).max() > 30
    assert np.abs(masked[330, 300] - 128).max() < 5
    points = np.array([[[300, 250, 0.9], [350, 250, 0.2]]], np.float32)
    dotted = drawn(grey, prediction("pose", 640, 480, keypoints=points))
    assert near(dotted[250, 300], class_colour(1))
    assert near(dotted[250, 350], (128, 128, 128))


def test_classes_are_listed_and_nothing_found_is_the_picture() -> None:
    grey = np.full((480, 640, 3), 128, np.uint8)
    three = {"class_ids": np.array([2, 0, 1]), "scores": np.array([0.7, 0.2, 0.1], np.float32)}
    listed = drawn(grey, prediction("classify", 640, 480, names=("a", "b", "c"), **three))
    column = listed[:, 0]
    rows = [np.flatnonzero([near(pixel, class_colour(i)) for pixel in column]) for i in (2, 0, 1)]
    assert all(len(found) > 8 for found in rows)
    assert rows[0].max() < rows[1].min() + 3
    assert rows[1].max() < rows[2].min() + 3
    empty = prediction(
        "detect", 640, 480, class_ids=np.array([], int), scores=np.zeros(0, np.float32),
        boxes=np.zeros((0, 4), np.float32),
    )  # fmt: skip
    assert np.abs(drawn(grey, empty) - 128).max() <= 2


def test_neighbouring_classes_look_different() -> None:
    colours = np.array([class_colour(i) for i in range(30)])
    distances = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 1000 * np.eye(30)
    assert distances.min() > 20
    assert all(distances[i, i + 1] > 150 for i in range(29))
