"""The store of annotated datasets: which annotations count, what is held out, what trains."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation.prelabels import PrelabelStore
from annotation.revision_builder import build, held_out
from annotation.revision_records import live_corrections, read_records
from annotation.store import AnnotatedDataset, AnnotatedDatasets, AnnotationEntry, suffix_of
from database import Database
from dataset.store import DatasetStore
from dataset.task_forms import task_of
from errors import DatasetInvalid, DatasetNotFound, InvalidImage
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint
from models_store.description import Task
from settings import Settings
from tests.support.clock import next_instant
from tests.support.seeds import rng

BOX = Annotation("car", box=(1, 2, 30, 20))
POLYGON = Annotation("tree", parts=(AnnotationPart(((0, 0), (20, 0), (20, 20))),))
POSE = Annotation("man", box=(0, 0, 20, 30), keypoints=(Keypoint("nose", 5, 5),))
WHOLE = Annotation("night")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> AnnotatedDatasets:
    return AnnotatedDatasets(Database(settings))


@pytest.fixture
def dataset(store: AnnotatedDatasets) -> AnnotatedDataset:
    return store.ensure("tool:1", "My project", {})


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def put(
    store: AnnotatedDatasets,
    dataset_id: str,
    key: str,
    image: bytes,
    found: Annotations,
    *,
    task: str = "",
    rank: int = 0,
) -> None:
    """An annotation whose image follows at once."""
    store.receive(dataset_id, key, {}, task=task, rank=rank)
    with store.database.read() as session:
        entry = session.get(AnnotationEntry, (dataset_id, key))
    assert entry is not None
    store.complete(entry, image, found)


def marked(*objects: Annotation) -> Annotations:
    return Annotations("a.png", 60, 40, objects)


def test_a_source_has_one_dataset(store: AnnotatedDatasets) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: store.ensure("tool:1", "Name", {"n": i}).id, range(16)))
    assert len(set(found)) == 1
    assert store.ensure("tool:2", "Name", {}).id not in found
    with pytest.raises(DatasetNotFound):
        store.get("none")


def test_many_annotations_at_once_are_all_kept(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    def one(number: int) -> None:
        put(store, dataset.id, str(number), picture(number % 10), marked(BOX), task=str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(40)))
    assert store.count(dataset.id) == 40
    assert len(store.records(dataset.id)) == 10  # the same file is one image
    assert not list((store.folder(dataset.id) / "pictures").glob(".partial*"))


def test_of_several_annotations_the_ground_truth_counts_else_the_newest(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    def label() -> list[str]:
        return [o.label for o in store.records(dataset.id)[0].annotations.objects]

    put(store, dataset.id, "1", picture(1), marked(BOX))
    put(store, dataset.id, "2", picture(1), marked(POLYGON))
    assert label() == ["tree"]
    put(store, dataset.id, "3", picture(1), marked(WHOLE), rank=1)
    put(store, dataset.id, "2", picture(1), marked(BOX))
    assert label() == ["night"]
    assert store.remove(dataset.id, keys=["3"]) == 1
    assert label() == ["car"]


def test_an_outdated_annotation_changes_nothing(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    assert store.receive(dataset.id, "1", {"n": 1}, stamp="2026-01-02")
    (first,) = store.waiting(dataset.id)
    assert not store.receive(dataset.id, "1", {"n": 0}, stamp="2026-01-01")
    assert store.receive(dataset.id, "1", {"n": 2}, stamp="2026-01-03")
    assert not store.complete(first, picture(1), marked(BOX))  # its image came too late
    (second,) = store.waiting(dataset.id)
    assert second.document == {"n": 2}
    assert store.complete(second, picture(1), marked(BOX))
    assert store.waiting() == []


def test_an_annotation_that_waits_again_is_no_longer_in_the_folder(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    put(store, dataset.id, "1", picture(1), marked(BOX))
    put(store, dataset.id, "2", picture(2), marked(BOX))
    assert build(store, dataset)["files"] == 2
    store.receive(dataset.id, "1", {"regions": ["of a kind that is not held"]})
    assert [changed.id for changed in store.outdated_projects()] == [dataset.id]
    card = build(store, dataset)
    assert (card["files"], card["waiting"]) == (1, 1)


def test_images_never_change_their_split() -> None:
    contents = [sha256(str(i).encode()).hexdigest() for i in range(400)]
    before, after = held_out(contents[:200]), held_out(contents)
    assert before == after & set(contents[:200])
    assert 0.14 < len(after) / 400 < 0.26
    assert held_out([]) == held_out(contents[:1]) == set()
    for count in (2, 3):
        assert 0 < len(held_out(contents[:count])) < count


@pytest.mark.parametrize(
    ("objects", "task"),
    [
        ((BOX,), "detect"),
        ((BOX, POLYGON), "detect"),
        ((POLYGON, POLYGON, BOX), "segment"),
        ((BOX, POSE), "pose"),
        ((WHOLE,), "classify"),
        ((), "classify"),
    ],
)
def test_the_task_follows_what_was_drawn(objects: tuple[Annotation, ...], task: Task) -> None:
    assert task_of([marked(*objects)]) == task


@pytest.mark.parametrize(
    ("thing", "task"),
    [(BOX, "detect"), (POLYGON, "segment"), (POSE, "pose"), (WHOLE, "classify")],
)
def test_a_folder_trains_as_it_is(
    settings: Settings,
    store: AnnotatedDatasets,
    dataset: AnnotatedDataset,
    thing: Annotation,
    task: Task,
) -> None:
    for number in range(12):
        put(store, dataset.id, str(number), picture(number), marked(thing))
    card = build(store, dataset)
    assert (card["task"], card["usable"], card["classes"]) == (task, True, [thing.label])
    assert store.outdated_projects() == []
    shown = DatasetStore(settings)
    assert [listed["id"] for listed in shown.list()] == [dataset.id]
    found = shown.open(dataset.id) if task != "classify" else None
    if found is not None:
        assert found.problems == ()
        assert set(found.splits) == {"train", "val"}

    first = shown.resolve(dataset.id)
    put(store, dataset.id, "more", picture(99), marked(thing))
    assert [changed.id for changed in store.outdated_projects()] == [dataset.id]
    again = build(store, dataset)
    assert (card["revision"], again["revision"]) == (1, 2)
    assert shown.resolve(dataset.id) != first
    assert first.exists()  # a job may be training on it


GUESS = Annotation("car", box=(10, 10, 50, 30), score=0.9)
MISSED = Annotation("car", box=(51, 31, 58, 38), score=0.4)


def test_prelabels_are_stored_with_the_first_human_annotation(
    settings: Settings, store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    models = PrelabelStore(Database(settings))
    models.add(picture(1), marked(GUESS, MISSED), "object_detection", "old:1")
    models.add(picture(1), marked(WHOLE), "image_classification", "kind:1")  # of another task
    put(store, dataset.id, "1", picture(1), marked(replace(GUESS, score=None)))
    next_instant()
    models.add(picture(1), marked(GUESS), "object_detection", "trained_on_it:2")
    put(store, dataset.id, "1", picture(1), marked(replace(GUESS, score=None)))  # edited
    put(store, dataset.id, "2", picture(1), marked(replace(GUESS, score=None)))  # somebody else
    build(store, dataset)
    folder = settings.home / "datasets"
    (found,) = read_records(folder / dataset.id, 1)
    assert (found.before_by, found.before) == ("old:1", marked(GUESS, MISSED))
    live = live_corrections(folder, "old:1")
    assert live is not None
    assert (live["accepted"], live["removed"], live["precision"]) == (1, 1, 0.5)
    assert live_corrections(folder, "trained_on_it:2") is None


def test_a_model_that_predicts_after_the_person_was_not_corrected(
    settings: Settings, store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    put(store, dataset.id, "1", picture(1), marked(BOX))
    next_instant()
    PrelabelStore(Database(settings)).add(picture(1), marked(GUESS), "object_detection", "m:1")
    put(store, dataset.id, "1", picture(1), marked(BOX))
    assert store.records(dataset.id)[0].prelabels == ()


def test_of_a_tool_and_of_corrections_over_http_the_newer_counts(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    def label() -> list[str]:
        return [o.label for o in store.records(dataset.id)[0].annotations.objects]

    put(store, dataset.id, "1", picture(1), marked(BOX))
    (content,) = (found.content for found in store.records(dataset.id))
    store.correct(dataset.id, {content: marked(POLYGON)}, {content: ".jpg"}, {})
    assert label() == ["tree"]
    next_instant()
    put(store, dataset.id, "1", picture(1), marked(BOX))
    assert label() == ["car"]


def test_old_revisions_that_nothing_names_are_deleted(
    store: AnnotatedDatasets, dataset: AnnotatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotation.revision_builder.MIN_AGE", -1.0)
    put(store, dataset.id, "1", picture(1), marked(BOX))
    revisions = store.folder(dataset.id) / "revisions"
    used = {str(revisions / "000002" / "data.yaml")}
    for number in range(1, 8):
        build(store, dataset, used=used, keep=number == 1)
    assert sorted(int(path.name) for path in revisions.iterdir()) == [1, 2, 5, 6, 7]


def test_a_dataset_without_images_cannot_be_built(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    with pytest.raises(DatasetInvalid, match="no annotated image"):
        build(store, dataset)
    put(store, dataset.id, "1", picture(1), marked(BOX))
    card = build(store, dataset)
    assert card["usable"] is False
    assert card["problems"][0]["fatal"] is True


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("BMP", ".bmp"), ("WEBP", ".webp"), ("TIFF", ".tif")],
)
def test_files_are_named_by_what_they_are(kind: str, suffix: str) -> None:
    assert suffix_of(picture(1, kind)) == suffix


def test_a_format_that_trainers_do_not_read_is_refused() -> None:
    with pytest.raises(InvalidImage):
        suffix_of(picture(1, "GIF"))
