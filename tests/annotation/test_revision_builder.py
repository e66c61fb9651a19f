"""Revisions: what is held out, what trains, which are deleted."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from annotation.datasets import AnnotatedDatasets
from annotation.prelabels import PrelabelStore
from annotation.revision_builder import build
from annotation.revision_records import live_corrections, read_records
from annotation.tables import AnnotatedDataset
from database import Database
from dataset.splits import held_out_by_content
from dataset.store import DatasetStore
from errors import DatasetInvalid
from formats.annotations import Annotation
from models_store.description import Task
from settings import Settings
from tests.support.annotated import BOX, POLYGON, POSE, WHOLE, age, marked, picture, put
from tests.support.clock import next_instant

GUESS = Annotation("car", box=(10, 10, 50, 30), score=0.9)
MISSED = Annotation("car", box=(51, 31, 58, 38), score=0.4)


def test_an_annotation_that_waits_again_is_no_longer_in_the_folder(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    put(annotated, dataset.id, "1", picture(1), marked(BOX))
    put(annotated, dataset.id, "2", picture(2), marked(BOX))
    assert build(annotated, dataset)["files"] == 2
    annotated.entries.receive(dataset.id, "1", {"regions": ["of a kind that is not held"]})
    assert [changed.id for changed in annotated.outdated_projects()] == [dataset.id]
    card = build(annotated, dataset)
    assert (card["files"], card["waiting"]) == (1, 1)


def test_images_never_change_their_split() -> None:
    contents = [sha256(str(i).encode()).hexdigest() for i in range(400)]
    before, after = held_out_by_content(contents[:200]), held_out_by_content(contents)
    assert before == after & set(contents[:200])
    assert 0.14 < len(after) / 400 < 0.26
    assert held_out_by_content([]) == held_out_by_content(contents[:1]) == set()
    for count in (2, 3):
        assert 0 < len(held_out_by_content(contents[:count])) < count


@pytest.mark.parametrize(
    ("thing", "task"),
    [(BOX, "detect"), (POLYGON, "segment"), (POSE, "pose"), (WHOLE, "classify")],
)
def test_a_folder_trains_as_it_is(
    settings: Settings,
    annotated: AnnotatedDatasets,
    dataset: AnnotatedDataset,
    thing: Annotation,
    task: Task,
) -> None:
    for number in range(12):
        put(annotated, dataset.id, str(number), picture(number), marked(thing))
    card = build(annotated, dataset)
    assert (card["task"], card["usable"], card["classes"]) == (task, True, [thing.label])
    assert annotated.outdated_projects() == []
    shown = DatasetStore(settings)
    assert [listed["id"] for listed in shown.list()] == [dataset.id]
    found = shown.open(dataset.id) if task != "classify" else None
    if found is not None:
        assert found.problems == ()
        assert set(found.splits) == {"train", "val"}

    first = shown.resolve(dataset.id)
    put(annotated, dataset.id, "more", picture(99), marked(thing))
    assert [changed.id for changed in annotated.outdated_projects()] == [dataset.id]
    again = build(annotated, dataset)
    assert (card["revision"], again["revision"]) == (1, 2)
    assert shown.resolve(dataset.id) != first
    assert first.exists()  # a job may be training on it


def test_prelabels_are_stored_with_the_first_human_annotation(
    settings: Settings, annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    models = PrelabelStore(Database(settings))
    models.add(picture(1), marked(GUESS, MISSED), "object_detection", "old:1")
    models.add(picture(1), marked(WHOLE), "image_classification", "kind:1")  # of another task
    put(annotated, dataset.id, "1", picture(1), marked(replace(GUESS, score=None)))
    next_instant()
    models.add(picture(1), marked(GUESS), "object_detection", "trained_on_it:2")
    put(annotated, dataset.id, "1", picture(1), marked(replace(GUESS, score=None)))  # edited
    put(annotated, dataset.id, "2", picture(1), marked(replace(GUESS, score=None)))  # somebody else
    build(annotated, dataset)
    folder = settings.home / "datasets"
    (found,) = read_records(folder / dataset.id, 1)
    assert (found.before_by, found.before) == ("old:1", marked(GUESS, MISSED))
    newest = list(DatasetStore(settings).newest_revisions())
    live = live_corrections(newest, "old:1")
    assert live is not None
    assert (live["accepted"], live["removed"], live["precision"]) == (1, 1, 0.5)
    assert live_corrections(newest, "trained_on_it:2") is None


def test_old_revisions_that_nothing_names_are_deleted(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    put(annotated, dataset.id, "1", picture(1), marked(BOX))
    revisions = annotated.folder(dataset.id) / "revisions"
    used = {str(revisions / "000002" / "data.yaml")}
    for number in range(1, 8):
        age(annotated, dataset.id)
        build(annotated, dataset, used=used, keep=number == 1)
    assert sorted(int(path.name) for path in revisions.iterdir()) == [1, 2, 5, 6, 7]


def test_a_dataset_without_images_cannot_be_built(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    with pytest.raises(DatasetInvalid, match="no annotated image"):
        build(annotated, dataset)
    put(annotated, dataset.id, "1", picture(1), marked(BOX))
    card = build(annotated, dataset)
    assert card["usable"] is False
    assert card["problems"][0]["fatal"] is True
