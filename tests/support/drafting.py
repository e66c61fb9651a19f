"""Requests of an annotator: drafts and commits."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import httpx

from tests.support.correction_app import drawn
from tests.support.training_app import Service

ALICE, BOB = {"X-Annotator": "alice"}, {"X-Annotator": "bob"}
ALICE_NAME, BOB_NAME = "alice (unverified)", "bob (unverified)"
IMAGES = [sha256(drawn(seed)).hexdigest() for seed in range(3)]
"""SHA-256 of the three images of FRAMES."""
NEW = {"If-None-Match": "*"}


def shape(
    label: str = "car", box: Sequence[float] | None = (8, 8, 28, 28), **more: Any
) -> dict[str, Any]:
    corners = list(box) if box is not None else None
    return {"id": "s1", "label": label, "box": corners, "parts": [], "keypoints": []} | more


def look(service: Service, dataset: str, content: str = IMAGES[0], **query: Any) -> Any:
    path = f"/api/datasets/{dataset}/images/{content}/annotations"
    return service.get(path, params=query)


def put(
    service: Service,
    dataset: str,
    content: str,
    objects: list[Any],
    headers: dict[str, str],
    state: str = "draft",
    base: str | None = None,
) -> httpx.Response:
    body = {
        "objects": objects,
        "state": state,
        "base": look(service, dataset, content)["base"] if base is None else base,
    }
    path = f"/api/datasets/{dataset}/images/{content}/draft"
    return service.call(service.app, "PUT", path, json=body, headers=headers)


def accept(
    service: Service,
    dataset: str,
    content: str,
    objects: list[Any],
    who: dict[str, str] = ALICE,
    base: str | None = None,
) -> Any:
    """A new draft that is accepted."""
    answer = put(service, dataset, content, objects, who | NEW, "accepted", base)
    assert answer.status_code == 200, answer.text
    return answer.json()


def commit(
    service: Service, dataset: str, who: dict[str, str] = ALICE, dry_run: bool = False, **body: Any
) -> httpx.Response:
    path = f"/api/datasets/{dataset}/drafts/commit"
    query = {"dry_run": "true"} if dry_run else {}
    return service.call(service.app, "POST", path, json=body, params=query, headers=who)


def drafts(service: Service, dataset: str, who: dict[str, str] = ALICE, **query: Any) -> Any:
    return service.get(f"/api/datasets/{dataset}/drafts", params=query, headers=who)
