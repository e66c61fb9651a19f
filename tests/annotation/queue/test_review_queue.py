"""The review queue: images that a person can correct, by the newest prediction."""

from __future__ import annotations

import pytest

from annotation.cleanup import delete_leftovers
from annotation.datasets import AnnotatedDatasets
from annotation.entries import image_entry
from annotation.image_records import PRELABEL_RANK
from annotation.queue.review_queue import newest_of_each, queued_images
from annotation.tables import AnnotatedDataset
from database import Database
from dataset.revisions import CARD
from formats.annotations import Annotations
from jobs.store import JobStore
from settings import Settings
from tests.support.annotated import age
from tests.support.clock import next_instant


def prelabelled(annotated: AnnotatedDatasets, by: str, whole: bool = True) -> AnnotatedDataset:
    """A batch's dataset of one image, the same in all."""
    dataset = annotated.ensure(f"batch:{by}", by, {}, "batch")
    if whole:
        annotated.folder(dataset.id).mkdir(parents=True)
        (annotated.folder(dataset.id) / CARD).write_text("{}")
    entry = image_entry(
        "model",
        "c" * 64,
        ".png",
        Annotations("a.png", 9, 9),
        rank=PRELABEL_RANK,
        document={"by": by},
    )
    annotated.entries.add_prelabels(dataset.id, [entry])
    next_instant()
    return dataset


@pytest.mark.parametrize("order", [("old", "new"), ("zzz-old", "aaa-new")])
def test_of_one_image_in_several_datasets_the_newest_answer_counts(
    annotated: AnnotatedDatasets, order: tuple[str, str]
) -> None:
    for name in order:
        prelabelled(annotated, name)
    found, _ = queued_images(annotated)
    assert len(found) == 2
    (one,) = newest_of_each(found)
    assert one.document["by"] == order[1]


def test_images_of_a_job_that_has_not_ended_are_not_queued(annotated: AnnotatedDatasets) -> None:
    running = prelabelled(annotated, "running", whole=False)
    assert queued_images(annotated) == queued_images(annotated, running.id) == ([], [])


def test_a_dataset_that_was_made_just_now_is_no_leftover(
    annotated: AnnotatedDatasets, settings: Settings
) -> None:
    made = annotated.ensure("batch:1", "Just now", {}, "batch")  # no folder yet
    jobs = JobStore(Database(settings))
    delete_leftovers(annotated, jobs, settings)
    assert annotated.get(made.id).id == made.id
    age(annotated, made.id)
    delete_leftovers(annotated, jobs, settings)
    assert annotated.find("batch:1") is None
    jobs.database.close()
