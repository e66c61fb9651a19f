from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from errors import DatasetInvalid, DatasetNotFound, Forbidden
from models_store.description import Task
from settings import get_settings
from tests.drawn_data import write_shapes
from training import fingerprint
from training.datasets import Dataset, check, inspect
from training.labels import parse

Shapes = Callable[..., Path]


@pytest.fixture
def shapes(tmp_path: Path) -> Shapes:
    """A small data set under `tmp_path / "data"`; answers its folder."""

    def make(task: Task = "detect", train: int = 6, val: int = 3) -> Path:
        write_shapes(tmp_path / "data", task, train, val, imgsz=48)
        return tmp_path / "data"

    return make


def checked(folder: Path, task: Task = "detect") -> Dataset:
    return check(folder, task, [folder.resolve()])


def kinds(dataset: Dataset) -> dict[str, int]:
    return {finding.kind: finding.count for finding in dataset.findings}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
    assert not (tmp_path / "job" / "data.partial").exists()


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
    (tmp_path / "job.partial").mkdir()
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
    with pytest.raises(DatasetInvalid, match="val has no images"):
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


def line(folder: Path, text: str, split: str = "train", name: str = "0000.txt") -> None:
    with (folder / "labels" / split / name).open("a") as file:
        file.write(f"{text}\n")


def spoil(folder: Path, what: str) -> None:
    """Do one thing to a data set that people's data sets have."""
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
        ("duplicate_split", "images/val/0001.jpg is images/train/0001.jpg"),
        ("duplicate_train", "images/train/0002.jpg"),
        ("unlisted_format", "x.heic"),
    ],
)
def test_what_is_wrong_is_counted_and_placed(shapes: Shapes, what: str, said: str) -> None:
    folder = shapes()
    spoil(folder, what)
    dataset = inspect(folder, "detect", [folder.resolve()])
    assert dataset.looked
    found = {finding.kind: finding for finding in dataset.findings}
    assert found[what].count == 1
    assert said in found[what].examples[0]
    assert found[what].fatal == (what == "class_id")


def test_a_val_that_is_train_is_told(shapes: Shapes) -> None:
    folder = shapes()
    content = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump(content | {"val": "images/train"}))
    dataset = checked(folder)
    assert dataset.looked
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
        ("", "detect", "No usable object is labelled in train"),
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


def test_polygons_become_boxes_for_a_detector(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes("segment")
    dataset = checked(folder, "detect")
    view = dataset.materialise(tmp_path / "job").parent
    for label in (view / "labels/train").iterdir():
        assert parse(label.read_bytes(), dataset.form).shapes.keys() == {"box"}


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


def test_a_fingerprint_is_of_the_content(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes()
    first = checked(folder).fingerprint
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert checked(copy).fingerprint == first
    seen = {first}
    for change in (
        lambda: line(copy, "0 .5 .5 .1 .1"),
        lambda: Image.new("RGB", (50, 50)).save(copy / "images/val/0000.jpg"),
        lambda: (copy / "images/train/0000.jpg").rename(copy / "images/train/x.jpg"),
        lambda: (copy / "data.yaml").write_text(
            (copy / "data.yaml").read_text().replace("circle", "disc")
        ),
    ):
        change()
        seen.add(checked(copy).fingerprint)
    assert len(seen) == 5


def test_a_second_look_decodes_nothing_but_what_changed(
    shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shapes()
    decoded: list[int] = []
    decode = fingerprint._decode

    def counted(data: bytes, limit: int) -> None:
        decoded.append(len(data))
        decode(data, limit)

    monkeypatch.setattr(fingerprint, "_decode", counted)
    first = checked(folder).fingerprint
    assert len(decoded) == 9
    assert checked(folder).fingerprint == first
    assert len(decoded) == 9
    buffer = io.BytesIO()
    Image.new("RGB", (60, 60)).save(buffer, "JPEG")
    (folder / "images/train/0003.jpg").write_bytes(buffer.getvalue())
    assert checked(folder).fingerprint != first
    assert len(decoded) == 10


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b'{"format": 1, "pictures": 3}'])
def test_a_damaged_memory_only_costs_time(shapes: Shapes, content: bytes) -> None:
    folder = shapes()
    first = checked(folder).fingerprint
    for file in (get_settings().home / "cache" / "pictures").glob("*.json"):
        file.write_bytes(content)
    assert checked(folder).fingerprint == first


def test_what_lies_outside_is_forbidden_and_what_is_not_there_not_found(
    shapes: Shapes, tmp_path: Path
) -> None:
    folder = shapes()
    for path in ("/etc", "/no/such/thing", folder / ".." / ".."):
        with pytest.raises(Forbidden, match="VISIONLOOP_DATA_ROOTS"):
            check(path, "detect", [folder.resolve()])
    with pytest.raises(DatasetNotFound):
        check(folder / "other", "detect", [folder.resolve()])
    with pytest.raises(DatasetInvalid, match="neither a data"):
        check(folder / "images/train/0000.jpg", "detect", [folder.resolve()])
    (folder / "labels/train/0000.txt").unlink()
    (folder / "labels/train/0000.txt").symlink_to("/etc/hostname")
    with pytest.raises(Forbidden):
        checked(folder)


@pytest.mark.parametrize("link", ["train", "train/circle", "train/circle/0000.jpg"])
def test_links_out_of_a_class_tree_are_forbidden(shapes: Shapes, tmp_path: Path, link: str) -> None:
    folder = shapes("classify", 9, 3)
    outside = tmp_path / "outside"
    (folder / link).rename(outside)
    (folder / link).symlink_to(outside)
    with pytest.raises(Forbidden):
        checked(folder, "classify")


def test_a_description_that_is_a_link_out_is_forbidden(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes()
    (folder / "data.yaml").rename(tmp_path / "data.yaml")
    (folder / "data.yaml").symlink_to(tmp_path / "data.yaml")
    for path in (folder, folder / "data.yaml"):
        with pytest.raises(Forbidden):
            check(path, "detect", [folder.resolve()])


def test_a_task_is_guessed_from_what_is_there(tmp_path: Path) -> None:
    tasks: tuple[Task, ...] = ("detect", "segment", "pose", "classify")
    for task in tasks:
        write_shapes(tmp_path / task, task, 4, 2, imgsz=32)
        assert inspect(tmp_path / task, None, [tmp_path.resolve()]).task == task


def test_classes_without_pictures_to_train_on_are_refused(shapes: Shapes) -> None:
    folder = shapes("classify", 9, 3)
    shutil.rmtree(folder / "train" / "circle")
    with pytest.raises(DatasetInvalid, match="without an image to train on: circle"):
        checked(folder, "classify")
    shutil.rmtree(folder / "train" / "square")
    shutil.rmtree(folder / "val")
    with pytest.raises(DatasetInvalid, match="two classes or more"):
        checked(folder, "classify")
