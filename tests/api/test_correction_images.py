"""Corrections over HTTP: which image is meant."""

from __future__ import annotations

from typing import Any

import pytest

from formats.annotations import FORMATS
from tests.support.correction_app import (
    BEFORE,
    BOX,
    Files,
    coco,
    correct,
    cvat,
    drawn,
    labelme,
    labels,
    street,
    task,
    upload,
    voc,
)
from tests.support.training_app import Service

SECOND = {"frame_1.png": 11, "frame_2.png": 12, "frame_4.png": 14}
STEMS = {name: name[:-4] for name in SECOND}


@pytest.mark.parametrize(
    "documents",
    [
        {"annotations/instances_default.json": coco({name: ["dog"] for name in SECOND})},
        {"tasks.json": [task(f"images/{name}") for name in SECOND]},
        {f"images/{stem}.json": labelme(name) for name, stem in STEMS.items()},
        {f"Annotations/{stem}.xml": voc(name) for name, stem in STEMS.items()},
        {"annotations.xml": cvat(dict.fromkeys(SECOND, "dog"))},
        {f"labels/{stem}.txt": f"2 {BOX}" for stem in STEMS.values()} | {"obj.names": "a\nb\ndog"},
    ],
    ids=["coco", "label_studio", "labelme", "voc", "cvat", "yolo"],
)
def test_images_of_the_same_names_are_other_images(
    service: Service, frames: str, documents: Files
) -> None:
    files: Files = {f"images/{name}": drawn(seed) for name, seed in SECOND.items()} | documents
    answer = correct(service, frames, files)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found["accounting"]["images"] == {"received": 3, "matched": 0, "new": 3, "unmatched": 0}
    assert set(found["renamed"]) == {"images/frame_1.png", "images/frame_2.png"}
    stored = {name.rpartition("/")[2]: ["dog"] for name in found["renamed"].values()}
    assert len(stored) == 2
    assert labels(service, frames) == BEFORE | stored | {"frame_4.png": ["dog"]}
    again = correct(service, frames, files)  # now they are known by their content
    assert (again.status_code, again.json()["repeated"]) == (200, True)


ODD = ("IMG_0001.PNG", "b.JPEG", "images.png", "labels.png", "train.png", "classes.png",
       "20240115-a.png", "20240116-a.png", "0f6142fb-a.png", "a.png", "a.png.png", "a b#%20.png",
       "街.png", "cafe\u0301.png", "caf\u00e9.png", "A.png", "x.001.png")  # fmt: skip


@pytest.mark.parametrize("images", [True, False])
def test_whatever_images_are_called_their_exports_come_back(service: Service, images: bool) -> None:
    paths = {f"{'train' if i % 3 else 'val'}/{name}": i % 3 for i, name in enumerate(ODD)}
    dataset = upload(service, street(paths))
    before = labels(service, dataset)
    assert len(before) == len(ODD)
    for number, form in enumerate(FORMATS):
        path = f"/api/datasets/{dataset}/export"
        query = {"format": form, "revision": 0, "images": images}
        export = service.call(service.app, "GET", path, params=query)
        answer = correct(service, dataset, export.content)
        assert answer.status_code == (200 if number else 201), (form, answer.text)
        assert answer.json()["accounting"]["images"] == {
            "received": len(ODD), "matched": len(ODD), "new": 0, "unmatched": 0,
        }  # fmt: skip
        assert answer.json()["unchanged"] == len(ODD)
        assert labels(service, dataset) == before


def test_two_videos_in_one_zip_do_not_meet(service: Service, frames: str) -> None:
    files: Files = {}
    for number, label in ((1, "dog"), (2, "person")):
        files[f"v{number}/images/frame_1.png"] = drawn(30 + number)
        files[f"v{number}/annotations/instances.json"] = coco({"frame_1.png": [label]})
    answer = correct(service, frames, files).json()
    assert answer["accounting"]["images"] == {"received": 2, "matched": 0, "new": 2, "unmatched": 0}
    found = labels(service, frames)
    one, two = (answer["renamed"][f"v{n}/images/frame_1.png"].rpartition("/")[2] for n in (1, 2))
    assert found == BEFORE | {one: ["dog"], two: ["person"]}
    flat = {name: data for name, data in files.items() if name.endswith(".png")}
    flat["a.json"] = coco({"frame_1.png": ["car"]})
    message = correct(service, frames, flat).json()["message"]
    assert "frame_1.png: the zip contains several images with this name" in message


def test_without_its_image_a_name_does_not_count_where_others_came_under_known_names(
    service: Service, frames: str
) -> None:
    files: Files = {"images/frame_1.png": drawn(11), "c.json": coco({n: ["dog"] for n in SECOND})}
    files |= {"broken.jpg": b"no image", "images/frame_3.png": drawn(2)}
    answer = correct(service, frames, files).json()
    assert answer["accounting"]["images"] == {"received": 5, "matched": 1, "new": 1, "unmatched": 3}
    assert (
        answer["unmatched_reasons"]["broken.jpg"] == "in the upload, but no document describes it"
    )
    assert "the upload does not contain its image" in answer["unmatched_reasons"]["frame_2.png"]
    assert BEFORE.items() <= labels(service, frames).items()


@pytest.mark.parametrize(
    "document",
    [coco({"frame_1.png": ["dog"]}, (640, 480)), labelme("frame_1.png", size=(640, 480)),
     [task("frame_1.png")], voc("frame_1.png", size=(48, 64)),
     cvat({"frame_1.png": "dog"}, (48, 64))],
)  # fmt: skip
def test_annotations_of_another_size_fit_no_image(
    service: Service, frames: str, document: Any
) -> None:
    if isinstance(document, list):
        region = document[0]["annotations"][0]["result"][0]
        document = [document[0] | {"annotations": [{"id": 1, "result": [
            region | {"original_width": 640, "original_height": 480}]}]}]  # fmt: skip
    name = "frame_1.xml" if isinstance(document, str) else "frame_1.json"
    files: Files = {name: document, "labels/frame_2.txt": f"0 {BOX}"}
    answer = correct(service, frames, files).json()
    assert answer["unmatched"] == ["frame_1.png"]
    assert "the image has 64 × 48" in answer["unmatched_reasons"]["frame_1.png"]
    assert answer["accounting"]["objects"]["received"] == 2
    assert answer["accounting"]["objects"]["passed_over"] == {"on unmatched images": 1}
    assert labels(service, frames) == BEFORE | {"frame_2.png": ["car"]}
