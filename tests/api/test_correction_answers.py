"""Corrections over HTTP: what has to be confirmed, is only foreseen, or had been said."""

from __future__ import annotations

import json

import pytest

from tests.support.correction_app import (
    BOX,
    NAMES,
    Files,
    coco,
    correct,
    drawn,
    labelme,
    labels,
    state,
    street,
    upload,
)
from tests.support.training_app import Service


def crowd(count: int = 10) -> dict[str, int]:
    """Ten images, six of them with a dog."""
    return {f"{'val' if i > 7 else 'train'}/{i}.png": 2 if i < 6 else 0 for i in range(count)}


@pytest.mark.parametrize(
    ("gone", "relabelled", "asks"),
    [(range(1), "", False), (range(5), "", False), (range(4, 10), "", True),
     (range(6), "", True), (range(0), "car", True)],
)  # fmt: skip
def test_removing_much_is_to_be_confirmed(
    service: Service, gone: range, relabelled: str, asks: bool
) -> None:
    dataset = upload(service, street(crowd()))
    files: Files = {f"labels/{i}.txt": "" for i in gone}
    files |= {f"labels/{i}.txt": f"0 {BOX}" for i in range(6) if relabelled}
    files |= {"classes.txt": "\n".join(NAMES)}
    before = state(service, dataset)
    planned = correct(service, dataset, files, dry_run=True)
    assert (planned.status_code, planned.json()["confirmation_required"]) == (200, asks)
    assert state(service, dataset) == before
    answer = correct(service, dataset, files)
    if not asks:
        assert answer.status_code == 201, answer.text
        return
    body = answer.json()
    assert (answer.status_code, body["code"]) == (409, "CONFIRMATION_REQUIRED")
    assert set(body) == {"error", "code", "message", "detail", "request_id", "removes"}
    assert body["removes"] == planned.json()["removes"]
    assert (body["removes"]["objects"], body["removes"]["of"]) == (len(gone), 10)
    assert "confirm=true" in body["message"]
    assert state(service, dataset) == before
    answer = correct(service, dataset, files, confirm=True)
    assert answer.status_code == 201, answer.text
    assert answer.json()["removes"] == body["removes"]


def test_one_image_needs_no_confirmation(service: Service) -> None:
    dataset = upload(service, street({"train/a.png": 0, "val/b.png": 1}))
    files: Files = {"labels/a.txt": "", "classes.txt": "car"}
    assert correct(service, dataset, files).status_code == 201
    files = {"labels/b.txt": "", "classes.txt": "car"}
    assert correct(service, dataset, files).status_code == 201


def test_a_dry_run_says_what_then_happens(service: Service, frames: str) -> None:
    files: Files = {
        "images/new.png": drawn(20),
        "c.json": coco({"new.png": ["dog"], "frame_1.png": ["car", "dog"], "lost.png": ["car"]}),
        "frame_2.json": labelme("frame_2.png", "dgo"),
    }
    before = state(service, frames)
    planned = correct(service, frames, files, dry_run=True)
    assert planned.status_code == 200, planned.text
    assert state(service, frames) == before
    done = correct(service, frames, files)
    assert done.status_code == 201, done.text
    varying = ("dry_run", "created_at", "corrections")
    told, happened = ({k: v for k, v in answer.json().items() if k not in varying}
                      for answer in (planned, done))  # fmt: skip
    assert told == happened
    assert told["accounting"]["images"] == {"received": 4, "matched": 2, "new": 1, "unmatched": 1}
    assert told["accounting"]["objects"] == {"received": 5, "stored": 4,
                               "passed_over": {"on unmatched images": 1}}  # fmt: skip
    assert told["new_classes"] == ["dgo"]
    assert "similar to 'dog'" in told["notes"][-1]
    assert labels(service, frames) == {
        "frame_1.png": ["car", "dog"], "frame_2.png": ["dgo"], "frame_3.png": ["dog"],
        "new.png": ["dog"],
    }  # fmt: skip


def test_what_a_person_has_said_once_makes_no_revision_again(service: Service, frames: str) -> None:
    files = {"c.json": coco({"frame_1.png": ["dog"], "frame_2.png": ["person"]})}
    assert correct(service, frames, files).json()["revision"] == 1
    before = state(service, frames)
    planned = correct(service, frames, files, dry_run=True).json()
    assert (planned["revision"], planned["repeated"]) == (1, True)
    again = correct(service, frames, files)
    assert (again.status_code, again.json()["revision"], again.json()["unchanged"]) == (200, 1, 2)
    assert state(service, frames) == before
    moved = {"c.json": coco({"frame_1.png": ["dog"]}, box=(8, 8, 20, 20.2))}
    assert correct(service, frames, moved).json()["revision"] == 2  # a little is something


def test_new_classes_can_be_refused(service: Service, frames: str) -> None:
    files: Files = {"labels/frame_1.txt": f"0 {BOX}", "classes.txt": "Persom\ntram"}
    before = state(service, frames)
    answer = correct(service, frames, files, new_classes="refuse")
    assert answer.status_code == 400, answer.text
    assert "'Persom' (did you mean 'person'?)" in answer.json()["message"]
    assert state(service, frames) == before
    files["classes.txt"] = "person"
    assert correct(service, frames, files, new_classes="refuse").status_code == 201


def test_the_form_may_carry_the_options_too(service: Service, frames: str) -> None:
    path = f"/api/datasets/{frames}/annotations"
    body = {"names": ["tram"], "labels": {"frame_1.png": f"0 {BOX}"}}
    files = {"file": ("a.json", json.dumps(body).encode())}
    form = {"dry_run": "true", "new_classes": "add", "confirm": "", "empty": "background"}
    answer = service.call(service.app, "POST", path, files=files, data=form)
    assert (answer.status_code, answer.json()["new_classes"]) == (200, ["tram"])
    form = {"new_classes": "refuse"}
    answer = service.call(service.app, "POST", path, files=files, data=form)
    assert answer.status_code == 400
    form = {"new_classes": "maybe"}
    answer = service.call(service.app, "POST", path, files=files, data=form)
    assert "'new_classes' must be" in answer.json()["message"]
