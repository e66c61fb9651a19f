"""Datasets of drawn images with predictions, as a batch annotation leaves them."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from annotation.confidence_bands import Bands
from annotation.datasets import AnnotatedDatasets
from annotation.entries import image_entry
from annotation.image_records import PRELABEL_RANK
from annotation.priority import descriptor_of, pack, uncertainty_of_scores
from annotation.revision_builder import build
from database import Database
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint
from inference.images import Pixels
from models_store.description import Task
from settings import Settings
from tests.support.scenes import encoded, scene

MODEL = "signs:drawn"
NAMES = ("car", "person", "dog")
SIZE = (640, 480)

SQUARE = ((200.0, 100.0), (320.0, 100.0), (320.0, 220.0), (200.0, 220.0))
HOLE = ((240.0, 140.0), (280.0, 140.0), (280.0, 180.0), (240.0, 180.0))

BOXES = (
    Annotation("car", box=(100, 80, 220, 180), score=0.91),
    Annotation("dog", box=(360, 240, 480, 400), score=0.42),
    Annotation("dog", box=(520, 60, 600, 140), score=0.28),
)
POLYGONS = (Annotation("car", parts=(AnnotationPart(SQUARE, (HOLE,)),), score=0.8),)
POSE = (
    Annotation(
        "person",
        box=(200, 100, 400, 400),
        keypoints=(
            Keypoint("nose", 300, 150),
            Keypoint("hand", 250, 300),
            Keypoint("foot", 320, 390),
        ),
        score=0.8,
    ),
)
WHOLE = (Annotation("dog", score=0.7),)
OBJECTS: dict[Task, tuple[Annotation, ...]] = {
    "detect": BOXES,
    "segment": POLYGONS,
    "pose": POSE,
    "classify": WHOLE,
}


_seeds = itertools.count()


def drawn_images(count: int, size: tuple[int, int] = SIZE) -> list[tuple[str, Pixels]]:
    """Images that no other call draws: an image is claimed by its content, in all datasets."""
    return [(f"street_{number}.jpg", scene(*size, next(_seeds))) for number in range(count)]


def prelabelled(
    home: Path,
    name: str,
    task: Task,
    images: Iterable[tuple[str, Pixels]],
    objects: Sequence[Annotation] | None = None,
    names: Sequence[str] = NAMES,
) -> str:
    """Store a dataset whose images a model has annotated and no person. Returns its id.

    Args:
        home: The server's home, see `tests.support.serving.environment`.
        name: The dataset's name.
        task: The dataset's task.
        images: Name and pixels of each image.
        objects: The prediction for each image; by default those of OBJECTS.
        names: The dataset's classes.
    """
    objects = OBJECTS[task] if objects is None else objects
    database = Database(Settings(home=home / "home"))
    try:
        return _store(AnnotatedDatasets(database), name, task, images, objects, names)
    finally:
        database.close()


def _store(
    store: AnnotatedDatasets,
    name: str,
    task: Task,
    images: Iterable[tuple[str, Pixels]],
    objects: Sequence[Annotation],
    names: Sequence[str],
) -> str:
    points = list(dict.fromkeys(p.name for thing in objects for p in thing.keypoints))
    options: dict[str, Any] = {
        "annotation": {"model_id": MODEL},
        "names": list(names),
        "keypoint_names": points,
    }
    dataset = store.ensure(f"batch:{secrets.token_hex(4)}", name, options, "batch")
    scores = [thing.score for thing in objects if thing.score is not None]
    doubt = uncertainty_of_scores(scores, Bands())
    for image, pixels in images:
        content, suffix = store.entries.keep(dataset.id, encoded(pixels))
        height, width = pixels.shape[:2]
        entry = image_entry(
            "model",
            content,
            suffix,
            Annotations(image, width, height, tuple(objects)),
            rank=PRELABEL_RANK,
            document={
                "by": MODEL,
                "name": image,
                "split": "train",
                "discarded": {},
                "doubt": doubt.value,
                "shown": doubt.shown,
                "review": doubt.review,
                "below": doubt.discarded,
                "reason": doubt.reason,
                "look": pack(descriptor_of(pixels)),
            },
        )
        store.entries.add_prelabels(dataset.id, [entry])
    build(store, dataset, task=task, names=names, keypoint_names=points, keep=True)
    return dataset.id
