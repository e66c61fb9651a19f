"""Uploads of several images, added images, and the import as a job, in this process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from annotation.uploads.import_job import ImportRecipe, run_import
from dataset.store import DatasetStore
from tests.support.correction_app import coco, correct, drawn, packed, street
from tests.support.trainer_job import RecordingJob
from tests.support.training_app import Service

FILES = list[tuple[str, tuple[str, bytes]]]
IMAGES = "/api/datasets/{}/images"


def several(*names: str, first: int = 0) -> FILES:
    """A form of drawn images."""
    return [("file", (name, drawn(seed))) for seed, name in enumerate(names, first)]


def create(service: Service, files: FILES, status: int = 201, **data: str) -> dict[str, Any]:
    answer = service.call(service.app, "POST", "/api/datasets", files=files, data=data)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def add(service: Service, dataset: str, files: FILES, status: int = 201) -> dict[str, Any]:
    answer = service.call(service.app, "POST", f"/api/datasets/{dataset}/images", files=files)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def queue(service: Service, dataset: str) -> dict[str, Any]:
    return dict(service.get(f"/api/annotation/queue?dataset={dataset}&limit=50"))


def test_several_images_become_a_dataset_to_annotate(service: Service) -> None:
    files = [*several("a.png", "b.png", "c.png"), ("file", ("d.jpg", b"\xff\xd8\xffno image"))]
    files += [("file", ("again.png", drawn(0))), ("file", ("cut.png", drawn(9)[:150]))]
    card = create(service, files, task="detect", name="Streets", classes="car, person")
    counts = card["accounting"]["images"]
    assert counts["received"] == 6
    assert (counts["without_annotation"], counts["unreadable"], counts["copies"]) == (3, 2, 1)
    assert (card["name"], card["task"], card["classes"]) == ("Streets", "detect", ["car", "person"])
    assert "corrupt_image" in {problem["kind"] for problem in card["problems"]}
    waiting = queue(service, card["id"])
    assert waiting["waiting"] == 3
    picture = service.call(
        service.app, "GET", f"/api/datasets/{card['id']}/pictures/" + waiting["queue"][0]["content"]
    )
    assert picture.status_code == 200


@pytest.mark.parametrize("classes", ['["car", "traffic light, red"]', '["a", "a"]', "[1", " , "])
def test_classes_are_a_json_array_or_names_with_commas(service: Service, classes: str) -> None:
    files = several("a.png", "b.png")
    if classes.startswith('["car'):
        assert create(service, files, classes=classes)["classes"] == json.loads(classes)
    elif classes == " , ":
        assert create(service, files, classes=classes)["classes"] == []
    else:
        answer = create(service, files, 400, classes=classes)
        assert "classes" in answer["message"]


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify"])
def test_classes_of_a_dataset_to_annotate_survive_its_first_revision(
    service: Service, task: str
) -> None:
    card = create(service, several("a.png", "b.png"), task=task, classes="car,dog")
    assert card["classes"] == ["car", "dog"]
    found = add(service, card["id"], several("c.png", first=2))
    assert found["revision"] == 1
    shown = service.get(f"/api/datasets/{card['id']}")
    assert (shown["classes"], shown["to_review"], shown["task"]) == (["car", "dog"], 3, task)
    assert queue(service, card["id"])["waiting"] == 3


def test_files_of_a_dropped_folder_are_a_dataset_as_its_zip_is(service: Service) -> None:
    files: FILES = [
        ("file", (f"set/{name}", content.encode() if isinstance(content, str) else content))
        for name, content in street({"train/a.png": 0, "train/b.png": 1, "val/c.png": 2}).items()
        if isinstance(content, str | bytes)
    ]
    card = create(service, files)
    assert card["usable"], card["problems"]
    assert card["classes"] == ["car", "person", "dog"]
    assert card["id"].startswith("set-")


def test_images_in_folders_are_one_set_to_annotate_if_classes_are_named(service: Service) -> None:
    files = several("day/a.png", "day/b.png", "night/a.png")
    assert create(service, files)["source_format"] == "folders"
    card = create(service, files, classes="car")
    assert (card["source_format"], queue(service, card["id"])["waiting"]) == ("images", 3)


def test_classes_beside_annotations_are_refused(service: Service) -> None:
    sent = packed(street({"train/a.png": 0, "val/c.png": 2}))
    answer = create(service, [("file", ("set.zip", sent))], 400, classes="car")
    assert "classes" in answer["message"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("file", ("a.zip", b"PK")), ("file", ("b.png", drawn(1)))], "one zip alone"),
        ([("file", ("../a.png", drawn(1)))], "outside"),
        ([("file", ("a.png", b"")), ("file", ("b.png", b"text"))], "can be read"),
        ([("file", ("a.exe", b"MZ")), ("file", ("b.sh", b"#!"))], "is an image"),
    ],
)
def test_files_that_are_no_dataset_are_refused_and_leave_nothing(
    service: Service, files: FILES, words: str
) -> None:
    before = len(service.gateway.datasets.list())
    answer = create(service, files, 400)
    assert words in answer["message"]
    assert len(service.gateway.datasets.list()) == before
    uploads = service.gateway.settings.paths.uploads
    assert not [path for path in uploads.glob("*") if not path.name.startswith(".")]


def test_files_of_one_name_are_both_kept(service: Service) -> None:
    card = create(service, [*several("a.png"), ("file", ("a.png", drawn(1)))])
    assert card["accounting"]["images"]["without_annotation"] == 2
    assert "renamed_file" in {problem["kind"] for problem in card["problems"]}


def test_added_images_are_each_accounted_for_and_once_more_changes_nothing(
    service: Service,
) -> None:
    files = street({"train/a.png": 0, "train/b.png": 1, "val/c.png": 2})
    card = create(service, [("file", ("set.zip", packed(files)))])
    more: FILES = [
        *several("new.png", "newer.png", first=10),
        ("file", ("known.png", drawn(0))),
        ("file", ("twice.png", drawn(10))),
        ("file", ("broken.png", drawn(12)[:60])),
        ("file", ("notes.exe", b"MZ")),
    ]
    found = add(service, card["id"], more)
    assert found["counts"] == {"taken": 2, "duplicate": 2, "refused": 1}
    assert (found["revision"], found["skipped_files"], len(found["images"])) == (1, 1, 5)
    by_name = {row["name"]: row for row in found["images"]}
    assert by_name["twice.png"]["content"] == by_name["new.png"]["content"]
    assert by_name["broken.png"]["reason"]
    again = add(service, card["id"], more, 200)
    assert (again["counts"]["taken"], again["revision"]) == (0, 1)
    shown = service.get(f"/api/datasets/{card['id']}")
    assert (shown["to_review"], shown["usable"]) == (2, True)
    assert queue(service, card["id"])["waiting"] == 2


def test_a_zip_of_images_is_added_but_no_annotations(service: Service) -> None:
    card = create(service, several("a.png"), classes="car")
    zipped = packed({"x/one.png": drawn(20), "x/two.png": drawn(21)})
    assert add(service, card["id"], [("file", ("more.zip", zipped))])["counts"]["taken"] == 2
    labelled = packed({"one.png": drawn(22), "one.txt": "0 0.5 0.5 0.1 0.1\n"})
    answer = add(service, card["id"], [("file", ("more.zip", labelled))], 400)
    assert "/annotations" in answer["message"]
    assert len(service.gateway.annotated.entries.contents(card["id"])) == 3
    add(service, "unknown-dataset", several("a.png"), 404)


@pytest.mark.parametrize("form", ["zip", "files"])
def test_an_import_is_a_job_that_makes_the_dataset_it_has_named(
    service: Service, form: str
) -> None:
    files = several("a.png", "b.png")
    if form == "zip":
        files = [("file", ("set.zip", packed(street({"train/a.png": 0, "val/c.png": 2}))))]
    started = create(service, files, 202, background="true", name="Streets")
    job = service.jobs.get(started["job_id"])
    assert (job.kind, job.config["resolved"]["dataset_id"]) == ("import", started["dataset_id"])
    missing = service.call(service.app, "GET", f"/api/datasets/{started['dataset_id']}")
    assert missing.status_code == 404
    handle = RecordingJob(service.jobs.folder(job.id))
    recipe = ImportRecipe.model_validate(job.recipe)
    run_import(recipe, handle, service.gateway.registry)
    card = service.get(f"/api/datasets/{started['dataset_id']}")
    assert card["name"] == "Streets"
    if form == "files":
        assert queue(service, card["id"])["waiting"] == 2
    run_import(recipe, handle, service.gateway.registry)  # killed before it reported its end
    assert len([one for one in service.gateway.datasets.list() if one["name"] == "Streets"]) == 1


def test_files_of_a_cancelled_import_go_and_those_of_a_waiting_one_stay(service: Service) -> None:
    first, second = (
        create(service, several("a.png", first=n), 202, background="true") for n in (1, 2)
    )
    folders = [Path(service.jobs.get(one["job_id"]).recipe["dataset"]) for one in (first, second)]
    for folder in folders:
        os.utime(folder, (time.time() - 7200, time.time() - 7200))
    service.jobs.request_cancel(first["job_id"])
    create(service, several("a.png", first=3), 202, background="true")
    assert [folder.exists() for folder in folders] == [False, True]


def test_the_import_of_a_damaged_zip_fails_with_the_reason_and_leaves_nothing(
    service: Service,
) -> None:
    started = create(service, [("file", ("set.zip", b"PK"))], 202, background="true")
    job = service.jobs.get(started["job_id"])
    with pytest.raises(Exception, match="not a zip"):
        run_import(
            ImportRecipe.model_validate(job.recipe),
            RecordingJob(service.jobs.folder(job.id)),
            service.gateway.registry,
        )
    store: DatasetStore = service.gateway.datasets
    assert not list(store.staging.glob("pictures-*"))


def test_an_added_image_has_a_name_of_its_own(service: Service) -> None:
    """Annotations that are sent later would not say which of two images they are of."""
    dataset = create(service, several("a.png", "b.png"), classes="car", task="detect")["id"]
    first = add(service, dataset, several("IMG_1.png", first=7))
    assert first["images"][0]["reason"] == ""
    second = add(service, dataset, several("img_1.png", first=8))["images"][0]
    assert (second["name"], second["outcome"]) == ("img_1.png", "taken")
    kept_as = f"img_1-{second['content'][:8]}.png"
    assert kept_as in second["reason"]
    names = [row["name"] for row in service.get(IMAGES.format(dataset))["images"]]
    assert sorted(names)[:2] == ["IMG_1.png", kept_as]
    answer = correct(service, dataset, {"a.json": coco({kept_as: ["car"]})})
    assert answer.json()["received"] == 1, answer.text
    by_name = {row["name"]: row["state"] for row in service.get(IMAGES.format(dataset))["images"]}
    assert (by_name["IMG_1.png"], by_name[kept_as]) == ("unlabelled", "corrected")
