from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from inference.annotations import Annotation, Annotations
from settings import Settings
from training.prelabels import PrelabelStore


@pytest.fixture
def store(tmp_path: Path) -> PrelabelStore:
    return PrelabelStore(Settings(home=tmp_path))


def marked(label: str) -> Annotations:
    return Annotations("a.jpg", 20, 10, (Annotation(label, box=(1, 2, 3, 4), score=0.5),))


def test_the_same_file_is_the_same_picture(store: PrelabelStore) -> None:
    first = store.add(b"one", marked("a"), "object_detection", "m:1", 0.3)
    again = store.add(b"one", marked("b"), "image_segmentation", "m:2")
    other = store.add(b"two", marked("a"), "object_detection", "m:1")
    assert first == again != other
    newest, older = store.get(first)
    assert (newest.tool, newest.model_id, newest.confidence) == ("image_segmentation", "m:2", None)
    assert older.annotations == marked("a")
    assert older.confidence == 0.3


def test_a_tools_newer_answer_takes_the_place_of_its_older_one(store: PrelabelStore) -> None:
    picture = store.add(b"one", marked("a"), "object_detection", "m:1")
    store.add(b"one", marked("b"), "object_detection", "m:2")
    (kept,) = store.of(sha256(b"one").hexdigest())
    assert (kept.image_id, kept.model_id) == (picture, "m:2")
    assert kept.annotations == marked("b")


def test_what_is_not_known_has_no_prelabels(store: PrelabelStore) -> None:
    assert store.get(7) == store.of("0" * 64) == []
