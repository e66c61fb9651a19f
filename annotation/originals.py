"""What an uploaded data set says of its pictures, as annotations."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from annotation.pictures import ORIGINAL, ORIGINAL_RANK, PRELABEL_RANK, ImageRecord
from annotation.store import PICTURES, AnnotatedDataset, AnnotatedDatasets
from annotation.store import AnnotationEntry as Entry
from dataset.dataset import Dataset
from dataset.label_files import LabelRow
from dataset.store import CARD, FIRST_CARD, DatasetStore
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

SOURCE = "upload:"  # of the row by which an upload grows, and then its id
# Of an image without any annotation: it waits for a person in the queue, and does not train
UNSEEN = {"doubt": 1.0, "review": 0, "reason": "not annotated yet", "look": ""}
HELD_OUT_FIRST = ("val", "test", "train")  # so that a copy in train does not leak


def originals(dataset: Dataset) -> Iterator[ImageRecord]:
    """Every readable picture with its labels, each content once. Looks at the pictures."""
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


def _name(dataset: Dataset, image: Path) -> str:
    inside = image.is_relative_to(dataset.root)
    return image.relative_to(dataset.root).as_posix() if inside else image.name


def point_names(dataset: Dataset) -> tuple[str, ...]:
    """The key points' names, or their numbers; empty where there are none."""
    if dataset.keypoints is None:
        return ()
    return dataset.keypoints.labels


def adopt(store: AnnotatedDatasets, datasets: DatasetStore, dataset_id: str) -> AnnotatedDataset:
    """The row by which an upload grows, made where there is none; its files stay untouched."""
    folder = datasets.folder / dataset_id
    with FileLock(datasets.folder / f".{dataset_id}.adopt.lock", timeout=300):
        found = store.find(f"{SOURCE}{dataset_id}")
        if found is not None:
            return found
        card = datasets.get(dataset_id)
        dataset = datasets.open(dataset_id)
        rows = [_row(store, dataset_id, picture) for picture in originals(dataset)]
        if not (folder / FIRST_CARD).exists():
            shutil.copyfile(folder / CARD, folder / FIRST_CARD)
        options = {
            "names": list(dataset.names),
            "keypoint_names": list(point_names(dataset)),
            "task": dataset.task,
        }
        source = f"{SOURCE}{dataset_id}"
        return store.ensure_with(source, card["name"], options, dataset_id, rows)


def _row(store: AnnotatedDatasets, dataset_id: str, picture: ImageRecord) -> Entry:
    suffix = picture.file.suffix.lower()
    target = store.file(dataset_id, picture.content, suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    assert target.parent.name == PICTURES
    with suppress(FileExistsError):
        try:
            os.link(picture.file.resolve(), target)
        except FileExistsError:
            raise
        except OSError:  # a file system without them
            shutil.copyfile(picture.file, target)
    return Entry(
        key=f"original:{picture.content}",
        rank=ORIGINAL_RANK if picture.trains else PRELABEL_RANK,
        document={"by": ORIGINAL, "name": picture.name, "split": picture.split}
        | ({} if picture.trains else UNSEEN),
        content=picture.content,
        suffix=suffix,
        annotations=picture.annotations.to_json(),
    )


def _annotations(dataset: Dataset, image: Path, name: str, size: tuple[int, int]) -> Annotations:
    found = Annotations(name, *size)
    if dataset.task == "classify":
        return replace(found, objects=(Annotation(dataset.names[dataset.classes[image]]),))
    objects = tuple(_object(dataset, row, size) for row in dataset.rows(image))
    return replace(found, objects=objects)


def _object(dataset: Dataset, row: LabelRow, size: tuple[int, int]) -> Annotation:
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
    for name, start in zip(point_names(dataset), range(4, len(values), numbers), strict=True):
        px, py, *stated = values[start : start + numbers]
        there = int(stated[0]) if stated else VISIBLE if px >= 0 and py >= 0 else ABSENT
        here = Keypoint(name, px * width, py * height, min(max(there, OCCLUDED), VISIBLE))
        points.append(here if there else Keypoint(name, visibility=ABSENT))
    return Annotation(label, box=box, keypoints=tuple(points))
