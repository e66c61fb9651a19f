"""Measures whether the annotation queue helps: whether its first images have the most errors.

    python -m benchmarks.annotation_queue
    python -m benchmarks.annotation_queue --data coco/data.yaml --model yolov8n

A model pre-labels images whose true labels are known. The errors in the first images of the queue
are compared with those in as many random images. An error is a pre-label that an annotator would
have to relabel or remove, or an object to add; a box that only needs to be moved does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from annotation.confidence_bands import Bands
from annotation.diff import compare_annotations
from annotation.originals import originals
from annotation.prelabeller import Prelabeller
from annotation.priority import Candidate, descriptor_of, order, uncertainty_of
from database import Database
from dataset.inspection import check
from formats.annotations import Annotation, Annotations
from models_store.registry import Registry
from settings import get_settings
from shell import Parser
from synthetic.scenes import draw_scene
from synthetic.signs import CLASS_NAMES

WRONG = ("relabelled", "removed", "added")


def drawn(count: int) -> Iterator[tuple[bytes, Annotations]]:
    """Drawn street scenes as JPEGs, with the true boxes of their signs."""
    for seed in range(count):
        pixels, boxes, ids = draw_scene(np.random.default_rng([7, seed]), 640, 480)
        marks = tuple(
            Annotation(CLASS_NAMES[i], box=tuple(map(float, box)))  # type: ignore[arg-type]
            for i, box in zip(ids, boxes, strict=True)
        )
        data = cv2.imencode(".jpg", pixels[..., ::-1])[1].tobytes()
        yield data, Annotations(str(seed), 640, 480, marks)


def of_data(path: Path, count: int) -> Iterator[tuple[bytes, Annotations]]:
    """At most `count` images of a detection dataset, with their labels."""
    found = check(path, "detect", [path.resolve().parent])
    for original in list(originals(found))[:count]:
        yield original.file.read_bytes(), original.annotations


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--model",
        default="traffic_signs_yolov8n",
        help="id of the model that pre-labels (traffic_signs_yolov8n)",
    )
    parser.add_argument(
        "--data", type=Path, help="data.yaml of a dataset; default: drawn street scenes"
    )
    parser.add_argument("--images", type=int, default=200, help="number of images (200)")
    parser.add_argument(
        "--first",
        type=int,
        nargs="*",
        default=[10, 20, 40],
        help="numbers of first images of the queue that are compared (10 20 40)",
    )
    arguments = parser.parse_args()
    bands = Bands()
    registry = Registry(Database(get_settings()))
    version = registry.get(arguments.model)
    confidence = 0.4 * bands.review
    prelabeller = Prelabeller(version.path, get_settings(), confidence=confidence, boxes_only=True)
    source = of_data(arguments.data, arguments.images) if arguments.data else drawn(
        arguments.images
    )  # fmt: skip
    candidates, errors = [], []
    for number, (data, truth) in enumerate(source):
        labelled = prelabeller.prelabel(data)
        found = labelled.prediction.to_annotations().above(bands.review)
        changes = compare_annotations(found, truth)
        errors.append(sum(change.kind in WRONG for change in changes))
        doubt = uncertainty_of(labelled.prediction, bands).value
        candidates.append(Candidate(str(number), doubt, descriptor_of(labelled.image.pixels)))
    chosen = [int(one.key) for one in order(candidates, [], max(arguments.first))]
    total = np.array(errors)
    print(f"{version.id}: {len(errors)} images, {total.sum()} errors, {total.mean():.2f} per image")
    random = np.random.default_rng(0)
    for first in arguments.first:
        draws = [random.choice(total, first, replace=False).sum() for _ in range(2000)]
        low, high = np.percentile(draws, (2.5, 97.5))
        mine = total[chosen[:first]].sum()
        print(
            f"first {first} images of the queue: {mine} errors; as many random images: "
            f"{np.mean(draws):.1f} errors (95 % of the draws: {low:.0f} to {high:.0f}); "
            f"ratio {mine / np.mean(draws):.2f}"
        )
    registry.database.close()


if __name__ == "__main__":
    main()
