"""Images and annotations for the stores of `annotation`."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image
from sqlalchemy import update

from annotation.datasets import AnnotatedDatasets
from annotation.tables import AnnotatedDataset, AnnotationEntry
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint
from tests.support.seeds import rng

BOX = Annotation("car", box=(1, 2, 30, 20))
POLYGON = Annotation("tree", parts=(AnnotationPart(((0, 0), (20, 0), (20, 20))),))
POSE = Annotation("man", box=(0, 0, 20, 30), keypoints=(Keypoint("nose", 5, 5),))
WHOLE = Annotation("night")


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
    store.entries.receive(dataset_id, key, {}, task=task, rank=rank)
    with store.database.read() as session:
        entry = session.get(AnnotationEntry, (dataset_id, key))
    assert entry is not None
    store.entries.complete(entry, image, found)


def age(annotated: AnnotatedDatasets, dataset_id: str) -> None:
    """Make a dataset years old: its row, its folder, and its revisions."""
    with annotated.database.write() as session:
        old = update(AnnotatedDataset).where(AnnotatedDataset.id == dataset_id)
        session.execute(old.values(created_at="2020-01-01T00:00:00.000+00:00"))
    folder = annotated.folder(dataset_id)
    for path in (folder, *folder.glob("revisions/*")):
        if path.exists():
            os.utime(path, (0, 0))


def marked(*objects: Annotation) -> Annotations:
    return Annotations("a.png", 60, 40, objects)
