"""What public bug reports of annotation tools and converters tell of, sent as a correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from annotation.history import exported, newest
from tests.support.correction_app import (
    FRAMES,
    NAMES,
    Files,
    coco,
    correct,
    drawn,
    labelme,
    labels,
    packed,
    state,
    street,
    task,
    upload,
    voc,
)
from tests.support.training_app import Service

Box = tuple[float, ...]

CLASSES: Files = {"classes.txt": "car\nperson\ndog\n"}
CORNERS = [(8, 6, 20, 20), (20, 10, 50, 40), (30, 20, 60, 44), (10, 20, 60, 40)]


def document(name: str = "frame_2.png", box: Box = (8, 8, 20, 20), **more: Any) -> dict[str, Any]:
    """A COCO document of one object, with more in its annotation."""
    made = coco({name: ["dog"]}, box=box)
    made["annotations"][0] |= more
    return made


def documents(boxes: Sequence[Box], **more: Any) -> dict[str, Any]:
    made = coco({"frame_2.png": ["dog"] * len(boxes)})
    for row, box in zip(made["annotations"], boxes, strict=True):
        row |= {"bbox": list(box), **more}
    return made


def bounds(service: Service, dataset: str, name: str = "frame_2.png") -> list[list[float]]:
    found = exported(service.gateway.datasets, dataset, newest(service.gateway.datasets, dataset))
    (picture,) = (p for p in found.records if p.name.endswith(name))
    return [[round(v, 2) for v in o.bounds or ()] for o in picture.annotations.objects]


def polygon(*corners: float) -> list[list[float]]:
    return [list(corners)]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [(0, [10, 20, 50, 30]), (90, [25, 5, 35, 45]), (-90, [25, 5, 35, 45]), (360, [10, 20, 50, 30]),
     (30, [10.18, 10.67, 49.82, 39.33]), (330.0, [10.18, 10.67, 49.82, 39.33])],
)  # fmt: skip
def test_cvats_coco_boxes_are_turned_by_their_attribute(
    service: Service, frames: str, turn: float, expected: list[float]
) -> None:
    # https://github.com/cvat-ai/cvat/issues/4745
    sent = document(box=(10, 20, 40, 10), attributes={"occluded": False, "rotation": turn})
    answer = correct(service, frames, {"c.json": sent})
    assert answer.status_code == 201, answer.text
    assert bounds(service, frames) == [expected]


FRACTIONS = labelme("frame_2.png")
FRACTIONS["shapes"][0]["points"] = [[0.1, 0.2], [0.3, 0.4]]
VOC_FRACTIONS = voc("frame_2.png").replace(">5<", ">0.1<").replace(">25<", ">0.4<")
LABEL_STUDIO = {"x": 60.0, "y": 50.0, "width": 90.0, "height": 60.0}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        # https://github.com/cvat-ai/cvat/issues/4745
        ({"c.json": document(attributes={"rotation": "much"})}, "Annotation 1 of image 1"),
        # https://github.com/encord-team/encord-active/pull/534
        ({"c.json": document(box=(0.1, 0.2, 0.3, 0.4))}, "fractions"),
        ({"c.json": document(box=(0.1, 0.1, 0.4, 0.4),
                             segmentation=polygon(0.1, 0.1, 0.5, 0.1, 0.5, 0.5))}, "fractions"),
        ({"frame_2.json": FRACTIONS}, "frame_2.json"),
        # https://github.com/openimages/dataset/issues/75
        ({"frame_2.xml": VOC_FRACTIONS}, "frame_2.xml"),
        # https://github.com/twosixlabs/armory/issues/1491
        ({"c.json": documents([(8, 6, 20, 20)], area=12 * 14)}, "[x, y, width, height]"),
        ({"c.json": documents(CORNERS)}, "[x, y, width, height]"),
        # https://github.com/ultralytics/yolov5/issues/5365
        ({**CLASSES, "frame_2.txt": "".join(
            f"2 {a / 64:.4f} {b / 48:.4f} {c / 64:.4f} {d / 48:.4f}\n" for a, b, c, d in CORNERS
        )}, "centre"),
        # https://github.com/ryouchinsa/Rectlabel-support/issues/94
        ({"c.json": document(box=(10, 8, 20, 16),
                             segmentation=polygon(20, 16, 60, 16, 60, 48))}, "different scales"),
        # https://github.com/cvat-ai/cvat/issues/4250
        ({**CLASSES, "frame_2.txt": "2 0.5 0.5 0.2 0.2 -0.5\n"}, "four corners"),
        ({**CLASSES, "frame_2.txt": "2 0.5 0.5 0.2 0.2 1.57\n"}, "four corners"),
        # https://github.com/Babyhamsta/Yoable/issues/13
        ({**CLASSES, "frame_2.txt": "2 0,5 0,5 0,2 0,2\n"}, "with a decimal point"),
    ],
)  # fmt: skip
def test_refused_with_the_remedy(service: Service, frames: str, files: Files, says: str) -> None:
    before = state(service, frames)
    answer = correct(service, frames, files, confirm=True)
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["message"]
    assert state(service, frames) == before


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (document(box=(0, 0, 1, 1)), [[0, 0, 1, 1]]),  # the first pixel, in whole numbers
        (document(box=(8, 6, 12, 14), area=12 * 14), [[8, 6, 20, 20]]),
        (document(box=(10, 10, 54, 39)), [[10, 10, 64, 48]]),  # a bit over the edge, once
        # https://github.com/PaddleCV-SIG/EISeg/issues/85
        (document(box=(0, 0, 0, 0), segmentation=polygon(9, 9, 30, 9, 30, 30)), [[9, 9, 30, 30]]),
        (document(box=(9, 9, 20, 22), segmentation=polygon(9, 9, 30, 9, 30, 30)), [[9, 9, 30, 30]]),
    ],
)
def test_what_only_looks_like_it_is_taken(
    service: Service, frames: str, sent: dict[str, Any], expected: list[list[float]]
) -> None:
    answer = correct(service, frames, {"c.json": sent})
    assert answer.status_code == 201, answer.text
    assert bounds(service, frames) == expected


def test_objects_that_are_cut_at_the_edge_are_told(service: Service, frames: str) -> None:
    # https://github.com/HumanSignal/label-studio/issues/2702
    sent = task("frame_2.png")
    sent["annotations"][0]["result"][0]["value"] |= LABEL_STUDIO
    answer = correct(service, frames, {"t.json": [sent]})
    assert answer.status_code == 201, answer.text
    (note,) = [note for note in answer.json()["notes"] if "edge" in note]
    assert note.startswith("1 object")
    assert "'dog'" in note
    assert "32 pixels" in note
    assert bounds(service, frames) == [[38.4, 24, 64, 48]]


@pytest.mark.parametrize("label", ["dog ", " dog", "dog\n", "\u00a0dog"])
def test_spaces_around_a_name_make_no_class(service: Service, frames: str, label: str) -> None:
    # https://github.com/apple/turicreate/issues/1531, https://github.com/v7labs/darwin-py/pull/866
    shapes = labelme("frame_2.png")
    shapes["shapes"][0]["label"] = label
    answer = correct(service, frames, {"frame_2.json": shapes}, new_classes="refuse")
    assert answer.status_code == 201, answer.text
    assert answer.json()["new_classes"] == []
    assert labels(service, frames)["frame_2.png"] == ["dog"]


def test_a_name_in_either_unicode_form_is_one_class(service: Service) -> None:
    dataset = upload(service, street(FRAMES, ("vélo", "person", "dog")))
    shapes = labelme("frame_2.png")
    shapes["shapes"][0]["label"] = "ve\u0301lo"
    answer = correct(service, dataset, {"frame_2.json": shapes}, new_classes="refuse")
    assert answer.status_code == 201, answer.text
    assert labels(service, dataset)["frame_2.png"] == ["vélo"]


def test_a_new_class_has_no_spaces_around_it(service: Service, frames: str) -> None:
    shapes = labelme("frame_2.png")
    shapes["shapes"][0]["label"] = "zebra "
    answer = correct(service, frames, {"frame_2.json": shapes})
    assert answer.json()["new_classes"] == ["zebra"]
    assert labels(service, frames)["frame_2.png"] == ["zebra"]


def test_an_object_that_stands_twice_is_told(service: Service, frames: str) -> None:
    # https://github.com/HumanSignal/label-studio/issues/1289
    answer = correct(service, frames, {"c.json": documents([(8, 8, 20, 20), (8, 8, 20, 20)])})
    assert answer.status_code == 201, answer.text
    (note,) = [note for note in answer.json()["notes"] if "twice" in note]
    assert "'dog'" in note
    assert "frame_2.png" in note


def test_names_are_those_of_the_data_set(service: Service, frames: str) -> None:
    answer = correct(service, frames, {"c.json": document()})
    assert answer.status_code == 201
    assert service.gateway.datasets.get(frames)["classes"] == list(NAMES)


def sent_as_data_set(service: Service, document: dict[str, Any]) -> httpx.Response:
    files: Files = {"annotations/instances.json": document}
    files |= {f"images/frame_{number}.png": drawn(number) for number in (1, 2, 3)}
    form = {"file": ("set.zip", packed(files))}
    answer: httpx.Response = service.call(service.app, "POST", "/api/datasets", files=form)
    return answer


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (document(box=(0.1, 0.2, 0.3, 0.4)), "fractions"),
        (documents(CORNERS), "[x, y, width, height]"),
    ],
)
def test_a_data_set_is_refused_like_a_correction(
    service: Service, sent: dict[str, Any], says: str
) -> None:
    answer = sent_as_data_set(service, sent)
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["message"]


def test_a_data_sets_names_have_no_spaces_around_them(service: Service) -> None:
    # https://github.com/v7labs/darwin-py/pull/866
    sent = coco({f"frame_{number}.png": ["dog", "car"] for number in (1, 2, 3)})
    for category in sent["categories"]:
        category["name"] += " "
    answer = sent_as_data_set(service, sent)
    assert answer.status_code == 201, answer.text
    assert answer.json()["classes"] == list(NAMES)


# https://github.com/huggingface/datasets/issues/4015, https://github.com/tensorflow/models/pull/6325
@pytest.mark.parametrize("name", ["train/metadata.jsonl", "train.tfrecord", "a/b.PARQUET"])
def test_images_beside_annotations_that_are_not_read_are_refused(
    service: Service, name: str
) -> None:
    files: Files = {f"train/frame_{number}.png": drawn(number) for number in (1, 2, 3)}
    form = {"file": ("set.zip", packed(files | {name: b"{}"}))}
    answer = service.call(service.app, "POST", "/api/datasets", files=form)
    assert answer.status_code == 400, answer.text
    assert name in answer.json()["message"]
    form = {"file": ("set.zip", packed(files))}
    assert service.call(service.app, "POST", "/api/datasets", files=form).status_code == 201


def test_label_studios_values_are_percent(service: Service, frames: str) -> None:
    # https://github.com/HumanSignal/label-studio/issues/4799
    sent = task("frame_2.png")
    regions = sent["annotations"][0]["result"]
    regions += [regions[0] | {"id": "b", "value": regions[0]["value"] | {"x": 50}}]
    for region in regions:
        region["value"] |= {
            key: region["value"][key] / 100 for key in ("x", "y", "width", "height")
        }
    before = state(service, frames)
    answer = correct(service, frames, {"t.json": [sent]})
    assert answer.status_code == 400, answer.text
    assert "percent" in answer.json()["message"]
    assert state(service, frames) == before
