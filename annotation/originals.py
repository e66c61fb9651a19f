"""Reads the annotations of an upload, and creates its annotated dataset, which can be corrected."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from annotation.datasets import AnnotatedDatasets, upload_source
from annotation.entries import image_entry
from annotation.image_records import ORIGINAL, ORIGINAL_RANK, PRELABEL_RANK, ImageRecord
from annotation.tables import AnnotatedDataset, AnnotationEntry
from dataset.dataset import Dataset
from dataset.label_files import LabelRow
from dataset.revisions import CARD, FIRST_CARD
from dataset.store import DatasetStore
from files import link_or_copy
from formats.annotations import (
    ABSENT,
    OCCLUDED,
    VISIBLE,
    Annotation,
    AnnotationPart,
    Annotations,
    Keypoint,
)
from formats.geometry import unbridge

# The document of an image without annotations: it is queued for annotation, not trained on
NOT_ANNOTATED = {"doubt": 1.0, "review": 0, "reason": "not annotated yet", "look": ""}
HELD_OUT_FIRST = ("val", "test", "train")  # equal images stay in the first of these splits only


def originals(dataset: Dataset) -> Iterator[ImageRecord]:
    """A record with annotations for each readable image; each content occurs once.

    Reads the images and label files.
    """
    seen: set[str] = set()
    for split in HELD_OUT_FIRST:
        for image in dataset.scan().splits.get(split, ()):
            known = dataset.scan().images[image]
            if known.digest in seen:
                continue
            seen.add(known.digest)
            name = _name(dataset, image)
            found = _annotations(dataset, image, name, (known.width, known.height))
            yield ImageRecord(known.digest, image, found, name, split, ORIGINAL)
    for image in dataset.unlabelled:
        known = dataset.scan().images[image]
        if not known.problem and known.digest not in seen:
            seen.add(known.digest)
            name = _name(dataset, image)
            found = Annotations(name, known.width, known.height)
            yield ImageRecord(known.digest, image, found, name, "", ORIGINAL, trains=False)


def keypoint_names(dataset: Dataset) -> tuple[str, ...]:
    """The names of the dataset's keypoints, or their indices as text; empty if it has none."""
    if dataset.keypoints is None:
        return ()
    return dataset.keypoints.labels


def adopt(store: AnnotatedDatasets, datasets: DatasetStore, dataset_id: str) -> AnnotatedDataset:
    """The annotated dataset of an upload; created if there is none.

    The files of the upload are not changed.

    Raises:
        DatasetNotFound: No dataset has this id.
    """
    with store.changing(dataset_id, "adopt") as folder:
        found = store.find(upload_source(dataset_id))
        if found is not None:
            return found
        card = datasets.get(dataset_id)
        dataset = datasets.open(dataset_id)
        entries = [_entry(store, dataset_id, record) for record in originals(dataset)]
        if not (folder / FIRST_CARD).exists():
            shutil.copyfile(folder / CARD, folder / FIRST_CARD)
        store.publish(dataset_id, card)
        options = {
            "names": list(dataset.names),
            "keypoint_names": list(keypoint_names(dataset)),
            "task": dataset.task,
        }
        return store.create_upload(dataset_id, card["name"], options, entries)


def _name(dataset: Dataset, image: Path) -> str:
    inside = image.is_relative_to(dataset.root)
    return image.relative_to(dataset.root).as_posix() if inside else image.name


def _entry(store: AnnotatedDatasets, dataset_id: str, record: ImageRecord) -> AnnotationEntry:
    """The entry of an image; links the image's file into the annotated dataset."""
    suffix = record.file.suffix.lower()
    target = store.entries.file(dataset_id, record.content, suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():  # named by content, so an existing file is equal
        link_or_copy(record.file.resolve(), target)
    document = {"by": ORIGINAL, "name": record.name, "split": record.split}
    return image_entry(
        "original",
        record.content,
        suffix,
        record.annotations,
        rank=ORIGINAL_RANK if record.trains else PRELABEL_RANK,
        document=document if record.trains else document | NOT_ANNOTATED,
    )


def _annotations(dataset: Dataset, image: Path, name: str, size: tuple[int, int]) -> Annotations:
    found = Annotations(name, *size)
    if dataset.task == "classify":
        return replace(found, objects=(Annotation(dataset.names[dataset.classes[image]]),))
    objects = tuple(_object(dataset, row, size) for row in dataset.rows(image))
    return replace(found, objects=objects)


def _object(dataset: Dataset, row: LabelRow, size: tuple[int, int]) -> Annotation:
    """The object in a row of a label file, converted from fractions of the image size to pixels."""
    (width, height), values = size, row.values
    label = dataset.names[row.cls]
    if dataset.task == "segment":
        corners = zip(values[0::2], values[1::2], strict=True)
        ring = tuple((x * width, y * height) for x, y in corners)
        return Annotation(label, parts=unbridge(ring) or (AnnotationPart(ring),))
    x, y, w, h = values[:4]
    box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    if dataset.task != "pose" or dataset.keypoints is None:
        return Annotation(label, box=box)
    numbers = dataset.keypoints.shape[1]
    points = []
    for name, start in zip(keypoint_names(dataset), range(4, len(values), numbers), strict=True):
        px, py, *stated = values[start : start + numbers]
        visibility = int(stated[0]) if stated else VISIBLE if px >= 0 and py >= 0 else ABSENT
        if visibility:
            visibility = min(max(visibility, OCCLUDED), VISIBLE)
            points.append(Keypoint(name, px * width, py * height, visibility))
        else:
            points.append(Keypoint(name, visibility=ABSENT))
    return Annotation(label, box=box, keypoints=tuple(points))
