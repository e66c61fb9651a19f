"""Data sets that grow: who counts, what is held out, what trains."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import DatasetInvalid, DatasetNotFound, InvalidImage
from inference.annotations import Annotation, Annotations, Keypoint, Part
from models_store.description import Task
from settings import Settings
from training.annotated_dataset import AnnotatedDataset, AnnotatedDatasets, suffix_of
from training.annotated_folder import build, held_out, task_of
from training.dataset_store import DatasetStore

BOX = Annotation("car", box=(1, 2, 30, 20))
POLYGON = Annotation("tree", parts=(Part(((0, 0), (20, 0), (20, 20))),))
POSE = Annotation("man", box=(0, 0, 20, 30), keypoints=(Keypoint("nose", 5, 5),))
WHOLE = Annotation("night")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> AnnotatedDatasets:
    return AnnotatedDatasets(settings)


@pytest.fixture
def dataset(store: AnnotatedDatasets) -> AnnotatedDataset:
    return store.ensure("tool:1", "My project", {})


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def marked(*objects: Annotation) -> Annotations:
    return Annotations("a.png", 60, 40, objects)


def test_a_source_has_one_data_set(store: AnnotatedDatasets) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: store.ensure("tool:1", "Name", {"n": i}).id, range(16)))
    assert len(set(found)) == 1
    assert store.ensure("tool:2", "Name", {}).id not in found
    with pytest.raises(DatasetNotFound):
        store.get("none")


def test_many_annotations_at_once_are_all_kept(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    def put(number: int) -> None:
        store.put(dataset.id, str(number), picture(number % 10), marked(BOX), task=str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(40)))
    assert store.count(dataset.id) == 40
    assert len(store.pictures(dataset.id)) == 10  # the same file is one picture
    assert not list((store.folder(dataset.id) / "pictures").glob(".partial*"))


def test_of_several_annotations_the_ground_truth_counts_else_the_newest(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    def label() -> list[str]:
        return [o.label for o in store.pictures(dataset.id)[0].annotations.objects]

    store.put(dataset.id, "1", picture(1), marked(BOX))
    store.put(dataset.id, "2", picture(1), marked(POLYGON))
    assert label() == ["tree"]
    store.put(dataset.id, "3", picture(1), marked(WHOLE), rank=1)
    store.put(dataset.id, "2", picture(1), marked(BOX))
    assert label() == ["night"]
    assert store.remove(dataset.id, keys=["3"]) == 1
    assert label() == ["car"]


def test_what_was_overtaken_changes_nothing(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    assert store.receive(dataset.id, "1", {"n": 1}, stamp="2026-01-02")
    (first,) = store.waiting(dataset.id)
    assert not store.receive(dataset.id, "1", {"n": 0}, stamp="2026-01-01")
    assert store.receive(dataset.id, "1", {"n": 2}, stamp="2026-01-03")
    assert not store.settle(first, picture(1), marked(BOX))  # its picture came too late
    (second,) = store.waiting(dataset.id)
    assert second.document == {"n": 2}
    assert store.settle(second, picture(1), marked(BOX))
    assert store.waiting() == []


def test_pictures_never_change_sides() -> None:
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
        store.put(dataset.id, str(number), picture(number), marked(thing))
    card = build(store, dataset)
    assert (card["task"], card["usable"], card["classes"]) == (task, True, [thing.label])
    assert store.changed() == []
    shown = DatasetStore(settings)
    assert [listed["id"] for listed in shown.list()] == [dataset.id]
    found = shown.open(dataset.id) if task != "classify" else None
    if found is not None:
        assert found.problems == ()
        assert set(found.splits) == {"train", "val"}

    first = shown.resolve(dataset.id)
    store.put(dataset.id, "more", picture(99), marked(thing))
    assert [changed.id for changed in store.changed()] == [dataset.id]
    again = build(store, dataset)
    assert (card["revision"], again["revision"]) == (1, 2)
    assert shown.resolve(dataset.id) != first
    assert first.exists()  # a job may be training on it


def test_revisions_that_nothing_names_make_room(
    store: AnnotatedDatasets, dataset: AnnotatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.annotated_folder.YOUNG", -1.0)
    store.put(dataset.id, "1", picture(1), marked(BOX))
    revisions = store.folder(dataset.id) / "revisions"
    used = {str(revisions / "000002" / "data.yaml")}
    for number in range(1, 8):
        build(store, dataset, used=used, keep=number == 1)
    assert sorted(int(path.name) for path in revisions.iterdir()) == [1, 2, 5, 6, 7]


def test_a_data_set_without_pictures_cannot_be_built(
    store: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    with pytest.raises(DatasetInvalid, match="no annotated picture"):
        build(store, dataset)
    store.put(dataset.id, "1", picture(1), marked(BOX))
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
