"""What is found in datasets, and what of them is trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from dataset.inspection import inspect
from errors import DatasetInvalid
from models_store.description import Task
from tests.support.data_sets import Shapes, checked, kinds, line, names
from tests.support.shapes import write_shapes


def test_one_level_of_classes_is_split_by_name_and_always_alike(
    shapes: Shapes, tmp_path: Path
) -> None:
    folder = shapes("classify", 30, 0) / "train"
    dataset = checked(folder, "classify")
    assert [len(dataset.splits[split]) for split in ("train", "val")] == [24, 6]
    assert dataset.counts["val"] == {0: 2, 1: 2, 2: 2}
    assert kinds(dataset) == {"held_out": 1}
    copy = shutil.copytree(folder, tmp_path / "copy")
    twin = checked(copy, "classify")
    assert [path.name for path in twin.splits["val"]] == [
        path.name for path in dataset.splits["val"]
    ]


def test_accents_of_folders_from_other_systems_are_one_class(shapes: Shapes) -> None:
    folder = shapes("classify", 6, 3)
    (folder / "train" / "circle").rename(folder / "train" / "cerclé")
    (folder / "val" / "circle").rename(folder / "val" / "cercle\u0301")  # as macOS writes it
    dataset = checked(folder, "classify")
    assert dataset.names == ("cerclé", "square", "triangle")
    assert set(dataset.counts["val"]) == {0, 1, 2}


def test_a_class_folder_without_a_name_is_refused(shapes: Shapes) -> None:
    folder = shapes("classify", 6, 3)
    (folder / "train" / " ").mkdir()
    assert checked(folder, "classify").names == ("circle", "square", "triangle")
    (folder / "train" / "circle").rename(folder / "train" / " ")
    with pytest.raises(DatasetInvalid, match="blank name"):
        checked(folder, "classify")


def test_a_missing_val_is_held_out_of_train_but_a_wrong_one_is_refused(shapes: Shapes) -> None:
    folder = shapes(train=10)
    content = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump(content | {"val": ""}))
    dataset = checked(folder)
    assert [len(dataset.splits[split]) for split in ("train", "val")] == [8, 2]
    assert not set(dataset.splits["train"]) & set(dataset.splits["val"])
    assert kinds(dataset)["held_out"] == 1
    (folder / "empty").mkdir()
    (folder / "data.yaml").write_text(yaml.safe_dump(content | {"val": "empty"}))
    with pytest.raises(DatasetInvalid, match="val split has no images"):
        checked(folder)


def test_a_label_studio_export_is_taken_without_a_yaml(shapes: Shapes) -> None:
    folder = shapes(train=10)
    (folder / "data.yaml").unlink()
    for kind in ("images", "labels"):
        shutil.rmtree(folder / kind / "val")
        for path in list((folder / kind / "train").iterdir()):
            path.rename(folder / kind / path.name)
        (folder / kind / "train").rmdir()
    (folder / "classes.txt").write_text("circle\r\nsquare\r\ntriangle\r\n")
    dataset = inspect(folder, None, [folder.resolve()])
    assert (dataset.task, dataset.names) == ("detect", ("circle", "square", "triangle"))
    assert len(dataset.labels) == 10


@pytest.mark.parametrize("place", ["beside", "labels below", "plain images"])
def test_labels_are_found_where_people_put_them(shapes: Shapes, place: str) -> None:
    folder = shapes()
    for split in ("train", "val"):
        pictures, labels = folder / "images" / split, folder / "labels" / split
        if place == "beside":
            for label in labels.iterdir():
                label.rename(pictures / label.name)
        elif place == "labels below":
            labels.rename(pictures / "labels")
        else:  # train/ and labels/train/
            pictures.rename(folder / split)
    if place == "plain images":
        content = yaml.safe_load((folder / "data.yaml").read_text())
        content |= {"train": "train", "val": "val"}
        (folder / "data.yaml").write_text(yaml.safe_dump(content))
    assert len(checked(folder).labels) == 9


def spoil(folder: Path, what: str) -> None:
    """Do one thing to a dataset that people's datasets have."""
    pictures, labels = folder / "images/train", folder / "labels/train"
    if what == "class_id":
        line(folder, "7 .5 .5 .1 .1")
    elif what == "malformed_line":
        line(folder, "circle .5 .5 .1 .1")
    elif what == "clipped":
        line(folder, "1 .98 .5 .1 .1")
    elif what == "missing_label":
        (labels / "0001.txt").unlink()
    elif what == "orphan_label":
        shutil.copy(labels / "0001.txt", labels / "9999.txt")
    elif what == "corrupt_image":
        (pictures / "0001.jpg").write_bytes((pictures / "0001.jpg").read_bytes()[:400])
    elif what == "small_image":
        Image.new("RGB", (9, 50)).save(pictures / "0001.jpg")
    elif what == "duplicate_split":
        shutil.copy(pictures / "0001.jpg", folder / "images/val/0001.jpg")
    elif what == "duplicate_train":
        shutil.copy(pictures / "0001.jpg", pictures / "0002.jpg")
    elif what == "unlisted_format":
        (pictures / "x.heic").touch()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("class_id", "labels/train/0000.txt line"),
        ("malformed_line", "labels/train/0000.txt line"),
        ("clipped", "labels/train/0000.txt line"),
        ("missing_label", "images/train/0001.jpg"),
        ("orphan_label", "train/9999.txt"),
        ("corrupt_image", "images/train/0001.jpg: The image file is truncated"),
        ("small_image", "images/train/0001.jpg: 9 × 50"),
        ("duplicate_split", "images/val/0001.jpg is a copy of images/train/0001.jpg"),
        ("duplicate_train", "images/train/0002.jpg"),
        ("unlisted_format", "x.heic"),
    ],
)
def test_what_is_wrong_is_counted_and_placed(shapes: Shapes, what: str, said: str) -> None:
    folder = shapes()
    spoil(folder, what)
    dataset = inspect(folder, "detect", [folder.resolve()])
    dataset.scan()
    found = {finding.kind: finding for finding in dataset.findings}
    assert found[what].count == 1
    assert said in found[what].examples[0]
    assert found[what].fatal == (what == "class_id")


def test_a_val_that_is_train_is_told(shapes: Shapes) -> None:
    folder = shapes()
    content = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump(content | {"val": "images/train"}))
    dataset = checked(folder)
    dataset.scan()
    assert kinds(dataset) == {"leak": 1, "duplicate_split": 6}


def test_a_job_trains_on_what_is_sound(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes()
    for what in ("malformed_line", "corrupt_image", "small_image"):
        spoil(folder, what)
    Image.new("RGB", (9, 50)).save(folder / "images/train/0002.jpg")
    view = checked(folder).materialise(tmp_path / "job").parent
    assert names(view / "images/train") == ["0000.jpg", "0003.jpg", "0004.jpg", "0005.jpg"]
    assert "circle" in (folder / "labels/train/0000.txt").read_text()
    assert "circle" not in (view / "labels/train/0000.txt").read_text()


@pytest.mark.parametrize(
    ("labels", "task", "said"),
    [
        ("0 .1 .1 .5 .1 .5 .5\n", "detect", None),
        ("0 .5 .5 .2 .2\n", "segment", "needs polygons"),
        ("0 .5 .5 .2 .2\n", "pose", "needs kpt_shape"),
        ("0 .5 .5 .2 .2 .5 .5 2 .5 .5 2\n", "pose", r"columns would fit \[2, 3\] or \[3, 2\]"),
        ("0 120 80 40 40\n", "detect", "may be pixels"),
        ("car 1 2 3 4\n", "detect", "cannot be read"),
        ("3 .5 .5 .2 .2\n", "detect", "class id 3, but the ids are 0 to 2"),
        ("", "detect", "train has no usable labelled object"),
    ],
)
def test_labels_must_fit_the_task(
    shapes: Shapes, labels: str, task: Task, said: str | None
) -> None:
    folder = shapes()
    for path in folder.glob("labels/*/*.txt"):
        path.write_text(labels)
    if said is None:
        assert checked(folder, task)
        return
    with pytest.raises(DatasetInvalid, match=said):
        checked(folder, task)


def test_a_task_is_guessed_from_what_is_there(tmp_path: Path) -> None:
    tasks: tuple[Task, ...] = ("detect", "segment", "pose", "classify")
    for task in tasks:
        write_shapes(tmp_path / task, task, 4, 2, imgsz=32)
        assert inspect(tmp_path / task, None, [tmp_path.resolve()]).task == task


def test_classes_without_pictures_to_train_on_are_refused(shapes: Shapes) -> None:
    folder = shapes("classify", 9, 3)
    shutil.rmtree(folder / "train" / "circle")
    with pytest.raises(DatasetInvalid, match="without an image in train: circle"):
        checked(folder, "classify")
    shutil.rmtree(folder / "train" / "square")
    shutil.rmtree(folder / "val")
    with pytest.raises(DatasetInvalid, match="at least two classes"):
        checked(folder, "classify")


def test_a_class_that_only_train_has_is_told_because_no_gate_can_measure_it(
    shapes: Shapes,
) -> None:
    folder = shapes()
    for file in (folder / "labels" / "val").glob("*.txt"):
        lines = [line for line in file.read_text().splitlines() if not line.startswith("0 ")]
        file.write_text("\n".join([*lines, "1 0.5 0.5 0.2 0.2"]))
    (found,) = [f for f in checked(folder, "detect").findings if f.kind == "unmeasured"]
    assert found.message.startswith("val has nothing of 1 of the classes in train (circle).")
    assert "allow_unmeasured" in found.message
    assert not found.fatal


def test_a_folder_of_classes_that_val_lacks_is_told_too(tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", "classify", 6, 3, 48)
    shutil.rmtree(tmp_path / "data" / "val" / "square")
    (found,) = [
        f for f in checked(tmp_path / "data", "classify").findings if f.kind == "unmeasured"
    ]
    assert "(square)" in found.message
