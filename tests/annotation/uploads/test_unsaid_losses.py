"""Objects that a reader skips are reported, and never make their image a background."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from annotation.uploads.upload import add_upload
from dataset.documents.image_names import NameIndex
from dataset.documents.parsed_documents import from_image_document
from dataset.documents.reader import from_folder
from dataset.documents.yolo_labels import names_of
from dataset.store import DatasetStore
from errors import DatasetInvalid
from formats.annotations import Annotations
from settings import Settings
from tests.annotation.uploads.test_uploads import packed
from tests.support.correction_app import drawn

LARGE = (1200, 40)
BOX = {"label": "cat", "points": [[4, 4], [40, 30]], "shape_type": "rectangle"}
LINE = {"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "linestrip"}


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(Settings(home=tmp_path / "home"))


def labelme(name: str, *shapes: dict[str, Any]) -> bytes:
    size = {"imageWidth": 64, "imageHeight": 48}
    return json.dumps({"imagePath": name, "shapes": shapes, **size}).encode()


def images(count: int, size: tuple[int, int] = (64, 48)) -> dict[str, bytes]:
    return {f"a{i}.png": drawn(i, size) for i in range(count)}


def test_a_line_beside_boxes_is_counted_and_its_image_is_no_background(store: DatasetStore) -> None:
    files = images(9)
    files |= {f"a{i}.json": labelme(f"a{i}.png", BOX) for i in range(1, 8)}
    files |= {"a0.json": labelme("a0.png", LINE), "a8.json": labelme("a8.png", BOX, LINE)}
    told = add_upload(store, packed(files), "set")["accounting"]
    assert sum(told["objects"]["passed_over"].values()) == 2, told
    assert told["objects"]["stored"] == 8
    assert (told["images"]["empty"], told["images"]["without_annotation"]) == (0, 1)


def test_documents_that_state_no_size_are_read_by_their_images(store: DatasetStore) -> None:
    files = images(9, LARGE)
    for name in list(files):
        files[name.replace(".png", ".xml")] = (
            f"<annotation><filename>{name}</filename><object><name>cat</name><bndbox>"
            "<xmin>1100</xmin><ymin>5</ymin><xmax>1190</xmax><ymax>35</ymax>"
            "</bndbox></object></annotation>"
        ).encode()
    card = add_upload(store, packed(files), "set")
    assert card["accounting"]["objects"] == {"received": 9, "stored": 9, "passed_over": {}}
    assert not [p for p in card["problems"] if "no area" in p["message"]]


def coco(*annotations: dict[str, Any], names: tuple[Any, ...] = ("cat",)) -> bytes:
    listed = [
        {"id": i, "file_name": f"a{i}.png", "width": 64, "height": 48}
        for i in range(len(annotations))
    ]
    rows = [
        {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 1, **row}
        for i, row in enumerate(annotations)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    return json.dumps({"images": listed, "annotations": rows, "categories": categories}).encode()


def test_an_image_of_whose_objects_none_was_taken_is_no_background(store: DatasetStore) -> None:
    boxes = [{"bbox": [1, 1, 20, 20]}] * 8
    files = {**images(9), "instances.json": coco(*boxes, {"bbox": [1, 1, 0, 30]})}
    told = add_upload(store, packed(files), "set")["accounting"]
    assert (told["images"]["empty"], told["images"]["without_annotation"]) == (0, 1), told
    assert sum(told["objects"]["passed_over"].values()) == 1


def test_classes_that_are_numbers_are_names(store: DatasetStore) -> None:
    files = {**images(9), "instances.json": coco(*[{"bbox": [1, 1, 20, 20]}] * 9, names=(5,))}
    assert add_upload(store, packed(files), "set")["classes"] == ["5"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train/_annotations.txt", "a0.png 10,20,30,40,0\na1.png 1,2,30,40,0\n"),
        ("_classes.csv", "filename, cat, dog\na0.png, 1, 0\n"),
        ("boxes.csv", "a0.png,1,2,30,40,cat\n"),
        ("wider.txt", "a0.png\n1\n10 20 30 40 0 0 0\n"),
    ],
)
def test_a_text_that_says_something_of_the_images_is_not_left_unread(
    store: DatasetStore, name: str, text: str
) -> None:
    with pytest.raises(DatasetInvalid, match=name.rpartition("/")[2]):
        add_upload(store, packed({**images(3), name: text.encode()}), "set")


def test_a_list_of_images_says_nothing_of_them(store: DatasetStore) -> None:
    listed = b"a0.png\na1.png\na2.png\n"
    card = add_upload(store, packed({**images(3), "train.txt": listed}), "set")
    assert card["accounting"]["images"]["without_annotation"] == 3


def test_composed_and_decomposed_names_are_one() -> None:
    name = unicodedata.normalize("NFC", "café.png")
    described = from_image_document(
        Annotations(name, 4, 4), unicodedata.normalize("NFD", "café.json"), "labelme", "imagePath"
    )
    assert described.name == name


def test_a_class_that_stands_twice_is_two() -> None:
    assert names_of("classes.txt", "car\ncar\ndog\n").names == ("car", "car (1)", "dog")


def test_annotations_with_captions_are_instances(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(coco({"bbox": [1, 1, 20, 20], "caption": "a cat"}))
    (tmp_path / "a0.png").write_bytes(drawn(0))
    (described,) = from_folder(tmp_path, None, (), ()).described
    assert len(described.read((64, 48))) == 1


def test_many_images_of_one_name_are_told_apart() -> None:
    """Looked up one by one among all of them, so many take minutes."""
    names = [f"s{i}/image.png" for i in range(20_000)]
    index = NameIndex((name, name) for name in names)
    assert [index.find(name).item for name in names] == names


@pytest.mark.parametrize("split", ["val", "test"])
def test_class_folders_of_one_split_are_no_images_without_labels(
    store: DatasetStore, split: str
) -> None:
    files = {f"{split}/car/{name}": image for name, image in images(3).items()}
    with pytest.raises(DatasetInvalid, match="no folder 'train'"):
        add_upload(store, packed(files), "set")
