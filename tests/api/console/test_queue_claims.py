"""The queue for several people: pages, claims, skips, drafts, and images of live traffic."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import httpx
import pytest

from annotation.queue.review_queue import QueueIndex, ReviewQueue
from tests.support.correction_app import SIZE, drawn, packed
from tests.support.drafting import (
    ALICE,
    ALICE_NAME,
    BOB,
    BOB_NAME,
    accept,
    commit,
    look,
    put,
    shape,
)
from tests.support.training_app import Service

CONTENTS = [sha256(drawn(seed)).hexdigest() for seed in range(5)]


@pytest.fixture
def images(service: Service) -> str:
    """An upload of five images alone."""
    files = {"file": ("images.zip", packed({f"{n}.png": drawn(n) for n in range(5)}))}
    answer = service.call(service.app, "POST", "/api/datasets", files=files)
    return str(answer.json()["id"])


def queue(service: Service, **query: Any) -> Any:
    return service.get("/api/annotation/queue", params=query)


def send(service: Service, path: str, who: dict[str, str] = ALICE, **body: Any) -> httpx.Response:
    return service.call(service.app, "POST", f"/api/annotation/{path}", json=body, headers=who)


def claim(service: Service, who: dict[str, str], count: int) -> list[str]:
    answer = send(service, "queue/claim", who, count=count)
    assert answer.status_code == 200, answer.text
    return [row["content"] for row in answer.json()["queue"]]


def test_pages_follow_each_other(service: Service, images: str) -> None:
    whole = queue(service, dataset=images)
    assert (whole["waiting"], len(whole["queue"]), whole["skipped"]) == (5, 5, 0)
    row = whole["queue"][0]
    assert ((row["width"], row["height"]), row["prelabels"]) == (SIZE, 0)
    assert (row["model_id"], row["claimed_by"], row["skipped_by"]) == (None, None, None)
    pages = [queue(service, limit=2, offset=offset)["queue"] for offset in (0, 2, 4, 6)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert [row for page in pages for row in page] == whole["queue"]


def test_two_people_are_given_different_images(service: Service, images: str) -> None:
    alice = claim(service, ALICE, 2)
    bob = claim(service, BOB, 2)
    assert set(alice).isdisjoint(bob)
    assert claim(service, ALICE, 2) == alice, "the same again, until they are done"
    assert len(claim(service, ALICE, 5)) == 3
    assert claim(service, {"X-Annotator": "carol"}, 2) == []
    by = {row["content"]: row["claimed_by"] for row in queue(service)["queue"]}
    assert (by[alice[0]], by[bob[0]]) == (ALICE_NAME, BOB_NAME)
    assert put(service, images, bob[0], [], ALICE | {"If-None-Match": "*"}).status_code == 200
    assert send(service, "queue/release", BOB, contents=bob).json() == {"images": 2}
    assert claim(service, {"X-Annotator": "carol"}, 2) == bob


def test_a_skipped_image_comes_last_and_comes_back(service: Service, images: str) -> None:
    order = [row["content"] for row in queue(service)["queue"]]
    assert send(service, "queue/skip", content=order[0], reason="blurred").status_code == 200
    rows = queue(service)["queue"]
    assert [row["content"] for row in rows] == [*order[1:], order[0]]
    assert (rows[-1]["skipped_by"], rows[-1]["skip_reason"]) == (ALICE_NAME, "blurred")
    assert queue(service)["skipped"] == 1
    assert [row["content"] for row in queue(service, skipped="only")["queue"]] == order[:1]
    assert len(queue(service, skipped="none")["queue"]) == 4
    assert [row["content"] for row in queue(service, limit=2, offset=3)["queue"]] == [
        order[4], order[0],
    ]  # fmt: skip
    assert order[0] not in claim(service, BOB, 5)
    assert send(service, "queue/unskip", contents=order[:1]).json() == {"images": 1}
    assert [row["content"] for row in queue(service)["queue"]] == order


def test_what_is_accepted_waits_for_its_commit(service: Service, images: str) -> None:
    [first] = claim(service, ALICE, 1)
    accept(service, images, first, [shape()])
    found = queue(service)
    assert (found["waiting"], found["accepted"]) == (4, 1)
    assert first not in [row["content"] for row in found["queue"]]
    assert claim(service, ALICE, 1) != [first]
    assert commit(service, images).status_code == 201
    found = queue(service)
    assert (found["waiting"], found["accepted"], found["annotated"]) == (4, 0, 1)


def test_the_order_is_made_again_only_after_a_change(
    service: Service, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    make = ReviewQueue._make_index

    def counted(*given: Any) -> QueueIndex:
        made.append(1)
        return make(*given)

    monkeypatch.setattr(ReviewQueue, "_make_index", counted)
    for _ in range(3):
        queue(service)
    assert len(made) == 1
    accept(service, images, CONTENTS[0], [shape()])
    queue(service)
    assert len(made) == 1, "drafts change no annotation"
    commit(service, images)
    assert queue(service)["waiting"] == 4
    assert len(made) == 2


def test_live_images_are_annotated_in_a_dataset(service: Service, images: str) -> None:
    answer = {
        "model_id": "m:1",
        "image": {"width": SIZE[0], "height": SIZE[1]},
        "predictions": [
            {
                "label": "car", "class_id": 0, "confidence": 0.4,
                "bounding_box": {"x1": 1, "y1": 2, "x2": 30, "y2": 20},
            }
        ],
    }  # fmt: skip
    kept = service.gateway.live.kept
    kept.limit = 2**20
    image = kept.keep(drawn(9), answer, 0.4)
    assert image is not None
    live = next(row for row in queue(service)["queue"] if row["source"] == "live")
    assert ((live["width"], live["height"]), live["prelabels"]) == (SIZE, 1)
    taken = send(service, f"kept/{image.id}/dataset", dataset_id=images)
    assert taken.status_code == 200, taken.text
    content = taken.json()["content"]
    assert taken.json()["new"] is True
    assert send(service, f"kept/{image.id}/dataset", dataset_id=images).json()["new"] is False
    row = next(row for row in queue(service)["queue"] if row["content"] == content)
    assert (row["source"], row["dataset_id"]) == ("dataset", images)
    found = look(service, images, content)
    assert (found["annotated"], found["model_id"]) == (False, "m:1")
    assert [one["label"] for one in found["suggestions"]] == ["car"]
    accept(service, images, content, [shape("car")])
    assert commit(service, images).status_code == 201
    assert look(service, images, content)["by"] == ALICE_NAME
    assert send(service, "kept/nothing/dataset", dataset_id=images).status_code == 404
    assert send(service, f"kept/{image.id}/dataset", dataset_id="nothing").status_code == 404


def test_what_is_not_understood_is_refused(service: Service, images: str) -> None:
    assert send(service, "queue/claim", count=0).status_code == 400
    assert send(service, "queue/claim", dataset="nothing").status_code == 404
    assert send(service, "queue/skip", content="x").status_code == 400
    assert send(service, "queue/release", contents=[]).status_code == 400
