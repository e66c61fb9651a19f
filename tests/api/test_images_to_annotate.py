"""Images alone: uploaded, listed, corrected over HTTP, and a data set that trains in the end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.annotation.uploads.test_uploads import packed
from tests.support import exported_zips as made
from tests.support.training_app import Service

SHOWN = made.shown(12)


def upload(service: Service, entries: made.Entries, **data: str) -> dict[str, Any]:
    files = {"file": ("frames.zip", packed(entries).getvalue())}
    answer = service.call(service.app, "POST", "/api/datasets", files=files, data=data)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def send(service: Service, dataset: str, document: Any, **query: str) -> dict[str, Any]:
    path = f"/api/datasets/{dataset}/annotations"
    answer = service.call(service.app, "POST", path, json=document, params=query)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("form", ["coco", "label_studio", "labelme"])
def test_images_alone_grow_into_a_data_set(service: Service, form: str) -> None:
    card = upload(service, made.together(SHOWN, "frames/"))
    dataset = card["id"]
    assert (card["usable"], card["accounting"]["images"]["without_annotation"]) == (False, 12)
    sheet = service.call(service.app, "GET", f"/api/datasets/{dataset}/sheet.png")
    assert sheet.status_code in (200, 404), sheet.text
    documents: dict[str, Any] = {
        "coco": made.coco,
        "label_studio": made.tasks,
        "labelme": lambda images: [json.loads(made.labelme(one)) for one in images],
    }
    first = send(service, dataset, documents[form](SHOWN[:2]), empty="background")
    assert first["accounting"]["images"]["matched"] == 2
    assert first["accounting"]["images"]["new"] == 0
    assert first["to_review"] == 10
    shown = service.call(service.app, "GET", f"/api/datasets/{dataset}").json()
    assert not shown["usable"]
    queue = service.call(service.app, "GET", f"/api/annotation/queue?dataset={dataset}&limit=50")
    assert queue.status_code == 200, queue.text
    assert len(queue.json()["queue"]) == 10
    last = send(service, dataset, documents[form](SHOWN), empty="background", confirm="true")
    assert (last["to_review"], last["accounting"]["objects"]["stored"]) == (0, 22)
    shown = service.call(service.app, "GET", f"/api/datasets/{dataset}").json()
    assert shown["usable"], shown["problems"]
    assert set(shown["classes"]) == {"car", "dog"}
    exported = service.call(service.app, "GET", f"/api/datasets/{dataset}/export?format=coco")
    assert exported.status_code == 200


def test_a_check_of_images_alone_says_the_next_step(service: Service) -> None:
    card = upload(service, made.together(SHOWN), task="segment")
    assert card["task"] == "segment"
    answer = service.call(
        service.app, "POST", "/api/datasets/check", json={"data_path": card["id"]}
    )
    assert answer.json()["problems"][0]["kind"] == "unlabelled"
    exported = service.call(service.app, "GET", f"/api/datasets/{card['id']}/export?format=coco")
    assert exported.status_code in (200, 400)


@pytest.mark.parametrize("what", ["coco 2017", "voc with sets", "cvat yolo", "label studio json"])
def test_what_was_made_of_documents_takes_the_same_documents_back(
    service: Service, what: str
) -> None:
    make, _, _ = made.ZIPS[what]
    entries = make(SHOWN)
    dataset = upload(service, entries)["id"]
    path = f"/api/datasets/{dataset}/annotations"
    files = {"file": ("back.zip", packed(entries).getvalue())}
    answer = service.call(service.app, "POST", path, files=files)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found["accounting"]["images"]["unmatched"] == 0 or what == "coco 2017", found
    assert found["accounting"]["images"]["new"] == 0
    assert found["unchanged"] == found["received"]
    assert found["accounting"]["objects"]["stored"] == 22
    assert found["accounting"]["objects"]["passed_over"] == {}


@pytest.mark.parametrize("form", ["coco", "label_studio", "labelme", "voc", "cvat_xml", "yolo"])
@pytest.mark.parametrize("what", ["coco 2017", "ultralytics"])
def test_every_export_is_a_new_data_set_with_the_same_in_it(
    service: Service, form: str, what: str
) -> None:
    make, _, _ = made.ZIPS[what]
    first = upload(service, make(SHOWN))
    path = f"/api/datasets/{first['id']}/export"
    answer = service.call(service.app, "GET", path, params={"format": form})
    assert answer.status_code == 200, answer.text
    files = {"file": ("again.zip", answer.content)}
    again = service.call(service.app, "POST", "/api/datasets", files=files)
    assert again.status_code == 201, again.text
    card = again.json()
    assert card["source_format"] == form
    assert card["accounting"]["images"]["labelled"] == first["accounting"]["images"]["labelled"]
    assert card["accounting"]["images"]["empty"] == first["accounting"]["images"]["empty"]
    assert card["accounting"]["objects"] == first["accounting"]["objects"]
    assert set(card["classes"]) >= {"car", "dog"}
    counted = {row["name"]: sum(v for k, v in row.items() if k in ("train", "val"))
               for row in card["class_counts"]}  # fmt: skip
    expected = {row["name"]: sum(v for k, v in row.items() if k in ("train", "val"))
                for row in first["class_counts"]}  # fmt: skip
    assert {k: v for k, v in counted.items() if v} == {k: v for k, v in expected.items() if v}
