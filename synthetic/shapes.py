"""Small synthetic datasets for fast training: coloured shapes on noise, in Ultralytics' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

Task = Literal["detect", "segment", "pose", "classify"]
Picture = NDArray[np.uint8]
Points = NDArray[np.float64]  # (n, 2), pixels

SHAPES = ("circle", "square", "triangle")
ARROW = ("arrow",)  # pose: keypoints tip, left, right
_COLOURS = ((220, 60, 60), (60, 200, 80), (70, 90, 230))  # RGB; easy to tell apart on purpose


def write_shapes(
    folder: Path, task: Task, train: int = 64, val: int = 16, imgsz: int = 96, seed: int = 0
) -> Path:
    """Draw a dataset into `folder`.

    Returns:
        The data.yaml, or for `classify` the class root (`train/circle/…`, `val/circle/…`).
    """
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            if task == "classify":
                _write_class(folder / split, index, imgsz, random)
            else:
                _write_scene(folder, split, index, task, imgsz, random)
    if task == "classify":
        return folder
    return _write_yaml(folder, task)


def background(imgsz: int, random: np.random.Generator) -> Picture:
    """Grey-brown noise, a square of `imgsz` pixels."""
    coarse = random.integers(70, 150, (imgsz // 12 + 1, imgsz // 12 + 1, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (imgsz, imgsz), interpolation=cv2.INTER_CUBIC))


def _write_class(split: Path, index: int, imgsz: int, random: np.random.Generator) -> None:
    cls = index % len(SHAPES)
    picture = background(imgsz, random)
    centre, radius = _place(imgsz, random, (0.25, 0.4))
    _fill(picture, _outline(cls, centre, radius, random), cls, random)
    (split / SHAPES[cls]).mkdir(parents=True, exist_ok=True)
    _save(split / SHAPES[cls] / f"{index:04}.jpg", picture)


def _write_scene(
    folder: Path, split: str, index: int, task: Task, imgsz: int, random: np.random.Generator
) -> None:
    picture = background(imgsz, random)
    lines: list[str] = []
    places: list[tuple[Points, float]] = []
    for _ in range(int(random.integers(2, 5))):
        centre, radius = _place(imgsz, random, (0.14, 0.24))
        if any(np.hypot(*(centre - other)) < radius + reach for other, reach in places):
            continue  # shapes must not overlap
        places.append((centre, radius))
        if task == "pose":
            points = _arrow(centre, radius, random)
            _fill(picture, points, 0, random)
            cv2.circle(picture, _pixel(points[0]), max(2, imgsz // 32), (250, 240, 90), -1)
            visible = np.hstack([points / imgsz, np.full((3, 1), 2)])
            lines.append(_line(0, _box(points, imgsz), visible))
        else:
            cls = int(random.integers(len(SHAPES)))
            if len(places) == 1:
                cls = index % len(SHAPES)  # every class occurs, even in few images
            points = _outline(cls, centre, radius, random)
            _fill(picture, points, cls, random)
            lines.append(_line(cls, points / imgsz if task == "segment" else _box(points, imgsz)))
    images, labels = folder / "images" / split, folder / "labels" / split
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    _save(images / f"{index:04}.jpg", picture)
    (labels / f"{index:04}.txt").write_text("".join(f"{line}\n" for line in lines))


def _write_yaml(folder: Path, task: Task) -> Path:
    description: dict[str, object] = {
        "path": str(folder.resolve()),
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(ARROW if task == "pose" else SHAPES)),
    }
    if task == "pose":
        description |= {"kpt_shape": [3, 3], "flip_idx": [0, 2, 1]}
    target = folder / "data.yaml"
    target.write_text(yaml.safe_dump(description, sort_keys=False))
    return target


def _place(
    imgsz: int, random: np.random.Generator, sizes: tuple[float, float]
) -> tuple[Points, float]:
    radius = imgsz * random.uniform(*sizes)
    return random.uniform(radius + 1, imgsz - radius - 1, 2), radius


def _outline(cls: int, centre: Points, radius: float, random: np.random.Generator) -> Points:
    corners = (24, 4, 3)[cls]
    turn = random.uniform(-0.2, 0.2) - (np.pi / 4 if corners == 4 else np.pi / 2)
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _arrow(centre: Points, radius: float, random: np.random.Generator) -> Points:
    """Tip, left and right corner of an arrow that points roughly up."""
    angles = random.uniform(-0.6, 0.6) - np.pi / 2 + np.array([0.0, -2.4, 2.4])
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _fill(picture: Picture, points: Points, cls: int, random: np.random.Generator) -> None:
    colour = np.clip(np.array(_COLOURS[cls]) + random.integers(-25, 26, 3), 0, 255)
    cv2.fillPoly(picture, [np.rint(points).astype(np.int32)], colour.tolist())


def _box(points: Points, imgsz: int) -> Points:
    """The bounding box of points as (2, 2): relative centre and size."""
    low, high = points.min(axis=0) / imgsz, points.max(axis=0) / imgsz
    return np.stack([(low + high) / 2, high - low])


def _line(cls: int, *values: NDArray[np.float64]) -> str:
    numbers = " ".join(f"{value:.6g}" for part in values for value in part.reshape(-1))
    return f"{cls} {numbers}"


def _pixel(point: Points) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _save(path: Path, picture: Picture) -> None:
    ok, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert ok
    path.write_bytes(encoded.tobytes())
