"""Drawn images: crops, scenes and the datasets made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from synthetic.camera import STREET, VIDEO, Camera
from synthetic.scenes import (
    draw_scene,
    draw_sign_crop,
    place_sign,
    write_classification_set,
    write_detection_set,
)
from synthetic.signs import CLASS_NAMES
from tests.support.seeds import rng

SCENES = [draw_scene(rng(seed), 240, 180) for seed in range(40)]


def test_a_seed_draws_the_same_scene_and_crop_again() -> None:
    image, boxes, class_ids = draw_scene(rng(7), 240, 180)
    assert np.array_equal(image, SCENES[7][0])
    assert np.array_equal(boxes, SCENES[7][1])
    assert np.array_equal(class_ids, SCENES[7][2])
    first, again = (draw_sign_crop(rng(7), 3, 48) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize(("width", "height"), [(240, 180), (96, 128), (320, 320)])
def test_scene_has_the_asked_size_and_types(width: int, height: int) -> None:
    image, boxes, class_ids = draw_scene(rng(1), width, height)
    assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
    assert (boxes.shape, boxes.dtype) == ((len(class_ids), 4), np.float32)
    assert class_ids.dtype == np.int64


def test_boxes_lie_inside_the_picture_and_have_an_area() -> None:
    for _, boxes, class_ids in SCENES:
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= (240, 180)).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 4).all()
        assert ((class_ids >= 0) & (class_ids < len(CLASS_NAMES))).all()


def test_some_scenes_are_empty_and_some_are_crowded() -> None:
    counts = [len(boxes) for _, boxes, _ in SCENES]
    assert min(counts) == 0
    assert max(counts) >= 4


@pytest.mark.parametrize("centre", [(60.0, 60.0), (4.0, 50.0), (100.0, 116.0)])
def test_box_is_tight_around_what_was_drawn(centre: tuple[float, float]) -> None:
    for class_id in range(len(CLASS_NAMES)):
        image = np.full((120, 120, 3), (255, 0, 255), np.uint8)
        placed = place_sign(rng(class_id), image, class_id, centre, 48)
        assert placed is not None
        changed = np.abs(image.astype(int) - (255, 0, 255)).max(axis=2) > 20
        rows, columns = np.nonzero(changed)
        tight = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert np.abs(placed[0] - tight).max() <= 2
        assert 1 / 3 <= placed[1] <= 1


def test_a_sign_outside_the_picture_is_not_reported() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    assert place_sign(rng(0), image, 0, (-30.0, 20.0), 40) is None
    assert not image.any()


def test_crop_of_every_class_has_the_asked_size() -> None:
    for class_id in range(len(CLASS_NAMES)):
        image = draw_sign_crop(rng(class_id), class_id, 40)
        assert (image.shape, image.dtype) == ((40, 40, 3), np.uint8)


@pytest.mark.parametrize("camera", [VIDEO, STREET])
def test_photograph_keeps_shape_and_is_not_the_ideal_picture(camera: Camera) -> None:
    ideal = rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    taken = camera.photograph(rng(1), ideal)
    assert (taken.shape, taken.dtype) == (ideal.shape, np.uint8)
    assert not np.array_equal(taken, ideal)


def test_detection_set_is_readable_as_yolo(tmp_path: Path) -> None:
    data = write_detection_set(tmp_path / "signs", images=10, seed=3, size=128)
    described = yaml.safe_load(data.read_text())
    assert tuple(described["names"].values()) == CLASS_NAMES
    signs = 0
    for split, count in (("train", 8), ("val", 2)):
        pictures = sorted((data.parent / described[split]).iterdir())
        assert len(pictures) == count
        for path in pictures:
            with Image.open(path) as picture:
                assert max(picture.size) == 128
            label = data.parent / "labels" / split / f"{path.stem}.txt"
            for line in label.read_text().splitlines():
                class_id, *box = line.split()
                cx, cy, w, h = map(float, box)
                assert 0 <= int(class_id) < len(CLASS_NAMES)
                assert min(cx - w / 2, cy - h / 2) >= -1e-5
                assert max(cx + w / 2, cy + h / 2) <= 1 + 1e-5
                signs += 1
    assert signs > 0


def test_classification_set_has_every_class_in_both_splits(tmp_path: Path) -> None:
    folder = write_classification_set(tmp_path, images=len(CLASS_NAMES) * 5, seed=3, size=24)
    for split, each in (("train", 4), ("val", 1)):
        found = {place.name: len(list(place.iterdir())) for place in (folder / split).iterdir()}
        assert found == dict.fromkeys(CLASS_NAMES, each)


def test_data_sets_repeat_with_their_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_detection_set(tmp_path / name, images=3, seed=11, size=96)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
