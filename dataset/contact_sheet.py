"""Draws a contact sheet: thumbnails of a split with their labels drawn in."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.dataset import Dataset
from dataset.label_files import LabelRow
from errors import DatasetNotFound, VisionLoopError
from inference.images import decode
from inference.render import class_colour
from settings import get_settings

COLUMNS = 6
SIDE = 200  # pixels of a thumbnail
MARGIN = 6
CAPTION = 18
_TRIES = 4  # candidate images per image shown
REFUSED = (255, 64, 64)  # colour of frame and caption of images with rejected label lines
_GROUND = (24, 24, 28)
_POINTS = ((255, 90, 90), (90, 230, 90), (110, 150, 255), (250, 220, 80), (230, 120, 250))


def draw(dataset: Dataset, split: str = "train", count: int = 24) -> bytes:
    """A PNG with at most `count` images of a split.

    The choice is deterministic and shows each class early. An image with rejected label lines has
    a red frame and the line numbers below it.

    Raises:
        DatasetNotFound: The dataset has no such split.
    """
    images = dataset.splits.get(split, ())
    if not images:
        known = ", ".join(dataset.splits)
        raise DatasetNotFound(f"The dataset has no split '{split[:20]}'. Use one of: {known}.")
    chosen = _choose(dataset, split, count)
    rows = -(-len(chosen) // COLUMNS)
    columns = min(COLUMNS, len(chosen))
    size = (
        MARGIN + columns * (SIDE + MARGIN),
        MARGIN + rows * (SIDE + CAPTION + MARGIN),
    )
    sheet = Image.new("RGB", size, _GROUND)
    canvas = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for i, image in enumerate(chosen):
        x = MARGIN + i % COLUMNS * (SIDE + MARGIN)
        y = MARGIN + i // COLUMNS * (SIDE + CAPTION + MARGIN)
        thumbnail = _thumbnail(dataset, image)
        sheet.paste(thumbnail, (x + (SIDE - thumbnail.width) // 2, y))
        refused = dataset.refused.get(image, ())
        if refused:
            canvas.rectangle((x - 2, y - 2, x + SIDE + 1, y + SIDE + 1), outline=REFUSED, width=2)
        text = _caption(dataset, image)
        while text and font.getlength(text) > SIDE:
            text = text[:-2]
        fill = REFUSED if refused else (210, 210, 210)
        canvas.text((x, y + SIDE + 2), text, fill=fill, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _choose(dataset: Dataset, split: str, count: int) -> list[Path]:
    """At most `count` images of a split, in an order that depends only on their names.

    First images with rejected label lines (at most half of the sheet), then images that show a
    new class, then other labelled images, then images without objects.
    """
    images = sorted(dataset.splits[split], key=_rank)
    rejected = [image for image in images if image in dataset.refused][: max(1, count // 2)]
    some = [image for image in images if image not in rejected][: count * _TRIES]
    seen: set[int] = set()
    first: list[Path] = []
    rest: list[Path] = []
    for image in some:
        classes = _classes(dataset, image)
        (first if classes - seen else rest).append(image)
        seen |= classes
    labelled = [image for image in rest if _classes(dataset, image)]
    plain = [image for image in rest if not _classes(dataset, image)]
    return (rejected + first + labelled + plain)[:count]


def _rank(image: Path) -> bytes:
    name = "/".join(image.parts[-2:])
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def _classes(dataset: Dataset, image: Path) -> set[int]:
    if dataset.task == "classify":
        return {dataset.classes[image]}
    return set(dataset.object_classes.get(image, ()))


def _caption(dataset: Dataset, image: Path) -> str:
    if dataset.task == "classify":
        return dataset.names[dataset.classes[image]]
    if image not in dataset.labels:
        return f"{image.name} (no label file)"
    if lines := dataset.refused.get(image):
        numbers = ", ".join(map(str, lines[:3])) + (", …" if len(lines) > 3 else "")
        return (
            f"ignored: line {numbers} of {image.name}" if any(lines) else f"refused: {image.name}"
        )
    return image.name


def _thumbnail(dataset: Dataset, image: Path) -> Image.Image:
    try:
        pixels = decode(image.read_bytes(), get_settings().max_pixels)
    except (OSError, VisionLoopError):
        broken = Image.new("RGB", (SIDE, SIDE), (70, 20, 20))
        ImageDraw.Draw(broken).text((8, SIDE // 2), "cannot be read", fill="white")
        return broken
    thumbnail = Image.fromarray(pixels)
    thumbnail.thumbnail((SIDE, SIDE))
    small = thumbnail.width < SIDE // 2 and thumbnail.height < SIDE // 2
    if small:  # small images are enlarged by a whole factor
        times = max(1, SIDE // max(thumbnail.size))
        thumbnail = thumbnail.resize(
            (thumbnail.width * times, thumbnail.height * times), Image.Resampling.NEAREST
        )
    if dataset.task != "classify":
        canvas = ImageDraw.Draw(thumbnail)
        for row in dataset.rows(image):
            _draw_row(canvas, dataset, row, thumbnail.size)
    return thumbnail


def _draw_row(
    canvas: ImageDraw.ImageDraw, dataset: Dataset, row: LabelRow, size: tuple[int, int]
) -> None:
    colour = class_colour(row.cls)
    values = np.asarray(row.values)
    if dataset.task == "segment":
        points = [tuple(point) for point in (values.reshape(-1, 2) * size).tolist()]
        canvas.polygon(points, outline=colour, width=2)
        left, top = np.min(points, axis=0).tolist()
    else:
        (x, y), (w, h) = values[:2] * size, values[2:4] * size
        left, top = float(x - w / 2), float(y - h / 2)
        canvas.rectangle((left, top, left + w, top + h), outline=colour, width=2)
    for i, (px, py) in enumerate(_points(dataset, values)):
        fill = _POINTS[i % len(_POINTS)]
        canvas.circle((px * size[0], py * size[1]), 3, fill=fill, outline="black")
    _label(canvas, dataset.names[row.cls], (left, top), colour)


def _points(dataset: Dataset, values: np.ndarray) -> Iterator[tuple[float, float]]:
    """The visible keypoints, normalised x and y."""
    if dataset.task != "pose" or dataset.keypoints is None:
        return
    for point in values[4:].reshape(-1, dataset.keypoints.shape[1]).tolist():
        if (len(point) == 3 and point[2] > 0) or (len(point) == 2 and point[0] >= 0):
            yield point[0], point[1]


def _label(
    canvas: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: tuple[int, int, int],
) -> None:
    font = ImageFont.load_default(11)
    text = text[:24]
    x, y = max(0.0, corner[0]), max(0.0, corner[1] - 13)
    canvas.rectangle((x, y, x + font.getlength(text) + 4, y + 13), fill=colour)
    bright = np.dot(colour, (0.299, 0.587, 0.114)) > 150
    canvas.text((x + 2, y), text, fill="black" if bright else "white", font=font)
