"""What stands in the drawn pictures, and how much of it a model found over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from synthetic.shapes import ARROW, SHAPES, Task

Found = Callable[[bytes], list[dict[str, Any]]]  # a picture's `predictions`
Box = tuple[float, float, float, float]  # xyxy, pixels

OVERLAP = 0.5  # intersection over union that a right box has at least


def share_found(root: Path, task: Task, ask: Found) -> float:
    """The share of the drawn things in the val split that a model finds, rightly named.

    Args:
        root: What `write_shapes` was given.
        task: What is drawn.
        ask: Predicts a picture.
    """
    if task == "classify":
        images = sorted((root / "val").rglob("*.jpg"))
        right = [ask(path.read_bytes())[0]["label"] == path.parent.name for path in images]
        return sum(right) / len(right)
    hits: list[bool] = []
    for path in sorted((root / "images" / "val").iterdir()):
        predictions = ask(path.read_bytes())
        for label, box in truth(root, path, task):
            hits.append(any(_fits(label, box, found) for found in predictions))
    return sum(hits) / len(hits)


def truth(root: Path, image: Path, task: Task) -> list[tuple[str, Box]]:
    """Name and box of everything in a picture, from its label file."""
    with Image.open(image) as picture:
        width, height = picture.size
    names = ARROW if task == "pose" else SHAPES
    things = []
    for line in (root / "labels" / "val" / f"{image.stem}.txt").read_text().splitlines():
        cls, *values = line.split()
        numbers = [float(value) for value in values]
        if task == "segment":
            xs, ys = numbers[::2], numbers[1::2]
            low, high = (min(xs), min(ys)), (max(xs), max(ys))
        else:
            x, y, w, h = numbers[:4]
            low, high = (x - w / 2, y - h / 2), (x + w / 2, y + h / 2)
        box = (low[0] * width, low[1] * height, high[0] * width, high[1] * height)
        things.append((names[int(cls)], box))
    return things


def _fits(label: str, box: Box, found: dict[str, Any]) -> bool:
    corners = found["bounding_box"]
    other = (corners["x1"], corners["y1"], corners["x2"], corners["y2"])
    return bool(found["label"] == label and _overlap(box, other) >= OVERLAP)


def _overlap(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / (_area(a) + _area(b) - both)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
