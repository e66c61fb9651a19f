"""Datasets exported as zips of the tools: their files, and what a format cannot hold."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from annotation.export import Exported, entries, zipped
from annotation.image_records import PERSON, ImageRecord
from errors import ValidationFailed
from formats.annotations import FORMATS, Annotation, AnnotationPart, Annotations, Format, Keypoint
from formats.coco import from_coco
from formats.cvat_xml import from_cvat_xml
from formats.voc import from_voc
from models_store.description import Task

SQUARE = ((1.0, 1.0), (8.0, 1.0), (8.0, 7.0), (1.0, 7.0))
BOX = Annotation("dog", box=(1, 2, 8.5, 7))
SHAPE = Annotation("car", parts=(AnnotationPart(SQUARE),))
POSE = Annotation("dog", box=(1, 2, 8, 7), keypoints=(Keypoint("nose", 2, 3),))
NIGHT = Annotation("night")


def picture(folder: Path, name: str, split: str, *objects: Annotation) -> ImageRecord:
    content = sha256(f"{name}{split}".encode()).hexdigest()
    file = folder / f"{content}.jpg"
    file.write_bytes(content.encode())
    found = Annotations(name, 10, 8, objects)
    return ImageRecord(content, file, found, name=name, by=PERSON, split=split)


def archive(
    pictures: Sequence[ImageRecord], form: Format, task: Task = "detect", images: bool = True
) -> dict[str, bytes]:
    names = sorted({o.label for one in pictures for o in one.annotations.objects})
    points = sorted(
        {p.name for one in pictures for o in one.annotations.objects for p in o.keypoints}
    )
    data = Exported(task, tuple(names), tuple(points), pictures)
    pieces = b"".join(zipped(entries(data, form, images)))
    with zipfile.ZipFile(io.BytesIO(pieces)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_voc_is_laid_out_as_the_challenge(tmp_path: Path) -> None:
    made = archive(
        [
            picture(tmp_path, "a/one.jpg", "train", BOX, SHAPE),
            picture(tmp_path, "two.v1.jpg", "val"),
        ],
        "voc",
    )
    assert sorted(made) == [
        "Annotations/one.xml", "Annotations/two.v1.xml", "ImageSets/Main/train.txt",
        "ImageSets/Main/val.txt", "JPEGImages/one.jpg", "JPEGImages/two.v1.jpg", "labelmap.txt",
    ]  # fmt: skip
    assert made["ImageSets/Main/val.txt"] == b"two.v1\n"
    assert made["labelmap.txt"].splitlines()[1:] == [b"car:::", b"dog:::"]
    found = from_voc(made["Annotations/one.xml"])
    assert found == Annotations("one.jpg", 10, 8, (BOX, SHAPE))
    assert from_voc(made["Annotations/two.v1.xml"]).image == "two.v1.jpg"


@pytest.mark.parametrize(
    ("task", "objects"),
    [
        ("detect", (BOX,)),
        ("segment", (SHAPE, BOX)),
        ("pose", (POSE,)),
        ("classify", (NIGHT,)),
    ],
)
def test_cvat_s_images_are_in_subsets(
    tmp_path: Path, task: Task, objects: tuple[Annotation, ...]
) -> None:
    pictures = [
        picture(tmp_path, "one.jpg", "train", *objects),
        picture(tmp_path, "two.jpg", "val"),
        picture(tmp_path, "two.jpg", "train", *objects),
    ]
    made = archive(pictures, "cvat_xml", task)
    text = made["annotations.xml"].decode()
    found = from_cvat_xml(text)
    assert [one.objects for one in found] == [objects, (), objects]
    assert [text.count(f'subset="{split}"') for split in ("train", "val")] == [2, 1]
    assert {f"images/train/{found[0].image}", f"images/val/{found[1].image}"} < set(made)
    assert found[1].image != found[2].image  # names that stand twice are told apart
    assert list(archive(pictures, "cvat_xml", task, images=False)) == ["annotations.xml"]


@pytest.mark.parametrize(
    ("form", "task", "objects", "told"),
    [
        ("coco", "classify", (NIGHT,), "the class of an image. 'format' must be one of: label"),
        ("voc", "classify", (), "cannot hold the class of an image"),
        ("voc", "pose", (), "cannot hold keypoints. 'format' must be one of: label_studio, yolo"),
        ("voc", "detect", (BOX, POSE), "keypoints ('one.jpg' has one)"),
        ("voc", "detect", (BOX, NIGHT), "the class of an image ('one.jpg' has one)"),
        ("coco", "detect", (BOX, NIGHT), "the class of an image ('one.jpg' has one)"),
        ("voc", "detect", (Annotation("a\x00b", box=(1, 1, 2, 2)),), "XML cannot represent"),
        ("cvat_xml", "detect", (Annotation("a\x1fb", box=(1, 1, 2, 2)),), "XML cannot represent"),
    ],
)
def test_what_a_format_cannot_hold_is_told_before_anything_is_written(
    tmp_path: Path, form: Format, task: Task, objects: tuple[Annotation, ...], told: str
) -> None:
    first = picture(tmp_path, "zero.jpg", "train", BOX)
    data = [first, picture(tmp_path, "one.jpg", "val", *objects)]
    with pytest.raises(ValidationFailed) as raised:
        archive(data, form, task)
    assert told in raised.value.message


def test_the_formats_that_can_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed) as raised:
        archive([], "voc", "pose")
    able = raised.value.message.partition("one of: ")[2].rstrip(".").split(", ")
    assert able == [form for form in FORMATS if form != "voc"]


def test_the_other_formats_stay_as_they_are(tmp_path: Path) -> None:
    pictures = [picture(tmp_path, "one.jpg", "train", BOX), picture(tmp_path, "two.jpg", "val")]
    assert "images/train/one.jpg" in archive(pictures, "yolo")
    document = json.loads(archive(pictures, "coco")["annotations/instances_train.json"])
    assert [one.objects for one in from_coco(document)] == [(BOX,)]
    assert "images/val/two.json" in archive(pictures, "labelme")
    assert "tasks.json" in archive(pictures, "label_studio")
