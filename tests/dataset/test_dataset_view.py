"""The private view of a dataset that one job trains on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dataset.inspection import check
from dataset.label_files import parse
from models_store.description import Task
from tests.support.data_sets import Shapes, checked, names


@pytest.mark.parametrize("task", ["detect", "segment", "pose"])
def test_the_view_of_a_job_is_what_was_there(shapes: Shapes, tmp_path: Path, task: Task) -> None:
    folder = shapes(task)
    dataset = checked(folder, task)
    assert dataset.problems == ()
    assert {split: len(images) for split, images in dataset.splits.items()} == {
        "train": 6,
        "val": 3,
    }
    view = dataset.materialise(tmp_path / "job" / "data")
    content = yaml.safe_load(view.read_text())
    assert content["path"] == str(tmp_path / "job" / "data")
    assert list(content["names"].values()) == list(dataset.names)
    assert content.get("flip_idx") == ([0, 2, 1] if task == "pose" else None)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            there = folder / kind / split
            assert names(view.parent / kind / split) == names(there)
            for link in (view.parent / kind / split).iterdir():
                assert link.read_bytes() == (there / link.name).read_bytes()
    again = check(view, task, [tmp_path.resolve()])
    assert again.counts == dataset.counts
    assert names(tmp_path / "job") == ["data"]


def test_two_jobs_share_no_folder_and_the_users_stays_as_it_was(
    shapes: Shapes, tmp_path: Path
) -> None:
    folder = shapes()
    before = sorted(str(path) for path in folder.rglob("*"))
    views = [checked(folder).materialise(tmp_path / f"job{i}" / "data") for i in range(2)]
    for i, view in enumerate(views):
        (view.parent / "labels/train.cache").write_text(str(i))
        (view.parent / "images/train/0000.npy").touch()
    assert (views[0].parent / "labels/train.cache").read_text() == "0"
    assert sorted(str(path) for path in folder.rglob("*")) == before


def test_a_view_is_made_anew_for_a_second_attempt(shapes: Shapes, tmp_path: Path) -> None:
    dataset = checked(shapes())
    view = dataset.materialise(tmp_path / "job")
    (view.parent / "labels/train.cache").touch()
    assert checked(tmp_path / "data").materialise(tmp_path / "job") == view
    assert names(tmp_path / "job") == ["data.yaml", "images", "labels"]


def test_classes_keep_their_ids_in_every_split(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes("classify", 9, 3)
    shutil.rmtree(folder / "val" / "circle")
    dataset = checked(folder, "classify")
    assert dataset.names == ("circle", "square", "triangle")
    view = dataset.materialise(tmp_path / "job")
    assert names(view / "val") == ["circle", "square", "triangle"]
    assert names(view / "train" / "square") == names(folder / "train" / "square")


def test_names_that_clash_are_told_apart_and_keep_their_labels(
    shapes: Shapes, tmp_path: Path
) -> None:
    folder = shapes()
    for kind in ("images", "labels"):
        shutil.copytree(folder / kind / "val", folder / kind / "more")
    content = yaml.safe_load((folder / "data.yaml").read_text())
    content |= {"train": ["images/train", "images/more"]}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    dataset = checked(folder)
    view = dataset.materialise(tmp_path / "job").parent
    assert len(names(view / "images/train")) == len(names(view / "labels/train")) == 9
    for link in (view / "images/train").iterdir():
        label = dataset.labels[link.resolve()]
        assert (view / "labels/train" / f"{link.stem}.txt").read_bytes() == label.read_bytes()


def test_formats_that_trainers_cannot_read_are_converted(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes("classify", 9, 3)
    for path in list(folder.glob("train/circle/*.jpg")):
        Image.open(path).save(path.with_suffix(".ppm"))
        path.unlink()
    view = checked(folder, "classify").materialise(tmp_path / "job")
    for path in (view / "train" / "circle").iterdir():
        original = np.asarray(Image.open(folder / "train/circle" / f"{path.stem}.ppm"))
        assert path.suffix == ".png"
        assert (np.asarray(Image.open(path)) == original).all()


def test_polygons_become_boxes_for_a_detector(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes("segment")
    dataset = checked(folder, "detect")
    view = dataset.materialise(tmp_path / "job").parent
    for label in (view / "labels/train").iterdir():
        assert parse(label.read_bytes(), dataset.label_format).shapes.keys() == {"box"}
