"""The review queue: images that a person can correct, by the newest prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotation.cleanup import delete_leftovers
from annotation.image_records import PRELABEL_RANK
from annotation.review_queue import newest_of_each, queued_images
from annotation.store import AnnotatedDataset, AnnotatedDatasets, image_entry
from database import Database
from dataset.store import CARD
from formats.annotations import Annotations
from jobs.store import JobStore
from settings import Settings
from tests.support.clock import next_instant


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> AnnotatedDatasets:
    return AnnotatedDatasets(Database(settings))


def prelabelled(store: AnnotatedDatasets, by: str, whole: bool = True) -> AnnotatedDataset:
    """A batch's dataset of one image, the same in all."""
    dataset = store.ensure(f"batch:{by}", by, {}, "batch")
    if whole:
        store.folder(dataset.id).mkdir(parents=True)
        (store.folder(dataset.id) / CARD).write_text("{}")
    entry = image_entry(
        "model",
        "c" * 64,
        ".png",
        Annotations("a.png", 9, 9),
        rank=PRELABEL_RANK,
        document={"by": by},
    )
    store.add_prelabels(dataset.id, [entry])
    next_instant()
    return dataset


@pytest.mark.parametrize("order", [("old", "new"), ("zzz-old", "aaa-new")])
def test_of_one_image_in_several_datasets_the_newest_answer_counts(
    store: AnnotatedDatasets, order: tuple[str, str]
) -> None:
    for name in order:
        prelabelled(store, name)
    found, _ = queued_images(store)
    assert len(found) == 2
    (one,) = newest_of_each(found)
    assert one.document["by"] == order[1]


def test_images_of_a_job_that_has_not_ended_are_not_queued(store: AnnotatedDatasets) -> None:
    running = prelabelled(store, "running", whole=False)
    assert queued_images(store) == queued_images(store, running.id) == ([], [])


def test_a_dataset_that_was_made_just_now_is_no_leftover(
    store: AnnotatedDatasets, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.ensure("batch:1", "Just now", {}, "batch")  # no folder yet
    jobs = JobStore(Database(settings))
    delete_leftovers(store, jobs, settings)
    assert store.get(made.id).id == made.id
    monkeypatch.setattr("annotation.cleanup.MIN_AGE", -1.0)
    delete_leftovers(store, jobs, settings)
    assert store.find("batch:1") is None
    jobs.database.close()
