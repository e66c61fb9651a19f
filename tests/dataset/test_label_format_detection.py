"""Forms of label lines that no yaml states: told from their numbers, or asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset.dataset import Dataset
from dataset.inspection import inspect
from errors import DatasetInvalid
from models_store.description import Task
from tests.support.data_sets import Shapes, kinds, line
from tests.support.seeds import rng

RANDOM = rng(5)


def looked(folder: Path, task: Task | None = None) -> Dataset:
    return inspect(folder, task, [folder.resolve()])


def relabel(folder: Path, *lines: str, each: int = 1) -> None:
    """These lines in turn, so many a file."""
    number = 0
    for path in sorted(folder.glob("labels/*/*.txt")):
        chosen = [lines[(number + i) % len(lines)] for i in range(each)]
        number += each
        path.write_text("\n".join(chosen) + "\n")


def pose(count: int, size: int, box: tuple[float, ...] = (0.5, 0.4, 0.3, 0.5)) -> str:
    """A box with keypoints in all of it."""
    x, y, w, h = box
    numbers: list[float] = []
    for i in range(count):
        at = -0.5 + i / max(count - 1, 1)
        numbers += [x + w * at, y + h * at] + ([i % 3] if size == 3 else [])
    return "0 " + " ".join(f"{value:g}" for value in (*box, *numbers))


POSES = [(1, 3), (2, 3), (3, 3), (4, 3), (5, 3), (17, 3), (21, 3)]


@pytest.mark.parametrize(("count", "size"), POSES)
@pytest.mark.parametrize("task", [None, "detect", "segment", "pose"])
def test_key_points_with_visibility_need_their_shape(
    shapes: Shapes, count: int, size: int, task: Task | None
) -> None:
    folder = shapes()
    relabel(folder, pose(count, size), pose(count, size, (0.3, 0.6, 0.4, 0.2)))
    with pytest.raises(DatasetInvalid) as caught:
        looked(folder, task)
    assert f"[{count}, 3]" in caught.value.message
    assert "kpt_shape" in caught.value.message
    described = folder / "data.yaml"
    described.write_text(described.read_text() + f"kpt_shape: [{count}, {size}]\n")
    assert looked(folder).task == "pose"
    as_boxes = looked(folder, "detect")
    assert kinds(as_boxes)["pose_as_box"] == 9


@pytest.mark.parametrize("count", [1, 2, 4, 17])
def test_key_points_without_visibility_are_asked_for(shapes: Shapes, count: int) -> None:
    folder = shapes()
    relabel(folder, pose(count, 2), pose(count, 2, (0.3, 0.6, 0.4, 0.2)))
    if count == 1:  # seven columns: a triangle, too, and no box is so filled by one point
        return
    with pytest.raises(DatasetInvalid) as caught:
        looked(folder)
    assert f"[{count}, 2]" in caught.value.message
    assert "task=segment" in caught.value.message
    assert looked(folder, "segment").task == "segment"


def polygon(corners: int) -> str:
    centre, radius = RANDOM.uniform(0.2, 0.8, 2), RANDOM.uniform(0.03, 0.2)
    angles = np.sort(RANDOM.uniform(0, 2 * np.pi, corners))
    points = np.clip(centre + radius * np.c_[np.cos(angles), np.sin(angles)], 0, 1)
    return "0 " + " ".join(f"{value:.6f}" for value in points.ravel())


@pytest.mark.parametrize("corners", [3, 4, 5, 8, 19])
def test_polygons_stay_polygons_though_all_have_as_many_corners(
    shapes: Shapes, corners: int
) -> None:
    folder = shapes()
    relabel(folder, *(polygon(corners) for _ in range(40)), each=4)
    dataset = looked(folder)
    assert dataset.task == "segment"
    assert ("oriented" in kinds(dataset)) == (corners == 4)


def test_one_polygon_like_a_pose_among_many_is_a_polygon(shapes: Shapes) -> None:
    folder = shapes()
    relabel(folder, *(polygon(3 + i % 9) for i in range(40)), each=4)
    line(folder, pose(4, 2))
    assert looked(folder).task == "segment"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0 .5 .5 .2 .2 .93", "confidence"),
        ("0 .5 .5 .2 .2 7", "wrong_form"),  # a track's id
        ("0 .5 .5 .2 .2 -45", "wrong_form"),  # an angle
        ("0 .5 .5 .2 .2 1.57", "wrong_form"),
        ("0 .5 .5 .2 .2 .9 12", "wrong_form"),  # confidence and id
        ("0 .4 .4 .6 .4 .6 .6 .4 .6", "polygon_as_box"),  # an oriented box
        ("0 .5 .5 .2", "malformed_line"),
        ("0 .5 .5 .2 .2 .3 .3 .4", "malformed_line"),
        ("0,.5,.5,.2,.2", "malformed_line"),
        ("100 200 300 200 300 400 100 400 ship 0", "malformed_line"),  # DOTA
    ],
)
def test_lines_of_other_forms_are_told(shapes: Shapes, text: str, kind: str) -> None:
    folder = shapes()
    line(folder, text)
    dataset = looked(folder, "detect")
    assert kinds(dataset) == {kind: 1}
    image = next(i for i in dataset.splits["train"] if i.name == "0000.jpg")
    lines = (folder / "labels/train/0000.txt").read_text().splitlines()
    lost = kind in ("wrong_form", "malformed_line")
    assert dataset.refused == ({image: (len(lines),)} if lost else {})


def test_oriented_boxes_as_a_whole_say_what_becomes_of_them(shapes: Shapes) -> None:
    folder = shapes()
    relabel(folder, "0 .4 .41 .61 .4 .6 .62 .41 .6", "0 .2 .3 .3 .2 .4 .3 .3 .4")
    assert "task=detect" in "".join(looked(folder).problems)
    boxes = looked(folder, "detect")
    assert kinds(boxes) == {"polygon_as_box": 9, "unused": 1}
