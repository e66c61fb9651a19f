"""Commits of drafts: one revision, all or nothing, nobody's work overwritten unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from filelock import Timeout

from annotation.drafts.image_state import ImageReader
from annotation.drafts.store import DraftStore, Place
from errors import DatabaseBusy
from tests.support.correction_app import BEFORE, coco, correct, drawn, labels, packed, state
from tests.support.drafting import (
    ALICE,
    ALICE_NAME,
    BOB,
    BOB_NAME,
    IMAGES,
    accept,
    commit,
    drafts,
    look,
    put,
    shape,
)
from tests.support.training_app import Service

ONE, TWO, THREE = IMAGES


def revisions(service: Service, dataset: str) -> list[int]:
    rows = service.get(f"/api/datasets/{dataset}/revisions")["revisions"]
    return [row["revision"] for row in rows]


def test_one_revision_of_all_accepted_drafts(service: Service, frames: str) -> None:
    accept(service, frames, ONE, [shape("dog"), shape("dog", (30, 5, 50, 40), id="s2")])
    accept(service, frames, TWO, [])
    put(service, frames, THREE, [], ALICE | {"If-None-Match": "*"})
    accept(service, frames, THREE, [shape()], BOB)
    answer = commit(service, frames)
    found = answer.json()
    assert answer.status_code == 201, answer.text
    assert (found["revision"], found["author"], found["received"]) == (1, ALICE_NAME, 2)
    assert found["committed"] == sorted([ONE, TWO])
    assert found["accounting"]["objects"] == {"received": 2, "stored": 2, "passed_over": {}}
    changes = found["changes"]
    assert (changes["images"], changes["added"], changes["removed"]) == (2, 2, 2)
    assert [row["empty"] for row in changes["changed"]] == [c == TWO for c in found["committed"]]
    assert labels(service, frames) == BEFORE | {"frame_1.png": ["dog", "dog"], "frame_2.png": []}
    assert revisions(service, frames) == [1, 0]
    left = drafts(service, frames)["drafts"]
    assert [(one["author"], one["content"], one["state"]) for one in left] == [
        (BOB_NAME, THREE, "accepted"),
        (ALICE_NAME, THREE, "draft"),
    ]
    seen = look(service, frames)
    assert (seen["by"], seen["objects"][0]["by"], seen["revision"]) == (ALICE_NAME, ALICE_NAME, 1)
    nothing = look(service, frames, TWO)
    assert (nothing["annotated"], nothing["by"], nothing["objects"]) == (True, ALICE_NAME, [])


def test_a_dry_run_changes_nothing(service: Service, frames: str) -> None:
    before = state(service, frames)
    accept(service, frames, ONE, [shape("dog")])
    answer = commit(service, frames, dry_run=True)
    assert (answer.status_code, answer.json()["dry_run"]) == (200, True)
    assert (answer.json()["revision"], answer.json()["changes"]["removed"]) == (1, 1)
    assert state(service, frames) == before
    assert drafts(service, frames)["total"] == 1


def test_listed_images_alone(service: Service, frames: str) -> None:
    accept(service, frames, ONE, [shape("dog")])
    accept(service, frames, TWO, [shape("dog")])
    put(service, frames, THREE, [], ALICE | {"If-None-Match": "*"})
    assert commit(service, frames, contents=[THREE]).status_code == 400
    assert commit(service, frames, contents=["0" * 64]).status_code == 404
    assert commit(service, frames, contents=[]).status_code == 400
    assert commit(service, frames, contents=[TWO]).json()["committed"] == [TWO]
    assert labels(service, frames)["frame_1.png"] == ["car"]
    assert commit(service, frames, BOB).status_code == 400, "Bob has accepted nothing"


def test_what_another_stored_meanwhile_is_not_overwritten(service: Service, frames: str) -> None:
    accept(service, frames, ONE, [shape("dog")])
    accept(service, frames, TWO, [shape("dog")])
    accept(service, frames, ONE, [shape("person")], BOB)
    assert commit(service, frames, BOB).status_code == 201
    refused = commit(service, frames)
    assert (refused.status_code, refused.json()["code"]) == (409, "DRAFT_CONFLICT")
    [conflict] = refused.json()["conflicts"]
    assert (conflict["content"], conflict["image"]) == (ONE, "images/train/frame_1.png")
    assert (conflict["yours"]["author"], conflict["theirs"]["author"]) == (ALICE_NAME, BOB_NAME)
    assert conflict["yours"]["at"] < conflict["theirs"]["at"]
    assert labels(service, frames)["frame_1.png"] == ["person"]
    assert labels(service, frames)["frame_2.png"] == ["person"], "all or nothing"
    assert drafts(service, frames, mine=True)["total"] == 2
    preview = commit(service, frames, dry_run=True).json()
    assert preview["conflicts"] == [conflict]
    answer = commit(service, frames, mine=[ONE])
    assert (answer.status_code, answer.json()["revision"]) == (201, 2)
    assert labels(service, frames)["frame_1.png"] == ["dog"]


def test_a_correction_over_http_conflicts_too(service: Service, frames: str) -> None:
    accept(service, frames, ONE, [shape("dog")])
    correct(service, frames, {"a.json": coco({"frame_1.png": ["person"]})})
    refused = commit(service, frames)
    assert refused.status_code == 409
    assert refused.json()["conflicts"][0]["theirs"]["author"] == "person"


def test_the_same_said_by_two_is_no_conflict(service: Service, frames: str) -> None:
    accept(service, frames, ONE, [shape("dog")])
    accept(service, frames, ONE, [shape("dog")], BOB)
    assert commit(service, frames, BOB).status_code == 201
    again = commit(service, frames)
    assert (again.status_code, again.json()["repeated"]) == (200, True)
    assert drafts(service, frames)["total"] == 0


def test_a_commit_whose_answer_was_lost_is_made_once(service: Service, frames: str) -> None:
    accept(service, frames, ONE, [shape("dog")])
    first = commit(service, frames, key="a-long-key")
    again = commit(service, frames, key="a-long-key")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json() | {"replayed": True}
    assert revisions(service, frames) == [1, 0]
    assert commit(service, frames, key="another-key").status_code == 400


def test_a_commit_that_was_killed_is_finished_by_the_next(
    service: Service, frames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its annotations were stored: nothing could withdraw them."""
    accept(service, frames, ONE, [shape("dog")])

    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("annotation.corrections.revising.build", kill)
        patched.setattr("annotation.corrections.application.withdraw_correction", kill)
        with pytest.raises(Killed):
            commit(service, frames)
    assert drafts(service, frames)["total"] == 1
    answer = commit(service, frames)
    assert (answer.status_code, answer.json()["revision"]) == (201, 1)
    assert labels(service, frames)["frame_1.png"] == ["dog"]
    assert drafts(service, frames)["total"] == 0


def test_a_commit_that_fails_keeps_the_drafts(
    service: Service, frames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(service, frames, ONE, [shape("dog")])
    correct(service, frames, {"a.json": coco({"frame_2.png": ["dog"]})})  # it is adopted now
    before = state(service, frames)

    def busy(*_: Any, **__: Any) -> None:
        raise Timeout("a.lock")

    with monkeypatch.context() as patched:
        patched.setattr("annotation.corrections.revising.build", busy)
        assert commit(service, frames).status_code == 503
    assert state(service, frames)[1:] == before[1:]
    assert drafts(service, frames)["total"] == 1
    assert commit(service, frames).status_code == 201


@pytest.mark.parametrize("box", [(-5, 8, 28, 28), (5, 8, 28, 28)])
def test_a_commit_that_was_stored_is_no_conflict_with_itself(
    service: Service, frames: str, monkeypatch: pytest.MonkeyPatch, box: tuple[float, ...]
) -> None:
    """What is stored is clipped to the image, and in another order than it was drawn."""
    kept = look(service, frames)["objects"]
    accept(service, frames, ONE, [shape("dog", box), *kept])

    def busy(*_: Any, **__: Any) -> None:
        raise DatabaseBusy("Another process has locked the database.")

    with monkeypatch.context() as patched:
        patched.setattr(DraftStore, "finish", busy)
        assert commit(service, frames, key="a-long-key").status_code == 503
    again = commit(service, frames, key="a-long-key")
    assert again.status_code == 200, again.text
    assert (again.json()["repeated"], again.json()["committed"]) == (True, [ONE])
    assert labels(service, frames)["frame_1.png"] == ["car", "dog"]
    assert drafts(service, frames)["total"] == 0


def test_a_commit_reads_each_image_once(
    service: Service, frames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in IMAGES:
        accept(service, frames, content, [shape("dog")])
    read: list[str] = []
    current = ImageReader.current

    def counted(self: ImageReader, dataset: str, content: str) -> Any:
        read.append(content)
        return current(self, dataset, content)

    monkeypatch.setattr(ImageReader, "current", counted)
    assert commit(service, frames).status_code == 201
    assert read == sorted(IMAGES)


def test_a_draft_that_was_changed_during_the_commit_stays(
    service: Service, frames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = accept(service, frames, ONE, [shape("dog")])
    finish: Callable[..., None] = DraftStore.finish

    def change_then_finish(self: DraftStore, *given: Any) -> None:
        seen = ALICE | {"If-Match": first["etag"]}
        later = put(service, frames, ONE, [shape("person")], seen, "accepted", first["base"])
        assert later.status_code == 200
        finish(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(DraftStore, "finish", change_then_finish)
        assert commit(service, frames).status_code == 201
    kept = DraftStore(service.gateway.registry.database).get(Place(frames, ONE, ALICE_NAME))
    assert kept.objects[0]["label"] == "person"
    assert kept.base == look(service, frames)["base"], "what follows its own commit is no conflict"
    assert commit(service, frames).status_code == 201
    assert labels(service, frames)["frame_1.png"] == ["person"]


def go_on(service: Service, dataset: str, before: Any, objects: list[Any]) -> Any:
    """Alice's window draws on: it knows its draft, and the base that it began with."""
    seen = ALICE | {"If-Match": before["etag"]}
    answer = put(service, dataset, before["content"], objects, seen, "accepted", before["base"])
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_who_goes_on_after_an_own_commit_draws_on_what_was_committed(
    service: Service, frames: str
) -> None:
    draft = accept(service, frames, ONE, [shape("dog")])
    base = draft["base"]
    for label in ("person", "car", "dog"):
        assert commit(service, frames).status_code == 201
        draft = go_on(service, frames, draft, [shape(label)])
        assert draft["base"] == look(service, frames)["base"]
        draft["base"] = base  # a client that does not read it in the answer
    assert commit(service, frames).status_code == 201
    assert labels(service, frames)["frame_1.png"] == ["dog"]
    assert drafts(service, frames)["total"] == 0


def test_who_goes_on_during_an_own_commit_draws_on_what_was_committed(
    service: Service, frames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = accept(service, frames, ONE, [shape("dog")])
    later: list[Any] = []
    finish: Callable[..., None] = DraftStore.finish

    def change_then_finish(self: DraftStore, *given: Any) -> None:
        later.append(go_on(service, frames, first, [shape("person")]))
        finish(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(DraftStore, "finish", change_then_finish)
        assert commit(service, frames).status_code == 201
    assert go_on(service, frames, later[0], [shape("car")])["base"] == look(service, frames)["base"]
    assert commit(service, frames).status_code == 201
    assert labels(service, frames)["frame_1.png"] == ["car"]


def test_who_goes_on_overwrites_nobody_who_came_after_the_own_commit(
    service: Service, frames: str
) -> None:
    draft = accept(service, frames, ONE, [shape("dog")])
    assert commit(service, frames).status_code == 201
    accept(service, frames, ONE, [shape("person")], BOB)
    assert commit(service, frames, BOB).status_code == 201
    go_on(service, frames, draft, [shape("car")])
    refused = commit(service, frames)
    assert refused.status_code == 409
    assert refused.json()["conflicts"][0]["theirs"]["author"] == BOB_NAME
    assert labels(service, frames)["frame_1.png"] == ["person"]


def test_a_window_that_has_not_seen_the_own_commit_overwrites_it_not(
    service: Service, frames: str
) -> None:
    base = look(service, frames)["base"]
    first = accept(service, frames, ONE, [shape("dog")])
    assert commit(service, frames).status_code == 201
    second = go_on(service, frames, first, [shape("person")])
    assert commit(service, frames).status_code == 201
    for seen, status in (({"If-Match": first["etag"]}, 412), ({"If-None-Match": "*"}, 200)):
        stale = put(service, frames, ONE, [shape("car")], ALICE | seen, "accepted", base)
        assert stale.status_code == status, stale.text
    refused = commit(service, frames)
    assert refused.status_code == 409
    assert "in another window" in refused.json()["message"]
    assert second["etag"] != first["etag"]
    assert labels(service, frames)["frame_1.png"] == ["person"]


@pytest.mark.parametrize(
    "objects",
    [
        [],
        [shape("dog", (-5, -5, 90, 90))],
        [shape("dog"), shape("DOG", (1.25, 2, 30.5, 40), id="s2")],
        [shape("car", None, parts=[{"outline": [[1, 1], [40, 2], [20, 38.5]], "holes": []}])],
    ],
)
def test_a_commit_knows_the_base_of_what_it_stores(
    service: Service, frames: str, objects: list[Any]
) -> None:
    draft = accept(service, frames, ONE, objects)
    kept = look(service, frames)["objects"]
    assert commit(service, frames, confirm=True).status_code == 201
    draft = go_on(service, frames, draft, [*objects, *kept])
    assert draft["base"] == look(service, frames)["base"]
    assert commit(service, frames).status_code == 201
    draft = go_on(service, frames, draft, [*kept, shape("person", id="s9")])
    assert draft["base"] == look(service, frames)["base"]


def test_much_is_removed_only_when_confirmed(service: Service, frames: str) -> None:
    for content in IMAGES[:2]:
        accept(service, frames, content, [])
    refused = commit(service, frames)
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFIRMATION_REQUIRED")
    assert refused.json()["removes"]["objects"] == 2
    assert commit(service, frames, dry_run=True).json()["confirmation_required"] is True
    assert drafts(service, frames)["total"] == 2
    assert commit(service, frames, confirm=True).status_code == 201


def test_images_alone_are_annotated_from_nothing(service: Service) -> None:
    files = {"file": ("images.zip", packed({f"{n}.png": drawn(n) for n in range(3)}))}
    dataset = service.call(service.app, "POST", "/api/datasets", files=files).json()["id"]
    accept(service, dataset, ONE, [shape("tree")])
    accept(service, dataset, TWO, [])
    answer = commit(service, dataset)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["annotated"], answer.json()["to_review"]) == (2, 1)
    assert answer.json()["new_classes"] == ["tree"]
    assert look(service, dataset, TWO)["annotated"] is True
    assert look(service, dataset, THREE)["annotated"] is False
    assert "tree" in look(service, dataset)["classes"]


def test_the_smallest_move_is_stored(service: Service, frames: str) -> None:
    accept(service, frames, ONE, [shape("dog", (8, 8, 28, 28))])
    commit(service, frames)
    accept(service, frames, ONE, [shape("dog", (8, 8, 28, 28.01))])
    assert commit(service, frames).json()["revision"] == 2
    assert look(service, frames)["objects"][0]["box"] == [8, 8, 28, 28.01]


def test_an_image_that_is_gone_keeps_no_other_from_being_committed(
    service: Service, frames: str
) -> None:
    accept(service, frames, ONE, [shape("dog")])
    commit(service, frames)
    accept(service, frames, ONE, [shape("car")])
    accept(service, frames, TWO, [shape("car")])
    keys = [f"{kind}:{ONE}" for kind in ("original", "person")]  # as a tool deletes them
    assert service.gateway.annotated.entries.remove(frames, keys) == 2
    refused = commit(service, frames)
    assert refused.status_code == 404
    assert "frame_1.png" in refused.json()["message"]
    assert "contents" in refused.json()["message"]
    assert commit(service, frames, contents=[TWO]).status_code == 201


def test_an_image_of_a_classification_dataset_has_one_class(service: Service) -> None:
    files = [("file", (f"{seed}.png", drawn(seed))) for seed in range(2)]
    data = {"task": "classify", "classes": "car,dog"}
    dataset = service.call(service.app, "POST", "/api/datasets", files=files, data=data).json()[
        "id"
    ]
    both = [shape("car", None), shape("dog", None, id="s2")]
    refused = put(service, dataset, ONE, both, ALICE | {"If-None-Match": "*"}, "accepted")
    assert (refused.status_code, refused.json()["code"]) == (400, "VALIDATION_ERROR")
    assert "car, dog" in refused.json()["message"]
    accept(service, dataset, ONE, both[:1])
    assert commit(service, dataset).status_code == 201
