"""What the queue is made of: pictures that a person can correct, by the newest answer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from annotation.cleanup import clear_leftovers
from annotation.pictures import PRELABEL_RANK
from annotation.review_queue import unique, waiting
from annotation.store import AnnotatedDataset, AnnotatedDatasets, AnnotationEntry
from database import Database
from dataset.store import CARD
from formats.annotations import Annotations
from jobs.store import JobStore
from settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> AnnotatedDatasets:
    return AnnotatedDatasets(Database(settings))


def prelabelled(store: AnnotatedDatasets, by: str, whole: bool = True) -> AnnotatedDataset:
    """A batch's data set of one picture, the same in all."""
    dataset = store.ensure(f"batch:{by}", by, {})
    if whole:
        store.folder(dataset.id).mkdir(parents=True)
        (store.folder(dataset.id) / CARD).write_text("{}")
    entry = AnnotationEntry(
        key="model:1",
        rank=PRELABEL_RANK,
        content="c" * 64,
        suffix=".png",
        annotations=Annotations("a.png", 9, 9).to_json(),
        document={"by": by},
    )
    store.add_first(dataset.id, [entry])
    time.sleep(0.002)
    return dataset


@pytest.mark.parametrize("order", [("old", "new"), ("zzz-old", "aaa-new")])
def test_of_one_picture_in_several_data_sets_the_newest_answer_counts(
    store: AnnotatedDatasets, order: tuple[str, str]
) -> None:
    for name in order:
        prelabelled(store, name)
    found, _ = waiting(store)
    assert len(found) == 2
    (one,) = unique(found)
    assert one.document["by"] == order[1]


def test_pictures_of_a_job_that_has_not_ended_are_not_queued(store: AnnotatedDatasets) -> None:
    running = prelabelled(store, "running", whole=False)
    assert waiting(store) == waiting(store, running.id) == ([], [])


def test_a_data_set_that_was_made_just_now_is_no_leftover(
    store: AnnotatedDatasets, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.ensure("batch:1", "Just now", {})  # its folder comes with its first picture
    jobs = JobStore(Database(settings))
    clear_leftovers(store, jobs, settings)
    assert store.get(made.id).id == made.id
    monkeypatch.setattr("annotation.cleanup.YOUNG", -1.0)
    clear_leftovers(store, jobs, settings)
    assert store.find("batch:1") is None
    jobs.database.close()
