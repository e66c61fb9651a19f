"""An image's annotations for the annotator: by people, by models, as uploaded, in revisions."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from annotation.corrections.applied_correction import apply_correction
from annotation.entries import image_entry
from annotation.image_records import PRELABEL_RANK
from annotation.revision_builder import build
from formats.annotations import Annotation, Annotations
from tests.support.correction_app import (
    BEFORE,
    FRAMES,
    NAMES,
    SIZE,
    coco,
    correct,
    drawn,
    packed,
    street,
    upload,
)
from tests.support.training_app import Service

FIRST = sha256(drawn(0)).hexdigest()  # frame_1.png


def look(service: Service, dataset: str, content: str = FIRST, **query: Any) -> Any:
    path = f"/api/datasets/{dataset}/images/{content}/annotations"
    return service.get(path, params=query)


def status(service: Service, dataset: str, content: str = FIRST, **query: Any) -> tuple[int, str]:
    path = f"/api/datasets/{dataset}/images/{content}/annotations"
    answer = service.call(service.app, "GET", path, params=query)
    return answer.status_code, answer.json()["message"]


def test_an_upload_is_shown_as_it_was_sent(service: Service, frames: str) -> None:
    found = look(service, frames)
    assert (found["name"], found["split"]) == ("images/train/frame_1.png", "train")
    assert ((found["width"], found["height"]), found["task"]) == (SIZE, "detect")
    assert found["classes"] == list(NAMES)
    assert (found["annotated"], found["by"], found["revision"]) == (True, "original", 0)
    [thing] = found["objects"]
    assert (thing["label"], thing["source"], thing["by"]) == ("car", "person", "original")
    assert thing["box"] == [24.0, 18.0, 40.0, 30.0]
    assert (thing["score"], thing["parts"], thing["keypoints"]) == (None, [], [])
    assert found["suggestions"] == []
    assert service.gateway.annotated.find(f"upload:{frames}") is None, "reading changes nothing"
    image = service.call(service.app, "GET", found["url"])
    assert (image.content, image.headers["content-type"]) == (drawn(0), "image/png")


def test_what_a_person_says_comes_before_the_upload(service: Service, frames: str) -> None:
    before = look(service, frames)
    correct(service, frames, {"a.json": coco({"frame_1.png": ["dog", "dog"]})})
    found = look(service, frames)
    assert [thing["label"] for thing in found["objects"]] == ["dog", "dog"]
    assert (found["by"], found["revision"]) == ("person", 1)
    assert found["at"]
    assert found["base"] != before["base"]
    original = look(service, frames, revision=0)
    assert (original["objects"], original["base"]) == (before["objects"], before["base"])
    assert [thing["label"] for thing in look(service, frames, revision=1)["objects"]] == ["dog"] * 2
    other = look(service, frames, sha256(drawn(1)).hexdigest())
    assert [thing["label"] for thing in other["objects"]] == BEFORE["frame_2.png"]


def test_a_base_stays_when_the_image_does(service: Service, frames: str) -> None:
    before = look(service, frames)["base"]
    correct(service, frames, {"a.json": coco({"frame_2.png": ["dog"]})})
    assert look(service, frames)["base"] == before


def test_people_and_models_side_by_side(service: Service) -> None:
    store = service.gateway.annotated
    options = {"bands": {"accept": 0.8, "review": 0.3}, "names": ["car", "dog"]}
    dataset = store.ensure("batch:1", "Batch", options, "batch")
    content, suffix = store.entries.keep(dataset.id, drawn(0))
    guess = Annotation("car", box=(1, 2, 30, 20), score=0.5)
    entry = image_entry(
        "model", content, suffix, Annotations("a.png", *SIZE, (guess,)), rank=PRELABEL_RANK,
        document={"by": "m:1", "name": "a.png", "doubt": 1, "review": 1, "reason": "", "look": ""},
    )  # fmt: skip
    store.entries.add_prelabels(dataset.id, [entry])
    build(store, dataset, task="detect")
    found = look(service, dataset.id)
    assert (found["objects"], found["annotated"], found["base"]) == ([], False, "none")
    [one] = found["suggestions"]
    assert (one["source"], one["by"], one["score"], one["band"]) == ("model", "m:1", 0.5, "review")
    assert (found["model_id"], found["bands"]) == ("m:1", options["bands"])
    person = Annotations("a.png", *SIZE, (Annotation("dog", box=(5, 5, 20, 20)),))
    apply_correction(store.database, dataset.id, {content: person}, {content: suffix}, {})
    found = look(service, dataset.id)
    assert [thing["label"] for thing in found["objects"]] == ["dog"]
    assert [thing["label"] for thing in found["suggestions"]] == ["car"]
    assert look(service, dataset.id, source="person")["suggestions"] == []
    assert look(service, dataset.id, source="model")["objects"] == []
    assert look(service, dataset.id, source="model")["base"] == found["base"]


def test_images_alone_can_be_opened(service: Service) -> None:
    files = {"file": ("images.zip", packed({"a.png": drawn(0), "c.png": drawn(1)}))}
    answer = service.call(service.app, "POST", "/api/datasets", files=files)
    assert answer.status_code == 201, answer.text
    dataset = answer.json()["id"]
    found = look(service, dataset)
    assert (found["annotated"], found["base"], found["objects"]) == (False, "none", [])
    assert ((found["width"], found["height"]), found["name"]) == (SIZE, "unlabelled/a.png")
    assert service.call(service.app, "GET", found["url"]).content == drawn(0)


def test_what_is_not_there_is_said(service: Service, frames: str) -> None:
    code, message = status(service, frames, "0" * 64)
    assert code == 404
    assert "SHA-256" in message
    assert status(service, frames, revision=7)[0] == 404
    assert status(service, "no-such-thing")[0] == 404
    assert status(service, frames, source="both")[0] == 400
    other = upload(service, street(dict.fromkeys(FRAMES, 1)))
    assert look(service, other)["objects"][0]["label"] == "person"
