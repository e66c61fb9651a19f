"""The store of annotations: which of an image's annotations count."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from annotation.corrections.applied_correction import apply_correction
from annotation.datasets import AnnotatedDatasets
from annotation.prelabels import PrelabelStore
from annotation.tables import AnnotatedDataset, AnnotationEntry
from database import Database
from formats.annotations import Annotation
from settings import Settings
from tests.support.annotated import BOX, POLYGON, WHOLE, marked, picture, put
from tests.support.clock import next_instant

GUESS = Annotation("car", box=(10, 10, 50, 30), score=0.9)


def test_many_annotations_at_once_are_all_kept(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    def one(number: int) -> None:
        put(annotated, dataset.id, str(number), picture(number % 10), marked(BOX), task=str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(40)))
    assert annotated.entries.count(dataset.id) == 40
    assert len(annotated.entries.records(dataset.id)) == 10  # the same file is one image
    assert not list((annotated.folder(dataset.id) / "pictures").glob(".partial*"))


def test_of_several_annotations_the_ground_truth_counts_else_the_newest(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    def label() -> list[str]:
        return [o.label for o in annotated.entries.records(dataset.id)[0].annotations.objects]

    put(annotated, dataset.id, "1", picture(1), marked(BOX))
    put(annotated, dataset.id, "2", picture(1), marked(POLYGON))
    assert label() == ["tree"]
    put(annotated, dataset.id, "3", picture(1), marked(WHOLE), rank=1)
    put(annotated, dataset.id, "2", picture(1), marked(BOX))
    assert label() == ["night"]
    assert annotated.entries.remove(dataset.id, keys=["3"]) == 1
    assert label() == ["car"]


def test_more_are_removed_than_a_statement_of_the_database_takes(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    """SQLite takes 1,000 alternatives; Label Studio may tell of 10,000 deleted annotations."""
    for key in ("1", "1#1", "999#2", "a_", "ab"):
        annotated.entries.receive(dataset.id, key, {}, stamp="2026-01-02")
    annotated.entries.receive(dataset.id, "of-a-task", {}, stamp="2026-01-02", task="1500")
    gone = [str(number) for number in range(1200)]
    tasks = [str(number) for number in range(2000)]
    assert annotated.entries.remove(dataset.id, keys=[*gone, "a_", "1"], tasks=tasks) == 5
    assert annotated.entries.count(dataset.id) == 1


def test_an_outdated_annotation_changes_nothing(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    assert annotated.entries.receive(dataset.id, "1", {"n": 1}, stamp="2026-01-02")
    (first,) = annotated.entries.waiting(dataset.id)
    assert not annotated.entries.receive(dataset.id, "1", {"n": 0}, stamp="2026-01-01")
    assert annotated.entries.receive(dataset.id, "1", {"n": 2}, stamp="2026-01-03")
    assert not annotated.entries.complete(first, picture(1), marked(BOX))  # its image came too late
    (second,) = annotated.entries.waiting(dataset.id)
    assert second.document == {"n": 2}
    assert annotated.entries.complete(second, picture(1), marked(BOX))
    assert annotated.entries.waiting() == []


def test_a_model_that_predicts_after_the_person_was_not_corrected(
    settings: Settings, annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    put(annotated, dataset.id, "1", picture(1), marked(BOX))
    next_instant()
    PrelabelStore(Database(settings)).add(picture(1), marked(GUESS), "object_detection", "m:1")
    put(annotated, dataset.id, "1", picture(1), marked(BOX))
    assert annotated.entries.records(dataset.id)[0].prelabels == ()


def test_of_a_tool_and_of_corrections_over_http_the_newer_counts(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    def label() -> list[str]:
        return [o.label for o in annotated.entries.records(dataset.id)[0].annotations.objects]

    put(annotated, dataset.id, "1", picture(1), marked(BOX))
    (content,) = (found.content for found in annotated.entries.records(dataset.id))
    apply_correction(
        annotated.database, dataset.id, {content: marked(POLYGON)}, {content: ".jpg"}, {}
    )
    assert label() == ["tree"]
    next_instant()
    put(annotated, dataset.id, "1", picture(1), marked(BOX))
    assert label() == ["car"]


@pytest.mark.sqlite  # PostgreSQL uses an index once there are many rows
def test_an_image_of_a_large_dataset_is_found_by_its_index(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    row = AnnotationEntry
    query = select(row).where(row.dataset_id == dataset.id, row.content == "0" * 64)
    with annotated.database.read() as session:
        text = str(query.compile(session.connection(), compile_kwargs={"literal_binds": True}))
        plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
    assert "ix_annotation_entries_image" in str(plan)
