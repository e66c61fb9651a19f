"""Uploads of what tools export: every image and object is accounted for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from annotation.datasets import AnnotatedDatasets
from annotation.originals import adopt, originals
from annotation.uploads.upload import add_upload
from database import Database
from dataset.issues import require_usable
from dataset.store import DatasetStore
from errors import DatasetInvalid, VisionLoopError
from formats.annotations import Annotations
from models_store.description import Task
from settings import Settings
from tests.annotation.uploads.test_uploads import packed
from tests.support import exported_zips as made
from tests.support.exported_zips import CLASSES, SIZE, ZIPS, Entries, Shown

SHOWN = made.shown()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> DatasetStore:
    return DatasetStore(settings)


def add(store: DatasetStore, entries: Entries, task: Task | None = None) -> dict[str, Any]:
    card = add_upload(store, packed(entries), "set", task)
    counted = ("labelled", "empty", "without_annotation", "unreadable", "copies")
    assert card["accounting"]["images"]["received"] == sum(
        card["accounting"]["images"][kind] for kind in counted
    )
    objects = card["accounting"]["objects"]
    assert objects["received"] == objects["stored"] + sum(objects["passed_over"].values())
    return card


def kinds(card: dict[str, Any]) -> set[str]:
    return {problem["kind"] for problem in card["problems"]}


def boxes(found: Annotations) -> list[tuple[str, ...]]:
    rows = []
    for thing in found.objects:
        assert thing.bounds is not None
        x1, y1, x2, y2 = thing.bounds
        numbers = (round(x1), round(y1), round(x2 - x1), round(y2 - y1))
        rows.append((thing.label, *map(str, numbers)))
    return sorted(rows)


def expected(one: Shown) -> list[tuple[str, ...]]:
    return sorted((label, *map(str, box)) for label, *box in one.boxes)


@pytest.mark.parametrize("what", ZIPS)
def test_what_tools_export_becomes_a_dataset_with_all_of_it(store: DatasetStore, what: str) -> None:
    make, form, stated = ZIPS[what]
    card = add(store, make(SHOWN))
    assert card["source_format"] == form
    assert card["usable"]
    assert card["task"] == "detect"
    assert card["accounting"]["images"]["received"] == 8
    assert card["accounting"]["images"]["labelled"] == 7
    assert card["accounting"]["images"]["empty"] == 1
    assert card["accounting"]["objects"] == {"received": 14, "stored": 14, "passed_over": {}}
    assert set(card["classes"]) >= {"car", "dog"}
    if form in ("coco", "yolo"):
        assert card["classes"] == list(CLASSES)
    dataset = store.open(card["id"])
    for picture in originals(dataset):
        one = next(one for one in SHOWN if Path(picture.name).name == one.name)
        assert boxes(picture.annotations) == expected(one)
        if stated:
            assert picture.split == one.split
        assert (picture.annotations.width, picture.annotations.height) == SIZE
    assert ("held_out" in kinds(card)) == (not stated)


@pytest.mark.parametrize("what", ZIPS)
def test_wrapped_in_a_folder_beside_rests_it_is_the_same(store: DatasetStore, what: str) -> None:
    make, form, _ = ZIPS[what]
    entries = {f"my export/{name}": data for name, data in make(SHOWN).items()}
    entries |= {"__MACOSX/my export/._x.json": b"\0", "my export/.DS_Store": b"\0"}
    entries |= {"my export/Thumbs.db": b"\0", "my export/labels.cache": b"\0"}
    card = add(store, entries)
    assert (card["source_format"], card["accounting"]["objects"]["stored"]) == (form, 14)


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify", None])
def test_images_alone_are_a_dataset_to_annotate(
    store: DatasetStore, settings: Settings, task: Task | None
) -> None:
    entries = made.together(SHOWN[:4], "frames/") | {"frames/again.jpg": SHOWN[0].data}
    card = add(store, entries, task)
    assert card["source_format"] == "images"
    assert card["accounting"]["images"]["without_annotation"] == 4
    assert card["accounting"]["images"]["copies"] == 1
    assert not card["usable"]
    assert "POST /api/datasets/{id}/annotations" in card["problems"][0]["message"]
    assert card["classes"] == []
    assert card["task"] == (task or "detect")
    dataset = store.open(card["id"])
    with pytest.raises(DatasetInvalid, match="Annotate them"):
        require_usable(dataset.findings)
    database = Database(settings)
    annotated = AnnotatedDatasets(database)
    row = adopt(annotated, store, card["id"])
    pictures = annotated.entries.records(row.id)
    assert len(pictures) == 4
    assert not any(picture.trains for picture in pictures)
    database.close()


def test_images_in_one_folder_per_class_stay_classes(store: DatasetStore) -> None:
    entries = {
        f"{label}/{i}.jpg": made.image(10 * i + j)
        for j, label in enumerate(("cat", "dog"))
        for i in range(5)
    }
    card = add(store, entries)
    assert (card["source_format"], card["task"]) == ("folders", "classify")
    assert card["accounting"]["images"]["labelled"] == 10
    assert card["accounting"]["objects"] == {"received": 10, "stored": 10, "passed_over": {}}
    alone = add(store, entries, "detect")
    assert (alone["source_format"], alone["accounting"]["images"]["without_annotation"]) == (
        "images",
        10,
    )


def test_documents_without_their_images_are_refused(store: DatasetStore) -> None:
    for entries in (
        {"c.json": made.dumped(made.coco(SHOWN))},
        {"annotations.xml": made.cvat(SHOWN)},
        {"project.json": made.dumped(made.tasks(SHOWN))},
    ):
        with pytest.raises(
            DatasetInvalid, match=r"contains none of these images\. Pack the images"
        ):
            add_upload(store, packed(entries), "set")
    assert store.list() == []


def test_described_images_that_did_not_come_are_named(store: DatasetStore) -> None:
    card = add(store, {"c.json": made.dumped(made.coco(SHOWN)), **made.together(SHOWN[:5])})
    assert card["accounting"]["images"] == {
        "received": 5, "labelled": 4, "empty": 1, "without_annotation": 0, "unreadable": 0,
        "copies": 0, "missing": 3,
    }  # fmt: skip
    assert card["accounting"]["objects"]["stored"] == 8
    assert card["accounting"]["objects"]["passed_over"] == {"on unmatched images": 6}
    assert "p 7.jpg" in json.dumps(card["problems"])


def test_images_nobody_described_wait_and_do_not_train(store: DatasetStore) -> None:
    card = add(store, {"c.json": made.dumped(made.coco(SHOWN[:6])), **made.together(SHOWN)})
    assert card["accounting"]["images"]["without_annotation"] == 2
    assert sum(split["images"] for split in card["splits"].values()) == 6
    assert len(store.open(card["id"]).unlabelled) == 2


def test_unfinished_tasks_wait_and_finished_empty_ones_are_backgrounds(
    store: DatasetStore,
) -> None:
    rows = made.tasks(SHOWN)
    rows[6]["annotations"] = []
    rows[7]["annotations"][0]["was_cancelled"] = True
    card = add(store, {"p.json": made.dumped(rows), **made.together(SHOWN)})
    assert (card["accounting"]["images"]["labelled"], card["accounting"]["images"]["empty"]) == (
        5,
        1,
    )
    assert card["accounting"]["images"]["without_annotation"] == 2
    for row in rows:
        row["annotations"] = []
    card = add(store, {"p.json": made.dumped(rows), **made.together(SHOWN)})
    assert (card["usable"], card["accounting"]["images"]["without_annotation"]) == (False, 8)
    assert "not annotated" in "".join(card["notes"])


def polygons(images: list[Shown], every: int) -> Any:
    """COCO whose every so many-th object is a polygon."""
    document = made.coco(images)
    for row in document["annotations"][::every]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 2, x, y + h]]
    return document


@pytest.mark.parametrize(
    ("every", "task", "becomes", "said"),
    [
        (1, None, "segment", ""),
        (1, "detect", "detect", "14 polygons"),
        (3, None, "detect", "5 polygons"),
        (3, "segment", "segment", "9 boxes"),
    ],
)
def test_boxes_among_polygons_go_with_the_task_and_are_told(
    store: DatasetStore, every: int, task: Task | None, becomes: str, said: str
) -> None:
    entries = {"c.json": made.dumped(polygons(SHOWN, every)), **made.together(SHOWN)}
    card = add(store, entries, task)
    assert card["task"] == becomes
    assert card["accounting"]["objects"]["stored"] == 14
    told = "".join(problem["message"] for problem in card["problems"])
    assert said in told
    assert ("converted" in kinds(card)) == bool(said)


def test_objects_without_an_area_are_counted_and_named(store: DatasetStore) -> None:
    document = made.coco(SHOWN)
    document["annotations"][2]["bbox"] = [5, 5, 0, 0]
    document["annotations"][5]["bbox"] = [500, 500, 10, 10]
    card = add(store, {"c.json": made.dumped(document), **made.together(SHOWN)})
    assert card["accounting"]["objects"]["stored"] == 12
    assert card["accounting"]["objects"]["passed_over"] == {
        "boxes without an area": 1,
        "without an area within the image": 1,
    }
    (problem,) = [one for one in card["problems"] if one["kind"] == "no_place"]
    assert "p 3.jpg" in "".join(problem["examples"])


def test_names_of_several_folders_stay_apart(store: DatasetStore) -> None:
    images = [Shown(f"cam{i % 2}/{i // 2}.jpg", "train", one.boxes, one.data)
              for i, one in enumerate(SHOWN)]  # fmt: skip
    card = add(
        store, {"c.json": made.dumped(made.coco(images)), **made.together(images, "images/")}
    )
    assert card["accounting"]["objects"]["stored"] == 14
    assert card["renamed"] == {}
    found = {picture.name: picture for picture in originals(store.open(card["id"]))}
    assert set(found) == {f"images/train/{one.name}" for one in images}
    for one in images:
        assert boxes(found[f"images/train/{one.name}"].annotations) == expected(one)


def test_two_suffixes_of_one_stem_get_labels_of_their_own(store: DatasetStore) -> None:
    png = Shown("p 1.png", "train", (("cat", 1, 2, 30, 20),), made.image(99, "PNG"))
    images = [*SHOWN, png]
    card = add(store, {"c.json": made.dumped(made.coco(images)), **made.together(images)})
    assert card["renamed"] == {"p 1.png": "images/train/p 1-2.png"}
    found = {
        picture.name: boxes(picture.annotations) for picture in originals(store.open(card["id"]))
    }
    assert found["images/train/p 1-2.png"] == expected(png)
    assert found["images/train/p 1.jpg"] == expected(SHOWN[1])


def test_unreadable_images_are_left_out_and_formats_of_all_kinds_are_taken(
    store: DatasetStore,
) -> None:
    others = [
        Shown("a.gif", "train", (("cat", 1, 2, 30, 20),), made.image(50, "GIF")),
        Shown("b.ppm", "train", (("cat", 1, 2, 30, 20),), made.image(51, "PPM")),
        Shown("c.jpg", "train", (("cat", 1, 2, 30, 20),), b"no image"),
    ]
    images = [*SHOWN, *others]
    card = add(store, {"c.json": made.dumped(made.coco(images)), **made.together(images)})
    assert card["accounting"]["images"]["unreadable"] == 1
    assert card["accounting"]["images"]["labelled"] == 9
    assert "c.jpg" in json.dumps(card["problems"])
    assert card["usable"]


def classes_of_images(images: list[Shown]) -> Any:
    rows = made.tasks(images)
    for row, one in zip(rows, images, strict=True):
        label = one.boxes[0][0] if one.boxes else "cat"
        row["annotations"][0]["result"] = [
            {"id": "r", "type": "choices", "from_name": "c", "to_name": "image",
             "value": {"choices": [label]}}
        ]  # fmt: skip
    return rows


def test_choices_of_whole_images_become_folders_of_classes(store: DatasetStore) -> None:
    entries = {"p.json": made.dumped(classes_of_images(SHOWN)), **made.together(SHOWN)}
    card = add(store, entries)
    assert card["task"] == "classify"
    assert card["accounting"]["objects"]["stored"] == 8
    counted = Counter[str]()
    for row in card["class_counts"]:
        counted[row["name"]] += row["train"] + row.get("val", 0)
    assert counted == {"car": 3, "dog": 4, "cat": 1}


def test_label_files_win_over_documents_beside_a_description_and_that_is_told(
    store: DatasetStore,
) -> None:
    entries = ZIPS["ultralytics"][0](SHOWN) | {
        "annotations/all.json": made.dumped(made.coco(SHOWN))
    }
    card = add(store, entries)
    assert card["source_format"] == "yolo"
    assert "other_documents" in kinds(card)
    bare = {name: data for name, data in entries.items() if not name.startswith("labels/")}
    card = add(store, bare)
    assert (card["source_format"], card["accounting"]["objects"]["stored"]) == ("coco", 14)


def test_two_forms_that_say_the_same_are_counted_once(store: DatasetStore) -> None:
    entries = ZIPS["voc beside"][0](SHOWN) | {"c.json": made.dumped(made.coco(SHOWN))}
    card = add(store, entries)
    assert card["source_format"] == "coco+voc"
    assert card["accounting"]["objects"]["stored"] == 14
    assert card["accounting"]["objects"]["passed_over"] == {"stated twice": 14}
    document = made.coco(SHOWN)
    document["annotations"][0]["bbox"] = [0, 0, 9, 9]
    with pytest.raises(VisionLoopError, match="annotate the same image of the dataset differently"):
        add_upload(store, packed(entries | {"c.json": made.dumped(document)}), "set")


def test_only_val_stated_is_taken_as_one_set(store: DatasetStore) -> None:
    entries = {"annotations/instances_val2017.json": made.dumped(made.coco(SHOWN))}
    card = add(store, entries | made.together(SHOWN, "val2017/"))
    assert card["usable"]
    assert "no train split, only val" in "".join(card["notes"])


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"a.jpg": b"", "via.json": b'{"_via_img_metadata": {}}'}, "VIA"),
        ({"readme.txt": b"hello world"}, "contains no data.yaml"),
        ({"x.json": b"[1, 2]"}, "contains no data.yaml"),
        ({"a.jpg": made.image(1), "labels/a.txt": b"0 .5 .5 .2 .2\n"}, "no class list"),
        ({"a.jpg": b"no image"}, "None of the zip's images can be read"),
    ],
)
def test_what_is_not_understood_is_refused_and_nothing_stays(
    store: DatasetStore, settings: Settings, entries: Entries, said: str
) -> None:
    with pytest.raises(VisionLoopError) as caught:
        add_upload(store, packed(entries), "set")
    assert said in caught.value.message
    assert 400 <= caught.value.status < 500
    assert store.list() == []
    assert list((settings.home / "uploads").iterdir()) == []


def test_an_image_of_another_size_keeps_the_reason(store: DatasetStore) -> None:
    document = made.coco(SHOWN)
    document["images"][3] |= {"width": SIZE[1], "height": SIZE[0]}
    card = add(store, {"c.json": made.dumped(document), **made.together(SHOWN)})
    assert card["accounting"]["images"]["missing"] == 1
    assert card["accounting"]["images"]["without_annotation"] == 1
    (problem,) = [one for one in card["problems"] if one["kind"] == "missing_image"]
    assert "48 × 64" in problem["message"]
    assert "EXIF" in problem["message"]


def test_masks_beside_images_are_no_images_to_train_on(store: DatasetStore) -> None:
    entries = ZIPS["voc with sets"][0](SHOWN)
    for one in SHOWN:
        name = f"VOC2007/SegmentationClass/{made.stem(one)}.png"
        entries[name] = made.image(7, "PNG")
    card = add(store, entries)
    assert (
        card["accounting"]["images"]["received"],
        card["accounting"]["images"]["without_annotation"],
    ) == (8, 0)
    assert card["accounting"]["objects"]["stored"] == 14
    assert "8 images are masks" in "".join(card["notes"])
    alone = {name: data for name, data in entries.items() if not name.endswith((".xml", ".txt"))}
    with pytest.raises(DatasetInvalid, match="mask images"):
        add_upload(store, packed(alone), "set")
    beside = made.together(SHOWN, "images/") | {
        f"masks/{made.stem(one)}.png": made.image(i, "PNG") for i, one in enumerate(SHOWN)
    }
    with pytest.raises(DatasetInvalid, match="mask images"):
        add_upload(store, packed(beside), "set")


def test_a_class_may_be_called_mask(store: DatasetStore) -> None:
    entries = {f"mask/{i}.jpg": made.image(i) for i in range(4)}
    entries |= {f"no mask/x{i}.jpg": made.image(9 + i) for i in range(4)}
    card = add(store, entries)
    assert (card["source_format"], card["classes"]) == ("folders", ["mask", "no mask"])


def test_images_alone_in_folders_of_splits_are_no_classes(store: DatasetStore) -> None:
    card = add(store, made.per_split(SHOWN, "{split}2017/{name}"))
    assert (card["source_format"], card["accounting"]["images"]["without_annotation"]) == (
        "images",
        8,
    )


@pytest.mark.parametrize("task", ["pose", "classify"])
def test_a_task_that_no_object_fits_is_refused_with_the_one_that_does(
    store: DatasetStore, task: Task
) -> None:
    with pytest.raises(DatasetInvalid, match=f"objects fits the task {task}; they fit detect"):
        add_upload(store, packed(ZIPS["coco 2017"][0](SHOWN)), "set", task)


def test_classes_that_differ_in_case_are_told(store: DatasetStore) -> None:
    document = made.coco(SHOWN, classes=("car", "dog", "Dog"))
    card = add(store, {"c.json": made.dumped(document), **made.together(SHOWN)})
    assert "differ only in case: dog, Dog" in "".join(card["notes"])
    assert card["classes"] == ["car", "dog", "Dog"]


def test_a_description_and_a_document_of_other_images_are_refused_and_named(
    store: DatasetStore,
) -> None:
    entries = ZIPS["ultralytics"][0](SHOWN[:6] + SHOWN[7:])
    entries["annotations/all.json"] = made.dumped(made.coco(SHOWN[6:7]))
    entries["extra/p 6.jpg"] = SHOWN[6].data
    with pytest.raises(DatasetInvalid, match=r"data\.yaml.*extra/p 6\.jpg.*annotations/all\.json"):
        add_upload(store, packed(entries), "set")


def test_subsets_tell_images_of_one_name_apart(store: DatasetStore) -> None:
    images = [
        Shown(f"{i // 2}.jpg", "train" if i % 2 else "val", one.boxes, one.data)
        for i, one in enumerate(SHOWN)
    ]
    entries = {f"images/{one.split.title()}/{one.name}": one.data for one in images}
    card = add(store, entries | {"annotations.xml": made.cvat(images, subsets=True)})
    assert card["accounting"]["objects"]["stored"] == 14
    assert {split: n["images"] for split, n in card["splits"].items()} == {"train": 4, "val": 4}


def test_categories_of_one_name_are_one_class_and_that_is_told(store: DatasetStore) -> None:
    document = made.coco(SHOWN)
    document["categories"][1]["name"] = "car"
    card = add(store, {"c.json": made.dumped(document), **made.together(SHOWN)})
    assert card["classes"] == ["car", "cat"]
    assert "categories with the same name were merged into one class: car" in "".join(card["notes"])


def test_a_table_beside_class_folders_is_told_and_not_read(store: DatasetStore) -> None:
    entries = {
        f"{c}/{c}{i}.jpg": made.image(i + len(c)) for c in ("cat", "horse") for i in range(4)
    }
    card = add(store, entries | {"labels.csv": b"filename,label\na.jpg,cat\n"})
    assert (card["source_format"], card["classes"]) == ("folders", ["cat", "horse"])
    assert "labels.csv" in "".join(problem["message"] for problem in card["problems"])
