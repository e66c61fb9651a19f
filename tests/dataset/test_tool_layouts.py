"""Datasets as public bug reports of converters and trainers tell of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.dataset import Dataset
from dataset.inspection import inspect
from tests.support.seeds import rng

NAMES = "names: [car, person, dog]\n"


def draw(path: Path, *lines: str, label: Path | None = None) -> None:
    """An image that no other path has, and its label file, beside it unless told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(str(path).encode())
    pixels = rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    label = label or path.with_suffix(".txt")
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text("".join(f"{line}\n" for line in lines))


def looked(folder: Path) -> Dataset:
    return inspect(folder, None, [folder.resolve()])


@pytest.mark.parametrize(
    "folders",
    [
        ("one", "two", "three"),
        # https://github.com/ultralytics/ultralytics/issues/21224
        ("one", "two/images", "three/images"),
        ("train/one", "train/two", "val/three"),
    ],
)
def test_labels_beside_the_images_are_no_classes_of_images(
    tmp_path: Path, folders: tuple[str, str, str]
) -> None:
    one, two, three = folders
    (tmp_path / "data.yaml").write_text(f"train: [{one}, {two}]\nval: {three}\n{NAMES}")
    for number, folder in enumerate(folders):
        draw(tmp_path / folder / f"a{number}.png", f"{number} 0.5 0.5 0.25 0.25")
    found = looked(tmp_path)
    assert found.task == "detect"
    assert found.names == ("car", "person", "dog")
    assert found.counts["train"] == {0: 1, 1: 1}
    assert found.counts["val"] == {2: 1}


def test_cameras_with_labels_beside_are_no_classes_of_images(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(f"train: train\nval: val\n{NAMES}")
    for number, folder in enumerate(("train/left", "train/right", "val/left")):
        draw(tmp_path / folder / f"a{number}.png", f"{number} 0.5 0.5 0.25 0.25")
    found = looked(tmp_path)
    assert found.task == "detect"
    assert found.counts["train"] == {0: 1, 1: 1}
    assert found.counts["val"] == {2: 1}


def test_a_data_yaml_above_classes_of_images_is_still_one(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: train\nval: val\nnames: [a, b]\n")
    for split in ("train", "val"):
        for name in "ab":
            draw(tmp_path / split / name / f"{split}.png", label=tmp_path / "notes.txt")
    assert looked(tmp_path).task == "classify"


def test_boxes_written_as_corners_stop_the_training(tmp_path: Path) -> None:
    # https://github.com/ultralytics/yolov5/issues/5365
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/val\n{NAMES}")
    for number, split in enumerate(("train", "train", "val")):
        name = f"{split}/a{number}"
        draw(
            tmp_path / f"images/{name}.png",
            f"{number} 0.6 0.6 0.8 0.9",
            f"{number} 0.1 0.4 0.6 0.9",
            label=tmp_path / f"labels/{name}.txt",
        )
    (told,) = [found for found in looked(tmp_path).findings if found.kind == "coordinates"]
    assert told.fatal
    assert "class x_centre y_centre width height" in told.message


def test_decimals_with_a_comma_are_told_as_that(tmp_path: Path) -> None:
    # https://github.com/Babyhamsta/Yoable/issues/13
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/val\n{NAMES}")
    for split in ("train", "val"):
        draw(
            tmp_path / f"images/{split}/{split}.png",
            "0 0,5 0,5 0,25 0,25",
            label=tmp_path / f"labels/{split}/{split}.txt",
        )
    (told,) = [found for found in looked(tmp_path).findings if found.kind == "malformed_line"]
    assert "with a decimal point" in told.message


def test_one_angle_in_the_sixth_column_makes_all_of_them_angles(tmp_path: Path) -> None:
    # https://github.com/cvat-ai/cvat/issues/4250
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/val\n{NAMES}")
    for number in range(10):
        name = f"{'val' if number > 7 else 'train'}/a{number}"
        draw(
            tmp_path / f"images/{name}.png",
            f"{number % 3} 0.5 0.5 0.25 0.25 {1.57 if number == 4 else 0.1 * number:g}",
            label=tmp_path / f"labels/{name}.txt",
        )
    found = {found.kind: found for found in looked(tmp_path).findings}
    assert found["angles"].fatal
    assert "four corners" in found["angles"].message
    (tmp_path / "labels/train/a4.txt").write_text("0 0.5 0.5 0.25 0.25 0.9\n")
    assert "angles" not in {found.kind for found in looked(tmp_path).findings}
