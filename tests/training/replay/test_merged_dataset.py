from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dataset.data_yaml import Keypoints
from dataset.dataset import Dataset
from dataset.inspection import check
from models_store.description import Task
from synthetic.shapes import SHAPES
from tests.support.shapes import write_shapes
from training.planning.class_union import ClassUnion
from training.replay.merged_dataset import is_replayed, unite_data

UNION = ClassUnion(("Triangle", "lamp", "circle"), 2)  # nobody's square


def drawn(folder: Path, task: Task, names: tuple[str, ...] = SHAPES, seed: int = 0) -> Dataset:
    path = write_shapes(folder, task, train=8, val=4, imgsz=32, seed=seed)
    if task != "classify":
        content = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(content | {"names": dict(enumerate(names))}))
    return check(path, task, [folder.parent])


def rows(file: Path) -> list[tuple[int, list[str]]]:
    lines = [line.split() for line in file.read_text().splitlines()]
    return [(int(line[0]), line[1:]) for line in lines]


def test_labels_get_the_ids_of_the_union(tmp_path: Path) -> None:
    new = drawn(tmp_path / "new", "detect")
    old = drawn(tmp_path / "old", "detect", ("x", "lamp", "triangle"), seed=1)  # reordered
    replayed = old.splits["train"][2:5]
    union = unite_data(UNION, new, old, replayed)
    data = union.materialise(tmp_path / "view")
    content = yaml.safe_load(data.read_text())
    assert content["names"] == {0: "Triangle", 1: "lamp", 2: "circle"}

    sources = [
        (new, new.splits["train"], "new", {0: 2, 2: 0}),
        (old, replayed, "replayed", {1: 1, 2: 0}),
    ]
    for dataset, images, prefix, ids in sources:
        for number, image in enumerate(images):
            before = rows(dataset.labels[image])
            after = rows(tmp_path / f"view/labels/train/{prefix}-{number:06}.txt")
            assert [cls for cls, _ in after] == [ids[cls] for cls, _ in before if cls in ids]
            link = tmp_path / f"view/images/train/{prefix}-{number:06}.jpg"
            assert link.resolve() == image.resolve()
            assert is_replayed(link) == (prefix == "replayed")
    assert len(list((tmp_path / "view/images/train").iterdir())) == 8 + 3
    assert len(list((tmp_path / "view/images/val").iterdir())) == 4 + 4
    counted = sum(len(rows(file)) for file in (tmp_path / "view/labels/train").iterdir())
    assert sum(union.class_counts.values()) == counted
    assert (union.learned, union.learned.fingerprint) == (new, new.fingerprint)
    assert union.fingerprint != new.fingerprint
    counts = new.class_counts
    expected = {"Triangle": counts["triangle"], "lamp": 0, "circle": counts["circle"]}
    assert union.learned_counts == expected


def test_a_classifiers_folders_keep_the_order_of_the_union(tmp_path: Path) -> None:
    from ultralytics.data.dataset import ClassificationDataset
    from ultralytics.data.utils import check_cls_dataset

    from ultralytics.cfg import get_cfg  # isort: skip

    new = drawn(tmp_path / "new", "classify")
    view = unite_data(UNION, new, None, ()).materialise(tmp_path / "view")
    described = check_cls_dataset(str(view))
    assert described["names"] == dict(enumerate(UNION.names))
    arguments: Any = get_cfg()
    found: Any = ClassificationDataset(view / "train", arguments, names=described["names"])
    classes = {Path(file).resolve().parent.name: cls for file, cls, *_ in found.samples}
    assert classes == {"circle": 2, "triangle": 0}  # the squares are left out


def test_key_points_keep_what_only_the_old_data_or_the_model_say_of_them(tmp_path: Path) -> None:
    new = drawn(tmp_path / "new", "pose", ("dart",))
    old = drawn(tmp_path / "old", "pose", ("arrow",), seed=1)
    assert new.keypoints is not None
    names = tuple(f"point {i}" for i in range(new.keypoints.shape[0]))
    flip = tuple(range(len(names)))
    silent = replace(new, keypoints=Keypoints(new.keypoints.shape))
    union = ClassUnion(("arrow", "dart"), 1)
    assert unite_data(union, silent, None, ()).keypoints == silent.keypoints
    assert unite_data(union, silent, None, (), names).keypoints == (
        new.keypoints.shape,
        None,
        names,
    )
    said = replace(old, keypoints=Keypoints(new.keypoints.shape, flip, names))
    assert unite_data(union, silent, said, ()).keypoints == said.keypoints
    assert unite_data(union, said, old, (), names[::-1]).keypoints == said.keypoints


def test_the_fingerprint_tells_memories_apart(tmp_path: Path) -> None:
    new, old = drawn(tmp_path / "new", "detect"), drawn(tmp_path / "old", "detect", seed=1)
    images = old.splits["train"]
    prints = {unite_data(UNION, new, old, some).fingerprint for some in (images[:3], images[3:6])}
    assert len(prints) == 2
    assert unite_data(UNION, new, old, images[:3]).fingerprint in prints


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_only_the_memory_is_kept_in_memory(tmp_path: Path, task: Task) -> None:
    """A small memory of a large old data set must not switch the cache of pictures off."""
    from training.yolo.run import Run

    new, old = drawn(tmp_path / "new", task), drawn(tmp_path / "old", task, seed=1)
    union = ClassUnion(SHAPES, 3)
    united = unite_data(union, new, old, old.splits["train"][:2])
    recipe: Any = SimpleNamespace(task=task, imgsz=32)
    run: Any = Run(recipe, None, united, None)  # type: ignore[arg-type]
    assert run.decoded == (8 + 4 + 2 + 4) * 32 * 32 * 3
