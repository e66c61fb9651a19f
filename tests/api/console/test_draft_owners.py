"""Drafts of somebody who is gone: taken over or discarded by an administrator, visibly."""

from __future__ import annotations

from typing import Any

import httpx

from api.requests import MOST_VALUES
from tests.support.drafting import (  # fmt: skip
    ALICE,
    ALICE_NAME,
    BOB,
    BOB_NAME,
    IMAGES,
    NEW,
    accept,
    commit,
    drafts,
    put,
    shape,
)
from tests.support.patience import wait_until
from tests.support.training_app import Service

ONE, TWO, THREE = IMAGES


def ask(service: Service, dataset: str, what: str, who: Any = ALICE, **body: Any) -> httpx.Response:
    path = f"/api/datasets/{dataset}/drafts/{what}"
    return service.call(service.app, "POST", path, json=body, headers=who)


def trail(service: Service) -> list[str]:
    return [entry.what for entry in service.gateway.access.trail.list()]


def test_drafts_are_taken_over_and_committed(service: Service, frames: str) -> None:
    accept(service, frames, ONE, [shape("dog")], BOB)
    put(service, frames, TWO, [shape("dog")], BOB | NEW)
    put(service, frames, TWO, [shape("car")], ALICE | NEW)
    answer = ask(service, frames, "take-over", author=BOB_NAME)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["contents"], answer.json()["left"]) == ([ONE], [TWO])
    found = {(one["content"], one["author"]) for one in drafts(service, frames)["drafts"]}
    assert found == {(ONE, ALICE_NAME), (TWO, ALICE_NAME), (TWO, BOB_NAME)}
    assert commit(service, frames).json()["committed"] == [ONE]
    wait_until(lambda: f"took over 1 drafts of {BOB_NAME}" in trail(service))


def test_drafts_of_another_are_discarded(service: Service, frames: str) -> None:
    for content in (ONE, TWO):
        put(service, frames, content, [shape("dog")], BOB | NEW)
    answer = ask(service, frames, "discard", author=BOB_NAME, contents=[ONE])
    assert (answer.status_code, answer.json()["contents"]) == (200, [ONE])
    assert [one["content"] for one in drafts(service, frames)["drafts"]] == [TWO]
    wait_until(lambda: f"discarded 1 drafts of {BOB_NAME}" in trail(service))
    assert ask(service, frames, "discard", author=BOB_NAME, contents=[ONE]).status_code == 404


def test_what_the_person_draws_after_that_is_theirs_again(service: Service, frames: str) -> None:
    etag = put(service, frames, ONE, [shape("dog")], BOB | NEW).headers["etag"]
    assert ask(service, frames, "take-over", author=BOB_NAME).status_code == 200
    seen = BOB | {"If-Match": etag}
    assert put(service, frames, ONE, [shape("car")], seen).status_code == 412
    assert put(service, frames, ONE, [shape("car")], BOB | NEW).status_code == 200
    assert drafts(service, frames)["total"] == 2


def test_nothing_to_take_over_is_said(service: Service, frames: str) -> None:
    assert ask(service, frames, "take-over", author="nobody").status_code == 404
    own = ask(service, frames, "take-over", author=ALICE_NAME)
    assert (own.status_code, "yours already" in own.text) == (400, True)


def test_as_many_images_may_be_named_as_a_body_holds(service: Service, frames: str) -> None:
    for content in (ONE, TWO):
        put(service, frames, content, [shape("dog")], BOB | NEW)
    others = [f"{number:064x}" for number in range(MOST_VALUES - 1)]
    answer = ask(service, frames, "discard", author=BOB_NAME, contents=[ONE, *others])
    assert (answer.status_code, answer.json()["contents"]) == (200, [ONE])
    answer = ask(service, frames, "discard", author=BOB_NAME, contents=[ONE, TWO, *others])
    assert answer.status_code == 400
    assert f"more than {MOST_VALUES:,} values" in answer.json()["message"]
    assert [one["content"] for one in drafts(service, frames)["drafts"]] == [TWO]
