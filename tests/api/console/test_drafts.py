"""Drafts over HTTP: kept, told apart by author, never overwritten unseen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event

from tests.support.correction_app import state
from tests.support.drafting import (
    ALICE,
    ALICE_NAME,
    BOB,
    BOB_NAME,
    IMAGES,
    NEW,
    drafts,
    look,
    put,
    shape,
)
from tests.support.training_app import Service

ONE = IMAGES[0]


def path_of(dataset: str, content: str = ONE) -> str:
    return f"/api/datasets/{dataset}/images/{content}/draft"


def test_a_draft_is_given_back_as_it_was_sent_and_changes_nothing_else(
    service: Service, frames: str
) -> None:
    before = state(service, frames)
    sent = [shape(), shape("dog", id="s2", parts=[{"outline": [[1, 1], [2.5, 1]], "holes": []}])]
    answer = put(service, frames, ONE, sent, ALICE | NEW)
    assert (answer.status_code, answer.json()["author"]) == (200, ALICE_NAME)
    back = service.call(service.app, "GET", path_of(frames), headers=ALICE)
    assert back.json() == answer.json()
    assert back.headers["etag"] == back.json()["etag"] == answer.headers["etag"]
    found = back.json()["objects"]
    assert [(one["id"], one["label"], one["box"]) for one in found] == [
        (one["id"], one["label"], one["box"]) for one in sent
    ]
    assert found[1]["parts"] == sent[1]["parts"], "an outline may be unfinished"
    assert state(service, frames) == before
    assert look(service, frames)["objects"][0]["label"] == "car"


def test_what_is_replaced_must_have_been_seen(service: Service, frames: str) -> None:
    first = put(service, frames, ONE, [shape()], ALICE | NEW)
    assert put(service, frames, ONE, [], ALICE).status_code == 428
    refused = put(service, frames, ONE, [], ALICE | NEW)
    assert (refused.status_code, refused.json()["code"]) == (412, "PRECONDITION_FAILED")
    current = refused.json()["current"]
    assert current == {
        "author": ALICE_NAME,
        "updated_at": first.json()["updated_at"],
        "etag": first.headers["etag"],
        "state": "draft",
    }
    seen = {"If-Match": first.headers["etag"]}
    second = put(service, frames, ONE, [shape("dog")], ALICE | seen)
    assert second.status_code == 200
    assert put(service, frames, ONE, [], ALICE | seen).status_code == 412, "of another window"
    back = service.call(service.app, "GET", path_of(frames), headers=ALICE).json()
    assert [one["label"] for one in back["objects"]] == ["dog"]
    for wrong in ({"If-Match": "*"}, {"If-Match": "x"}, {"If-None-Match": '"a"'}, seen | NEW):
        assert put(service, frames, ONE, [], ALICE | wrong).status_code == 400


def test_the_same_again_after_a_lost_answer_is_no_conflict(service: Service, frames: str) -> None:
    first = put(service, frames, ONE, [shape()], ALICE | NEW)
    again = put(service, frames, ONE, [shape()], ALICE | NEW)
    assert (again.status_code, again.json()) == (200, first.json())


def test_of_writers_at_once_one_is_stored_and_the_others_are_told(
    service: Service, frames: str
) -> None:
    def write(number: int) -> int:
        sent = [shape(box=(1, 1, 10 + number, 20))]
        return put(service, frames, ONE, sent, ALICE | NEW, base="none").status_code

    with ThreadPoolExecutor(4) as pool:
        codes = sorted(pool.map(write, range(8)))
    assert codes == [200] + [412] * 7


def test_each_person_has_a_draft_of_their_own(service: Service, frames: str) -> None:
    put(service, frames, ONE, [shape("car")], ALICE | NEW)
    put(service, frames, ONE, [shape("dog")], BOB | NEW, "skipped")
    found = drafts(service, frames)
    assert [(one["author"], one["mine"], one["state"]) for one in found["drafts"]] == [
        (BOB_NAME, False, "skipped"),
        (ALICE_NAME, True, "draft"),
    ]
    assert found["counts"] == {"draft": 1, "accepted": 0, "skipped": 0}
    assert (found["total"], found["drafts"][0]["image"]) == (2, "images/train/frame_1.png")
    assert drafts(service, frames, mine=True)["total"] == 1
    assert drafts(service, frames, state="skipped")["total"] == 1
    assert drafts(service, frames, content=IMAGES[1])["total"] == 0
    other = service.get(path_of(frames), params={"of": BOB_NAME}, headers=ALICE)
    assert [one["label"] for one in other["objects"]] == ["dog"]


def test_lists_of_drafts_do_not_read_their_objects(service: Service, frames: str) -> None:
    put(service, frames, ONE, [shape(), shape("dog", id="s2")], ALICE | NEW)
    put(service, frames, IMAGES[1], [], ALICE | NEW)
    put(service, frames, IMAGES[2], [shape()], BOB | NEW)
    read: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        read.append(statement)

    engine = service.gateway.registry.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        found = drafts(service, frames, limit=2)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert [one["object_count"] for one in found["drafts"]] == [1, 0]
    assert (found["total"], found["counts"]["draft"]) == (3, 2)
    of_drafts = [one for one in read if "annotation_drafts" in one]
    assert of_drafts
    assert not [one for one in of_drafts if "annotation_drafts.objects" in one]
    mine = drafts(service, frames, content=ONE)["drafts"]
    assert [one["object_count"] for one in mine] == [2]


def test_a_draft_is_discarded_by_who_has_seen_it(service: Service, frames: str) -> None:
    etag = put(service, frames, ONE, [shape()], ALICE | NEW).headers["etag"]

    def discard(headers: dict[str, str]) -> int:
        return service.call(
            service.app, "DELETE", path_of(frames), headers=ALICE | headers
        ).status_code

    assert discard({}) == 428
    assert discard({"If-Match": '"0"'}) == 412
    assert discard({"If-Match": etag}) == 204
    assert discard({"If-Match": etag}) == 204, "the answer was lost"
    missing = service.call(service.app, "GET", path_of(frames), headers=ALICE)
    assert missing.status_code == 404
    assert put(service, frames, ONE, [], ALICE | {"If-Match": etag}).status_code == 412


@pytest.mark.parametrize(
    ("objects", "why"),
    [
        ([shape(label=" ")], "no class"),
        ([shape(box=(5, 5, 5, 20))], "no area"),
        ([shape(box=(500, 500, 520, 520))], "no area"),
        ([shape(box=None)], "class of a whole image"),
        ([shape(box=None, parts=[{"outline": [[1, 1], [9, 9]], "holes": []}])], "fewer than 3"),
    ],
)
def test_what_is_accepted_can_be_stored(
    service: Service, frames: str, objects: list[Any], why: str
) -> None:
    assert put(service, frames, ONE, objects, ALICE | NEW).status_code == 200
    refused = put(service, frames, ONE, objects, BOB | NEW, "accepted")
    assert refused.status_code == 400
    assert why in refused.json()["message"]
    assert "frame_1.png" in refused.json()["message"]


@pytest.mark.parametrize(
    "objects",
    [
        "none",
        [{"id": "a"}],
        [shape(colour="red")],
        [shape(box=[1, 2, 3])],
        [shape(box=[1, 2, 3, 1e9])],
        [shape(keypoints=[{"name": "nose", "x": 1, "y": 1, "visibility": 3}])],
    ],
)
def test_what_is_not_understood_is_refused(service: Service, frames: str, objects: Any) -> None:
    assert put(service, frames, ONE, objects, ALICE | NEW).status_code == 400


def test_drafts_are_of_images_that_there_are(service: Service, frames: str) -> None:
    body = {"objects": [], "base": "none"}
    for dataset, content in ((frames, "0" * 64), ("nothing", ONE), (frames, "x")):
        answer = service.call(
            service.app, "PUT", path_of(dataset, content), json=body, headers=ALICE | NEW
        )
        assert answer.status_code == (400 if content == "x" else 404)


@pytest.mark.parametrize("name", ["%E5%BC%A0%E4%B8%89", "Zo%C3%AB%20B."])
def test_names_in_every_script(service: Service, frames: str, name: str) -> None:
    answer = put(service, frames, ONE, [], {"X-Annotator": name} | NEW)
    assert answer.status_code == 200
    assert answer.json()["author"] in ("张三 (unverified)", "Zoë B. (unverified)")


@pytest.mark.parametrize("name", ["%20", "a%0Ab", "x" * 61, "%ff"])
def test_names_that_cannot_be_shown_are_refused(service: Service, frames: str, name: str) -> None:
    assert (
        put(service, frames, ONE, [], {"X-Annotator": name} | NEW, base="none").status_code == 400
    )


def test_a_dataset_with_drafts_is_deleted_only_by_who_says_so(
    service: Service, frames: str
) -> None:
    put(service, frames, ONE, [shape()], ALICE | NEW)
    path = f"/api/datasets/{frames}"
    refused = service.call(service.app, "DELETE", path)
    assert refused.status_code == 409
    assert f"1 drafts that are not committed, by {ALICE_NAME} (1)" in refused.json()["message"]
    assert drafts(service, frames)["total"] == 1
    path = f"/api/datasets/{frames}?discard_drafts=true"
    assert service.call(service.app, "DELETE", path).status_code == 204
