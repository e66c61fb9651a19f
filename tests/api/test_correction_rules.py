"""Corrections over HTTP: what is taken, what is refused, and what is told of it."""

from __future__ import annotations

import json

import pytest

from annotation.history import exported
from tests.support.correction_app import (
    BEFORE,
    BOX,
    FRAMES,
    Files,
    coco,
    correct,
    cvat,
    drawn,
    labelme,
    labels,
    state,
    street,
    task,
    upload,
    voc,
)
from tests.support.training_app import Service

IMAGES: Files = {f"images/frame_{i + 1}.png": drawn(i) for i in range(3)}
VIA = {"_via_settings": {}, "_via_img_metadata": {"frame_1.png12": {
    "filename": "frame_1.png", "size": 12, "regions": []}}}  # fmt: skip
MIN = [{"id": 1, "image": "frame_1.png", "annotation_id": 3, "label": [
    {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["dog"]}]}]  # fmt: skip
CAPTIONS = {"images": [{"id": 1, "file_name": "frame_1.png", "width": 64, "height": 48}],
            "annotations": [{"id": 1, "image_id": 1, "caption": "A dog."}]}  # fmt: skip
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.9}]
CREATE_ML = [{"image": "frame_1.png", "annotations": [{"label": "dog", "coordinates": {}}]}]
SKIPPED = task("frame_1.png") | {"annotations": [{"id": 1, "was_cancelled": True, "result": []}]}
CHOSEN = {"id": 5, "data": {"image": "frame_1.png"}, "annotations": [{"id": 1, "result": [
    {"id": "c", "type": "choices", "value": {"choices": ["night"]}}]}]}  # fmt: skip
PREDICTED = {"data": {"image": "frame_2.png"}, "predictions": [{"result": []}], "annotations": []}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (IMAGES, "3 images"),
        ({"README.txt": "Photos of a street.\n", **IMAGES}, "README.txt"),
        ({"dog/a.png": drawn(7), "cat/b.png": drawn(8)}, "Folders are not read as classes in"),
        (IMAGES | {"via.json": VIA}, "via.json is a project of the VGG Image Annotator"),
        ({"min.json": MIN}, "min.json is Label Studio's JSON-MIN"),
        ({"captions.json": CAPTIONS}, "captions.json is a COCO captions"),
        ({"results.json": RESULTS}, "results.json is a list of COCO results"),
        ({"both.json": [coco({"frame_1.png": ["dog"]}), {}]}, "both.json, document 2: This is not"),
        ({"t.json": [CHOSEN]}, "none of their objects can be stored"),
        ({"classes.txt": "für\n".encode("cp1252"), "labels/frame_1.txt": f"0 {BOX}"}, "UTF-8"),
        ({"labels/frame_1.txt": f"x {BOX}\n0 {BOX}"}, "labels/frame_1.txt"),
        ({"labels/frame_1.txt": f"0 {BOX}\n0 0.5 zwei 0.1 0.1"}, "is not a class id and numbers"),
        ({"labels/frame_1.txt": "0 0.5 0.5 0 0"}, "1 boxes without an area"),
        ({"ml.json": CREATE_ML}, "ml.json is a Create ML"),
        ({"odd.json": {"things": [{"bbox": [1, 2, 3, 4]}]}}, "odd.json may contain annotations"),
        ({"odd.xml": "<boxes><box/></boxes>"}, "odd.xml may contain annotations"),
        ({"t.csv": "image,label,xmin\na.png,dog,1\n"}, "t.csv may contain annotations"),
        ({"t.json": '{"labels": {"frame_1.png": "", "frame_1.png": "0 .5 .5 .1 .1"}}'}, "twice"),
        ({"bad.json": "{nope"}, "bad.json is not valid JSON"),
        ({"a.txt": f"dog {BOX}\n"}, "a.txt has lines that begin with a class name"),
        ({"labels/frame_1.txt": "nothing\n"}, "labels/frame_1.txt"),
        ({"a.txt": "car 0.0 0 -1.5 5 5 25 25 1.5 1.6 3.9 1.8 1.4 8.4 -1.5"}, "KITTI"),
        ({"v.xml": "<annotation><object><name>dog</name></object></annotation>"}, "v.xml"),
        ({"t.json": [SKIPPED, PREDICTED]}, "2 tasks or images, 1 skipped, 1 with predictions"),
        ({"t.json": [{"data": {"image": "frame_1.png"}}]}, "1 not annotated"),
        ({"c.json": coco({"frame_1.png": [], "frame_2.png": []})}, "empty=background"),
        ({"c.xml": cvat({"frame_1.png": None})}, "empty=background"),
        ({"frame_1.json": labelme("frame_2.png")}, "imagePath 'frame_2.png'"),
        ({"frame_1.xml": voc("frame_2.png")}, "filename 'frame_2.png'"),
        ({"labels/frame_1.txt": "0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 1"}, "kpt_shape"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dry", [False, True])
def test_what_cannot_be_taken_is_told_by_name_and_changes_nothing(
    service: Service, frames: str, files: Files, says: str, dry: bool
) -> None:
    before = state(service, frames)
    answer = correct(service, frames, files, dry_run=dry)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), answer.text
    assert says in answer.json()["message"]
    assert state(service, frames) == before


@pytest.mark.parametrize(
    "files",
    [
        {"t.json": [task("frame_1.png", None)]},
        {"labels/frame_1.txt": ""},
        {"frame_1.txt": "\n"},
        {"frame_1.json": labelme("frame_1.png", None)},
        {"frame_1.xml": voc("frame_1.png", None)},
    ],
)
def test_an_image_that_is_said_to_be_empty_is(service: Service, frames: str, files: Files) -> None:
    answer = correct(service, frames, files)
    assert answer.status_code == 201, answer.text
    assert labels(service, frames) == BEFORE | {"frame_1.png": []}


@pytest.mark.parametrize(
    "files",
    [
        {"c.json": coco({"frame_1.png": [], "frame_2.png": ["dog"]})},
        {"c.xml": cvat({"frame_1.png": None, "frame_2.png": "dog"})},
    ],
)
def test_an_image_without_marks_stays_as_it_is_unless_it_is_background(
    service: Service, frames: str, files: Files
) -> None:
    answer = correct(service, frames, files).json()
    assert answer["accounting"]["images"] == {"received": 2, "matched": 2, "new": 0, "unmatched": 0}
    assert (answer["received"], answer["left_as_they_are"]) == (1, 1)
    assert "1 images are unchanged" in answer["notes"][0]
    assert labels(service, frames) == BEFORE | {"frame_2.png": ["dog"]}
    answer = correct(service, frames, files, empty="background", confirm=True).json()
    assert (answer["received"], answer["left_as_they_are"], answer["notes"]) == (2, 0, [])
    assert labels(service, frames) == BEFORE | {"frame_1.png": [], "frame_2.png": ["dog"]}


@pytest.mark.parametrize(
    ("lists", "wanted", "note"),
    [
        ({"obj.names": "dog\nperson\ncar\n"}, "dog", ""),
        ({"data/obj.names": "dog\nperson\ncar\n"}, "dog", ""),
        ({"labels/_darknet.labels": "dog\ncar\n"}, "dog", ""),
        ({"labels/classes.txt": "dog\nperson"}, "dog", ""),
        ({"classes.txt": "dog\n".encode("utf-16")}, "dog", ""),
        ({"meta/labels.txt": "0 dog\n1 car\n"}, "dog", ""),
        ({"x/y/data.yaml": "names: [person]\ntrain: a\n"}, "person", ""),
        ({"dataset.yaml": "names: {0: person}"}, "person", ""),
        ({"notes.json": {"categories": [{"id": 0, "name": "dog"}], "info": {}}}, "dog", ""),
        ({"labels/classes.txt": "dog", "copy/classes.txt": "car"}, "dog", ""),
        ({}, "car", "the class order of this dataset (0 car, 1 person, 2 dog)"),
        ({"data.yaml": "nc: 3\ntrain: images\n"}, "car", "class order of this dataset"),
    ],
)
def test_whose_class_ids_are_meant(
    service: Service, frames: str, lists: Files, wanted: str, note: str
) -> None:
    answer = correct(service, frames, {"labels/frame_2.txt": f"0 {BOX}", **lists})
    assert answer.status_code == 201, answer.text
    assert labels(service, frames) == BEFORE | {"frame_2.png": [wanted]}
    assert note in "".join(answer.json()["notes"])
    assert bool(note) == bool(answer.json()["notes"])


@pytest.mark.parametrize(
    "lists",
    [
        {"classes.txt": "dog\ncar", "data.yaml": "names: [car, dog]"},
        {"labels/classes.txt": "dog\ncar", "obj.names": "car\ndog"},
        {"a/data.yaml": "names: [car, dog]", "b/data.yaml": "names: [dog, car]"},
        {"a/classes.txt": "dog\ncar", "b/classes.txt": "car\ndog"},
    ],
)
def test_two_orders_of_classes_are_refused(service: Service, frames: str, lists: Files) -> None:
    before = state(service, frames)
    answer = correct(service, frames, {"labels/frame_2.txt": f"0 {BOX}", **lists})
    assert answer.status_code == 400, answer.text
    assert all(name in answer.json()["message"] for name in lists)
    assert state(service, frames) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("frame_1.xml", voc("frame_1.png")),
        ("annotations.xml", cvat({"frame_1.png": "dog"})),
        ("frame_1.txt", f"2 {BOX}"),
        ("tasks.JSON", json.dumps([task("frame_1.png")])),
        ("C:\\\\x\\\\frame_1.json", json.dumps(labelme("frame_1.png"))),
    ],
)
def test_a_document_need_not_be_packed(
    service: Service, frames: str, name: str, content: str
) -> None:
    path = f"/api/datasets/{frames}/annotations"
    files = {"file": (name, content.encode())}
    answer = service.call(service.app, "POST", path, files=files)
    assert answer.status_code == 201, answer.text
    assert labels(service, frames) == BEFORE | {"frame_1.png": ["dog"]}
    files = {"file": (f"other{name[-4:]}", b"\0")}
    assert service.call(service.app, "POST", path, files=files).status_code == 400


CONFIG = """<View><Image name="l" value="$left"/><Image name="r" value="$right"/>
<RectangleLabels name="a" toName="l"><Label value="dog"/></RectangleLabels>
<RectangleLabels name="b" toName="r"><Label value="car"/></RectangleLabels></View>"""


def test_the_images_of_a_task_get_their_own_regions(service: Service, frames: str) -> None:
    one, other = task("frame_1.png", "dog"), task("frame_2.png", "car")
    regions = [one["annotations"][0]["result"][0] | {"to_name": "l"},
               other["annotations"][0]["result"][0] | {"to_name": "r"}]  # fmt: skip
    data = {"left": "/data/upload/1/0f6142fb-frame_1.png", "right": "frame_2.png"}
    tasks = [{"id": 4, "data": data, "annotations": [{"id": 9, "result": regions}]}]
    before = state(service, frames)
    answer = correct(service, frames, {"tasks.json": tasks})
    assert (
        "tasks.json, task 4, annotation 9: The task has several images" in answer.json()["message"]
    )
    assert state(service, frames) == before
    answer = correct(service, frames, {"tasks.json": tasks, "label_config.xml": CONFIG})
    assert answer.status_code == 201, answer.text
    assert labels(service, frames) == BEFORE | {"frame_1.png": ["dog"], "frame_2.png": ["car"]}


def test_a_list_of_classes_with_a_gap_is_refused(service: Service, frames: str) -> None:
    files = {"labels/frame_2.txt": f"1 {BOX}", "classes.txt": "car\n\ndog\n"}
    assert "line 2 is empty" in correct(service, frames, files).json()["message"]


def test_documents_that_say_the_same_are_one_and_others_are_refused(
    service: Service, frames: str
) -> None:
    document = coco({"frame_1.png": ["dog"]}, box=(5, 5, 20, 20))
    files: Files = {
        "c.json": document,
        "frame_1.json": labelme("frame_1.png"),
        "v.xml": "<View></View>",
    }
    answer = correct(service, frames, files).json()
    assert answer["accounting"]["objects"]["passed_over"] == {"stated twice": 1}
    assert (answer["accounting"]["images"]["received"], answer["ignored_files"]) == (1, ["v.xml"])
    files["frame_1.json"] = labelme("frame_1.png", "car")
    message = correct(service, frames, files).json()["message"]
    assert "c.json (frame_1.png)" in message or "c.json, frame_1.png" in message
    assert "frame_1.json" in message
    assert "annotate the same image of the dataset differently" in message


def test_classes_of_images_are_no_objects_and_objects_no_classes(service: Service) -> None:
    detect = upload(service, street(FRAMES))
    marked = task("frame_1.png")
    marked["annotations"][0]["result"].append(
        {"id": "c", "type": "choices", "value": {"choices": ["night"]}}
    )
    marked["annotations"][0]["result"].append({"id": "t", "type": "textarea", "value": {}})
    answer = correct(service, detect, {"t.json": [marked]}).json()
    assert (
        answer["accounting"]["objects"]["received"],
        answer["accounting"]["objects"]["stored"],
    ) == (3, 1)
    assert answer["new_classes"] == []
    assert labels(service, detect) == BEFORE | {"frame_1.png": ["dog"]}

    classes: Files = {
        f"{split}/{label}/{label}{i}.png": drawn(10 * i + ord(label[0]))
        for split, i in (("train", 0), ("train", 1), ("val", 2))
        for label in ("cat", "dog")
    }
    classify = upload(service, classes)
    answer = correct(service, classify, {"c.json": coco({"cat0.png": ["dog"]})})
    assert answer.status_code == 400, answer.text
    assert "none of their objects can be stored" in answer.json()["message"]


def test_documents_of_a_list_have_ids_of_their_own(service: Service, frames: str) -> None:
    both = [coco({"frame_1.png": ["dog"]}), coco({"frame_2.png": ["car", "dog"]})]
    answer = correct(service, frames, {"both.json": both})
    assert answer.status_code == 201, answer.text
    assert answer.json()["accounting"]["objects"]["stored"] == 3
    after = {"frame_1.png": ["dog"], "frame_2.png": ["car", "dog"]}
    assert labels(service, frames) == BEFORE | after


def test_of_several_annotators_one_counts_and_the_others_are_counted(
    service: Service, frames: str
) -> None:
    several = task("frame_1.png", "dog")
    (first,) = several["annotations"]
    several["annotations"] = [
        first | {"id": 1, "updated_at": "2026-01-02T00:00:00Z"},
        first | {"id": 2, "updated_at": "2026-01-01T00:00:00Z", "result": first["result"] * 2},
    ]
    answer = correct(service, frames, {"t.json": [several]}).json()
    assert answer["accounting"]["objects"]["passed_over"] == {
        "Label Studio regions of an older annotation of the same task": 2
    }
    assert (
        answer["accounting"]["objects"]["received"],
        answer["accounting"]["objects"]["stored"],
    ) == (3, 1)


def test_a_subset_of_cvat_tells_images_of_one_name_apart(service: Service) -> None:
    dataset = upload(service, street({"train/a.png": 0, "val/a.png": 1, "val/b.png": 2}))
    one, other = cvat({"a.png": "dog"}), cvat({"a.png": "person"})
    image = other[other.index("<image ") : other.index("</annotations>")]
    both = one.replace("<image ", '<image subset="train" ').replace(
        "</annotations>", image.replace("<image ", '<image subset="val" ') + "</annotations>"
    )
    answer = correct(service, dataset, {"annotations.xml": both})
    assert (answer.status_code, answer.json()["unmatched"]) == (201, [])
    pictures = exported(service.gateway.datasets, dataset, 1).records
    found = {p.name: [o.label for o in p.annotations.objects] for p in pictures}
    assert found["images/train/a.png"] == ["dog"]
    assert found["images/val/a.png"] == ["person"]


def test_a_choice_says_nothing_of_boxes_unless_boxes_are_drawn(
    service: Service, frames: str
) -> None:
    drawing = [task("frame_2.png"), CHOSEN]
    answer = correct(service, frames, {"t.json": drawing})
    assert answer.status_code == 201, answer.text
    after = {"frame_1.png": [], "frame_2.png": ["dog"]}
    assert labels(service, frames) == BEFORE | after


@pytest.mark.parametrize("folder", ["images", "labels", "train", "val", "test", "train2017",
                                    "valid", "Validation", "testing"])  # fmt: skip
def test_folders_that_sort_by_something_else_are_no_classes(service: Service, folder: str) -> None:
    classes: Files = {
        f"{split}/{label}/{label}{i}.png": drawn(10 * i + ord(label[0]))
        for split, i in (("train", 0), ("train", 1), ("val", 2))
        for label in ("cat", "dog")
    }
    dataset = upload(service, classes)
    before = state(service, dataset)
    files = {f"{folder}/cat0.png": classes["train/cat/cat0.png"]}
    answer = correct(service, dataset, files)
    assert (answer.status_code, state(service, dataset)) == (400, before), answer.text
    files |= {"x/dog/cat1.png": classes["train/cat/cat1.png"]}
    answer = correct(service, dataset, files).json()
    assert answer["accounting"]["images"] == {"received": 2, "matched": 2, "new": 0, "unmatched": 0}
    assert labels(service, dataset)["cat1.png"] == ["dog"]
    assert labels(service, dataset)["cat0.png"] == ["cat"]
