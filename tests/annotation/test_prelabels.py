"""Prelabels: stored once per image and tool, and deleted when they expire."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from annotation.prelabels import AnnotatedImage, PrelabelRow, PrelabelStore, prelabels_until
from database import Database
from formats.annotations import Annotation, Annotations
from settings import Settings


@pytest.fixture
def store(tmp_path: Path) -> PrelabelStore:
    return PrelabelStore(Database(Settings(home=tmp_path)))


def marked(label: str) -> Annotations:
    return Annotations("a.jpg", 20, 10, (Annotation(label, box=(1, 2, 3, 4), score=0.5),))


def said(store: PrelabelStore, image: bytes, until: str = "9") -> list[dict[str, Any]]:
    with store.database.read() as session:
        return prelabels_until(session, sha256(image).hexdigest(), until)


def test_the_same_file_is_the_same_image(store: PrelabelStore) -> None:
    first = store.add(b"one", marked("a"), "object_detection", "m:1", 0.3)
    again = store.add(b"one", marked("b"), "image_segmentation", "m:2")
    other = store.add(b"two", marked("a"), "object_detection", "m:1")
    assert first == again != other
    found = {row["tool"]: row for row in said(store, b"one")}
    assert set(found) == {"image_segmentation", "object_detection"}
    older = found["object_detection"]
    assert (older["by"], Annotations.from_json(older["annotations"])) == ("m:1", marked("a"))


def test_a_tools_newer_answer_takes_the_place_of_its_older_one(store: PrelabelStore) -> None:
    store.add(b"one", marked("a"), "object_detection", "m:1")
    store.add(b"one", marked("b"), "object_detection", "m:2")
    (kept,) = said(store, b"one")
    assert kept["by"] == "m:2"
    assert Annotations.from_json(kept["annotations"]) == marked("b")


def test_what_is_not_known_or_came_later_was_not_said(store: PrelabelStore) -> None:
    assert said(store, b"none") == []
    store.add(b"one", marked("a"), "object_detection", "m:1")
    assert said(store, b"one", until="2026-01-01") == []


def test_expired_prelabels_are_deleted_with_their_images(
    store: PrelabelStore,
) -> None:
    store.add(b"one", marked("a"), "object_detection", "m:1")
    with store.database.write() as session:
        session.execute(update(PrelabelRow).values(created_at="2020-01-01T00:00:00.000+00:00"))
    store = PrelabelStore(store.database)  # a new one deletes what has expired at once
    store.add(b"two", marked("a"), "object_detection", "m:1")
    assert said(store, b"one") == []
    assert len(said(store, b"two")) == 1
    with store.database.read() as session:
        assert session.scalar(select(func.count()).select_from(AnnotatedImage)) == 1
