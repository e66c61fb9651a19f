"""What does not go together is refused before it waits in the queue."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataset.data_yaml import Keypoints
from dataset.dataset import Dataset
from errors import ValidationFailed
from models_store.description import ModelDescription, Task
from tests.support.small_models import small_description
from training.planning.base_models import architecture_yaml
from training.planning.compatibility import (
    check_incremental,
    check_keypoints,
    check_teacher,
    notes_on_teacher,
)

SHAPE = (3, 3)


def data(*names: str, task: Task = "detect", keypoints: Keypoints | None = None) -> Dataset:
    counts = {"train": Counter(dict.fromkeys(range(len(names)), 5))}
    return Dataset(Path(), task, names, {}, keypoints=keypoints, counts=counts)


def model(*names: str, task: Task = "detect", **fields: Any) -> ModelDescription:
    return small_description(task).model_copy(update={"names": names, **fields})


def test_old_data_must_show_what_the_base_model_knows() -> None:
    base = model("stop", "yield")
    check_incremental(data("tram"), data("bus", "Stop"), base, ())
    with pytest.raises(
        ValidationFailed, match=r"none of the base model's classes; it has bus, tram\. Classes"
    ):
        check_incremental(data("tram"), data("bus", "tram"), base, ())
    check_incremental(data("tram"), data("bus", "tram"), None, ())  # of a file nothing is known yet


def test_new_classes_must_be_taught() -> None:
    with pytest.raises(ValidationFailed, match="new_classes has 'bus'"):
        check_incremental(data("tram"), None, model("stop"), ("bus",))


@pytest.mark.parametrize(
    ("points", "known", "words"),
    [
        (Keypoints(SHAPE), Keypoints(SHAPE), None),
        (Keypoints(SHAPE, (0, 2, 1), ("a", "b", "c")), Keypoints(SHAPE), None),
        (
            Keypoints((3, 2)),
            Keypoints(SHAPE),
            r"kpt_shape of data_path is \[3, 2\], but .* \[3, 3\]",
        ),
        (
            Keypoints(SHAPE, None, ("a", "b", "c")),
            Keypoints(SHAPE, None, ("a", "c", "b")),
            r"kpt_names of data_path is \['a', 'b', 'c'\]",
        ),
        (Keypoints(SHAPE, (0, 2, 1)), Keypoints(SHAPE, (0, 1, 2)), "flip_idx of data_path"),
    ],
)
def test_key_points_must_be_the_same(points: Keypoints, known: Keypoints, words: str) -> None:
    old = data("arrow", task="pose", keypoints=known)
    new = data("dart", task="pose", keypoints=points)
    if words is None:
        check_keypoints(points, known, "data_path", "old_data_path")
        check_incremental(new, old, None, ())
        return
    with pytest.raises(ValidationFailed, match=words):
        check_incremental(new, old, None, ())


def test_key_points_must_be_those_of_the_base_model() -> None:
    names = ("tip", "left", "right")
    base = model("arrow", task="pose", keypoint_shape=SHAPE, keypoint_names=names)
    other = Keypoints(SHAPE, None, ("left", "tip", "right"))
    check_incremental(
        data("dart", task="pose", keypoints=Keypoints(SHAPE, None, names)), None, base, ()
    )
    with pytest.raises(ValidationFailed, match=r"kpt_names of data_path .* of the base model"):
        check_incremental(data("dart", task="pose", keypoints=other), None, base, ())
    old = data("arrow", task="pose", keypoints=Keypoints((2, 3)))
    with pytest.raises(ValidationFailed, match=r"kpt_shape of old_data_path .* of the base model"):
        check_incremental(data("dart", task="pose"), old, base, ())


def test_a_teacher_may_know_the_old_classes_only() -> None:
    teacher = model("stop")
    check_teacher(("tram", "Stop"), "detect", None, teacher)
    with pytest.raises(ValidationFailed, match="The teacher knows none of the dataset's classes"):
        check_teacher(("tram",), "detect", None, teacher)


def test_what_a_teacher_cannot_teach_is_told() -> None:
    teacher = model("Stop", "tree")
    size = teacher.imgsz
    assert notes_on_teacher(("stop",), teacher, "big:1", size) == ()
    (unknown,) = notes_on_teacher(("tram", "stop"), teacher, "big:1", size)
    assert "big:1 does not know 'tram'" in unknown
    (other,) = notes_on_teacher(("stop",), teacher, "big:1", 32 + size)
    assert f"for imgsz {size}, but sees the images at imgsz {32 + size}" in other


@pytest.mark.parametrize(
    ("student", "teacher", "fits"),
    [("yolov8n", "yolov8m", True), ("yolo11n", "yolov8m", True), ("yolov8n", "yolov8n-p2", False)],
)
def test_heads_must_have_the_same_levels(student: str, teacher: str, fits: bool) -> None:
    yaml = architecture_yaml(teacher.removesuffix("-p2"))
    if teacher.endswith("-p2"):
        head: Any = yaml["head"]
        yaml = {**yaml, "head": [*head[:-1], [[9, *head[-1][0]], *head[-1][1:]]]}
    description = model("stop", architecture=yaml)
    if fits:
        check_teacher(("stop",), "detect", architecture_yaml(student), description)
        return
    with pytest.raises(ValidationFailed, match="teacher's head has 4 levels, the student's head 3"):
        check_teacher(("stop",), "detect", architecture_yaml(student), description)


@pytest.mark.parametrize("head", [[1], [], None, [[-1, 1, "Classify", ["nc"]]]])
def test_an_unknown_head_is_not_judged(head: Any) -> None:
    teacher = model("stop", architecture={"head": head})
    check_teacher(("stop",), "detect", architecture_yaml("yolov8n"), teacher)
