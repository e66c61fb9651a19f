"""Uploads of zips as people pack them: which description counts, and what is reported."""

from __future__ import annotations

import io
import shutil
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from annotation.uploads.upload import add_upload
from dataset.store import DatasetStore
from errors import DatasetInvalid
from settings import Settings
from tests.support.shapes import write_shapes

Entries = dict[str, bytes]
Form = Literal["NFC", "NFD"]
Upload = Callable[[Entries], dict[str, Any]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    """The files of a drawn dataset."""
    folder = tmp_path_factory.mktemp("drawn")
    write_shapes(folder, "detect", 6, 3, imgsz=48)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    store = DatasetStore(Settings(home=tmp_path / "home"))

    def add(entries: Entries) -> dict[str, Any]:
        return add_upload(store, packed(entries), "set")

    return add


def packed(entries: Entries) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    buffer.seek(0)
    return buffer


def kinds(card: dict[str, Any]) -> dict[str, int]:
    return {problem["kind"]: problem["count"] for problem in card["problems"]}


def below(folder: str, entries: Entries) -> Entries:
    return {f"{folder}/{name}": data for name, data in entries.items()}


def test_class_folders_of_a_single_class_are_enough_to_add_it_to_a_model(
    upload: Upload, tmp_path: Path
) -> None:
    folder = write_shapes(tmp_path / "drawn", "classify", 9, 6, imgsz=48)
    one = {
        f"{split}/tram/{file.name}": file.read_bytes()
        for split in ("train", "val")
        for file in sorted((folder / split / "circle").iterdir())
    }
    card = upload(one)
    assert (card["task"], card["classes"], card["usable"]) == ("classify", ["tram"], True)
    assert kinds(card)["one_class"] == 1
    # Without splits it may be any folder of images, which nobody has annotated.
    bare = {name.removeprefix("train/"): data for name, data in one.items() if "val/" not in name}
    card = upload(bare)
    assert (card["classes"], card["usable"]) == ([], False)
    beside = {
        f"{folder}/{name.split('/')[-1]}": bare[name]
        for name in bare
        for folder in ("tram", "images")
    }
    with pytest.raises(DatasetInvalid, match="at least two classes"):
        upload(beside)


OTHER = b"train: images/train\nval: images/val\nnames: [dog, cat, cow]\n"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"dataset.yaml": OTHER}, ["data.yaml", "dataset.yaml"]),
        ({"data.yml": OTHER}, ["data.yaml", "data.yml"]),
        ({"my dogs.yaml": OTHER}, ["data.yaml", "my dogs.yaml"]),
        ({"b/data.yaml": OTHER, "b/images/train/x.jpg": b"x"}, ["data.yaml", "b/data.yaml"]),
        ({"x/y/b/data.yaml": OTHER}, ["data.yaml", "x/y/b/data.yaml"]),
        ({"dataset.yaml": b"names: [a"}, ["data.yaml", "dataset.yaml"]),
    ],
)
def test_two_descriptions_are_refused_and_both_named(
    upload: Upload, drawn: Entries, more: Entries, named: list[str]
) -> None:
    with pytest.raises(DatasetInvalid) as caught:
        upload(drawn | more)
    assert all(name in caught.value.message for name in named)
    assert "in a separate zip" in caught.value.message


def test_two_folders_with_a_dataset_each_are_refused(upload: Upload, drawn: Entries) -> None:
    with pytest.raises(DatasetInvalid, match=r"a/data\.yaml, b/data\.yaml"):
        upload(below("a", drawn) | below("b", drawn))


def test_two_descriptions_of_the_same_are_one(upload: Upload, drawn: Entries) -> None:
    card = upload(drawn | {"dataset.yaml": drawn["data.yaml"]})
    assert card["usable"]
    assert kinds(card) == {}


@pytest.mark.parametrize(
    "more",
    [
        {"__MACOSX/._data.yaml": b"\0", ".DS_Store": b"\0", "Thumbs.db": b"\0"},
        {"args.yaml": b"task: detect\ndata: /content/data.yaml\n", "hyp.yaml": b"lr0: 0.1\n"},
        {"yolov8n.yaml": b"nc: 3\nbackbone: []\n", "README.roboflow.txt": b"hello"},
        {"labels/train.cache": b"\0", "wandb/run/config.yaml": b"x: 1\n", "notes.json": b"{}"},
        {"images/train/": b"", "empty/deep/": b""},
    ],
)
def test_what_else_lies_in_real_zips_changes_nothing(
    upload: Upload, drawn: Entries, more: Entries
) -> None:
    card = upload(below("my set", drawn) | below("my set", more))
    assert card["usable"]
    assert kinds(card) == {}


def test_images_that_no_split_names_are_told(upload: Upload, drawn: Entries) -> None:
    image = drawn["images/train/0000.jpg"]
    card = upload(drawn | {"images/extra/a.jpg": image, "runs/train_batch0.jpg": image})
    assert kinds(card) == {"unused_image": 2}
    assert card["splits"]["train"]["images"] == 6


def test_heic_images_and_inner_zips_are_told(upload: Upload, drawn: Entries) -> None:
    card = upload(drawn | {"images/train/p.heic": b"x", "labels.zip": b"PK"})
    assert kinds(card) == {"not_unpacked": 2}


def test_suffixes_in_any_case_belong_together(upload: Upload, drawn: Entries) -> None:
    entries = {
        name.replace(".jpg", ".JPG").replace("0000.txt", "0000.TXT"): data
        for name, data in drawn.items()
    }
    card = upload(entries)
    assert kinds(card) == {}
    assert card["splits"]["train"]["unlabelled"] == 0


def test_two_images_of_one_stem_share_a_label_and_that_is_told(
    upload: Upload, drawn: Entries
) -> None:
    card = upload(drawn | {"images/train/0000.png": drawn["images/train/0001.jpg"]})
    assert kinds(card) == {"shared_label": 1, "duplicate_train": 1}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_of_either_form_belong_together(upload: Upload, drawn: Entries, form: Form) -> None:
    image, label = drawn["images/train/0000.jpg"], drawn["labels/train/0000.txt"]
    other: Form = "NFD" if form == "NFC" else "NFC"
    entries = {name: data for name, data in drawn.items() if "train/0000" not in name} | {
        unicodedata.normalize(form, "images/train/Bär é.jpg"): image,
        unicodedata.normalize(other, "labels/train/Bär é.txt"): label,
    }
    card = upload(entries)
    assert kinds(card) == {}
    assert card["splits"]["train"]["unlabelled"] == 0


def test_labels_in_a_second_place_are_told(upload: Upload, drawn: Entries) -> None:
    entries = dict(drawn)
    entries["images/train/0000.txt"] = entries.pop("labels/train/0000.txt")
    assert kinds(upload(entries)) == {"missing_label": 1, "second_label": 1}


def test_a_missing_test_split_is_a_problem_of_the_report(upload: Upload, drawn: Entries) -> None:
    text = drawn["data.yaml"] + b"test: ../test/images\n"
    card = upload(drawn | {"data.yaml": text})
    assert card["usable"]
    assert kinds(card) == {"test": 1}


def test_a_missing_val_is_refused_with_its_path(upload: Upload, drawn: Entries) -> None:
    text = drawn["data.yaml"].replace(b"images/val", b"images/gone")
    with pytest.raises(DatasetInvalid, match="images/gone"):
        upload(drawn | {"data.yaml": text})


def test_a_folder_on_the_server_says_which_description_was_taken(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "set"
    write_shapes(folder, "detect", 6, 3, imgsz=48)
    store = DatasetStore(Settings(home=tmp_path / "home", data_roots=(tmp_path / "data",)))
    (folder / "half.yaml").write_bytes(OTHER)
    assert "half.yaml" in "".join(store.open("set").problems)
    assert store.open("set/half.yaml").names == ("dog", "cat", "cow")
    shutil.move(folder / "data.yaml", folder / "whole.yaml")
    with pytest.raises(DatasetInvalid, match=r"half\.yaml, whole\.yaml"):
        store.open("set")
