"""Corrections read from documents: what counts as a background, and what a task cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from annotation.corrections.application import corrected
from annotation.corrections.correction import Correction, CorrectionRules
from annotation.corrections.reader import read_correction
from annotation.datasets import AnnotatedDatasets
from annotation.entries import image_entry
from annotation.image_records import ORIGINAL, ORIGINAL_RANK, ImageRecord
from annotation.revision_builder import build
from annotation.tables import AnnotatedDataset
from database import Database
from dataset.documents.reader import from_folder
from errors import ValidationFailed
from formats.annotations import Annotation, Annotations, Keypoint
from models_store.description import Task
from settings import Settings
from tests.support.correction_app import SIZE, cvat, drawn

NAMES = ("car", "person", "dog")
KEYPOINTS = ("nose", "tail")
POSE = Annotation(
    "dog", box=(5, 5, 25, 25), keypoints=(Keypoint("nose", 9, 9), Keypoint("tail", 20, 20))
)


def records(count: int, *objects: Annotation) -> list[ImageRecord]:
    """Images `0.png`, `1.png` … as uploaded, with the same objects each."""
    return [
        ImageRecord(
            sha256(drawn(seed)).hexdigest(),
            Path(f"{seed}.png"),
            Annotations(f"{seed}.png", *SIZE, objects),
            name=f"{seed}.png",
            by=ORIGINAL,
        )
        for seed in range(count)
    ]


def read(
    known: list[ImageRecord],
    folder: Path,
    files: Mapping[str, str],
    *,
    task: Task = "detect",
    background: bool = False,
) -> Correction:
    """The correction that a folder of documents is."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    points = KEYPOINTS if task == "pose" else ()
    sent = from_folder(folder, None, NAMES, points)
    rules = CorrectionRules("street", NAMES, task, 10**6, background=background)
    return read_correction(known, sent, rules)


# --- empty=background in a CVAT document


def test_images_without_objects_in_a_cvat_document_become_backgrounds_when_asked(
    tmp_path: Path,
) -> None:
    known = records(3, Annotation("car", box=(5, 5, 25, 25)))
    document = {"annotations.xml": cvat({"0.png": None, "1.png": "dog"})}
    plain = read(known, tmp_path / "plain", document)
    assert plain.found.keys() == {known[1].content}
    assert plain.left == {known[0].content}
    assert "1 images are unchanged" in plain.notes[0]

    asked = read(known, tmp_path / "asked", document, background=True)
    assert asked.found.keys() == {known[0].content, known[1].content}
    assert len(asked.found[known[0].content]) == 0
    assert asked.left == set()
    assert asked.removes.objects == 1
    images = asked.to_json()["accounting"]["images"]
    assert images == {"received": 2, "matched": 2, "new": 0, "unmatched": 0}


def test_a_cvat_document_without_any_object_is_refused_unless_it_means_backgrounds(
    tmp_path: Path,
) -> None:
    known = records(2, Annotation("car", box=(5, 5, 25, 25)))
    document = {"annotations.xml": cvat({"0.png": None, "1.png": None})}
    with pytest.raises(ValidationFailed, match="empty=background"):
        read(known, tmp_path / "plain", document)
    asked = read(known, tmp_path / "asked", document, background=True)
    assert [len(found) for found in asked.found.values()] == [0, 0]
    assert asked.removes.to_json() == {"objects": 2, "of": 2, "classes": {}}
    assert asked.needs_confirmation


def test_an_image_whose_objects_a_cvat_document_lost_is_no_background(tmp_path: Path) -> None:
    known = records(2, Annotation("car", box=(5, 5, 25, 25)))
    text = cvat({"0.png": "dog", "1.png": "dog"})
    flat = text.replace('xbr="25"', 'xbr="5"', 1)  # no area
    made = read(known, tmp_path / "sent", {"annotations.xml": flat}, background=True)
    assert made.found.keys() == {known[1].content}
    assert made.left == {known[0].content}


# --- boxes alone in a pose dataset


def test_boxes_alone_correct_a_pose_dataset(tmp_path: Path) -> None:
    known = records(2, POSE)
    made = read(known, tmp_path / "sent", {"a.xml": cvat({"0.png": "dog"})}, task="pose")
    (found,) = made.found.values()
    (thing,) = found.objects
    assert (thing.label, thing.box, thing.keypoints) == ("dog", (5, 5, 25, 25), ())
    assert made.passed_over.total() == 0
    assert made.unchanged == set()  # the keypoints are gone


@pytest.fixture
def store(tmp_path: Path) -> AnnotatedDatasets:
    return AnnotatedDatasets(Database(Settings(home=tmp_path / "home")))


def pose_dataset(store: AnnotatedDatasets, count: int) -> AnnotatedDataset:
    """A dataset of poses, the same in each image."""
    options = {"names": list(NAMES), "keypoint_names": list(KEYPOINTS), "task": "pose"}
    entries = []
    for seed in range(count):
        content, suffix = store.entries.keep("dogs", drawn(seed))
        found = Annotations(f"{seed}.png", *SIZE, (POSE,))
        document = {"by": ORIGINAL, "name": f"{seed}.png", "split": "train"}
        entries.append(
            image_entry("original", content, suffix, found, rank=ORIGINAL_RANK, document=document)
        )
    return store.create_upload("dogs", "Dogs", options, entries)


def test_an_image_with_boxes_alone_does_not_train_as_a_background_of_a_pose_dataset(
    store: AnnotatedDatasets, tmp_path: Path
) -> None:
    dataset = pose_dataset(store, 4)
    known = list(store.entries.records(dataset.id))
    document = {"annotations.xml": cvat({"0.png": "dog", "1.png": None})}
    made = read(known, tmp_path / "sent", document, task="pose", background=True)
    with corrected(store, dataset, made):
        build(store, dataset, task="pose", names=NAMES, keypoint_names=KEYPOINTS)
    folder = store.folder(dataset.id) / "revisions" / "000001"
    labels = {path.stem: path.read_text() for path in folder.glob("labels/*/*.txt")}
    boxes_alone, background = (sha256(drawn(seed)).hexdigest() for seed in (0, 1))
    assert boxes_alone not in labels
    assert not list(folder.glob(f"images/*/{boxes_alone}*"))
    assert labels.pop(background) == ""
    assert all(labels.values())
    assert len(labels) == 2


# --- a correction that cannot be completed


def test_a_withdrawn_correction_leaves_the_annotations_that_were_there(
    store: AnnotatedDatasets, tmp_path: Path
) -> None:
    dataset = pose_dataset(store, 2)
    before = store.entries.records(dataset.id)
    first = read(list(before), tmp_path / "first", {"a.xml": cvat({"0.png": "dog"})}, task="pose")
    with pytest.raises(KeyError), corrected(store, dataset, first):
        raise KeyError
    assert store.entries.records(dataset.id) == before

    with corrected(store, dataset, first):
        pass
    between = store.entries.records(dataset.id)
    second = read(
        list(between), tmp_path / "second", {"a.xml": cvat({"0.png": "car"})}, task="pose"
    )
    third = read(
        list(between), tmp_path / "third", {"a.xml": cvat({"0.png": "person"})}, task="pose"
    )
    with pytest.raises(KeyError), corrected(store, dataset, second):
        raise KeyError
    assert store.entries.records(dataset.id) == between

    def label() -> list[str]:
        (record,) = (one for one in store.entries.records(dataset.id) if one.name == "0.png")
        return [thing.label for thing in record.annotations.objects]

    def overtaken() -> None:
        with corrected(store, dataset, second):
            with corrected(store, dataset, third):  # another request, in between
                pass
            raise KeyError

    with pytest.raises(KeyError):
        overtaken()
    assert label() == ["person"]
