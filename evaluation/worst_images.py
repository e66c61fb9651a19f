"""The images of an evaluation with the worst errors, drawn as truth and prediction side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from inference.images import Pixels, decode
from inference.prediction import Prediction
from inference.render import drawn

KEPT = 24  # maximum number of images
SIDE = 480  # maximum length of a panel's longer side, pixels
SMALLEST = 360  # minimum length of a classified image's longer side, pixels; others are enlarged
GAP = 8  # pixels between the panels
TITLE = 16  # height of the title above a panel, pixels
QUALITY = 85  # JPEG quality


@dataclass(frozen=True)
class WorstImage:
    """One image with errors.

    Attributes:
        severity: Sort key; greater is worse. See `ImageErrors.severity`.
        path: The image file.
        row: The image's entry in the report.
        truth: The annotations, in the form of a prediction.
        prediction: The model's prediction.
    """

    severity: tuple[float, ...]
    path: Path
    row: Mapping[str, Any]
    truth: Prediction
    prediction: Prediction


class WorstImages:
    """Collects images and keeps the KEPT worst; of equally bad ones, those offered first."""

    def __init__(self) -> None:
        self._entries: list[WorstImage] = []

    def offer(self, entry: WorstImage) -> None:
        """Add an image; it is kept if it is among the worst."""
        self._entries.append(entry)
        if len(self._entries) >= 4 * KEPT:
            self._cut()

    def write(self, folder: Path, max_pixels: int) -> list[dict[str, Any]]:
        """Draw the images into `folder`; returns their entries for the report, worst first."""
        self._cut()
        folder.mkdir(exist_ok=True)
        rows = []
        for number, entry in enumerate(self._entries):
            pixels = decode(entry.path.read_bytes(), max_pixels)
            if entry.truth.task == "classify":
                pixels = _enlarged(pixels)
            file = folder / f"{number:02}.jpg"
            file.write_bytes(side_by_side(pixels, entry.truth, entry.prediction))
            rows.append({**entry.row, "file": f"{folder.name}/{file.name}"})
        return rows

    def _cut(self) -> None:
        self._entries.sort(key=lambda entry: entry.severity, reverse=True)
        del self._entries[KEPT:]


def side_by_side(pixels: Pixels, truth: Prediction, prediction: Prediction) -> bytes:
    """A JPEG with the truth on the left and the prediction on the right."""
    panels = [drawn(pixels, truth, scored=False), drawn(pixels, prediction)]
    for panel in panels:  # before it is encoded: a JPEG's sides are limited
        panel.thumbnail((SIDE, SIDE))
    width, height = panels[0].size
    sheet = Image.new("RGB", (2 * width + GAP, height + TITLE), "white")
    canvas = ImageDraw.Draw(sheet)
    for i, (title, panel) in enumerate(zip(("truth", "prediction"), panels, strict=True)):
        left = i * (width + GAP)
        canvas.text((left + 2, 1), title, fill="black")
        sheet.paste(panel, (left, TITLE))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _enlarged(pixels: Pixels) -> Pixels:
    """The image enlarged to SMALLEST pixels at least, so that class names fit on it."""
    factor = -(-SMALLEST // max(pixels.shape[:2]))
    if factor <= 1:
        return pixels
    size = pixels.shape[1] * factor, pixels.shape[0] * factor
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def class_panel(name_id: int, names: tuple[str, ...], size: tuple[int, int]) -> Prediction:
    """The true class of an image of `size` (width, height), in the form of a prediction."""
    return Prediction(
        task="classify",
        names=names,
        width=size[0],
        height=size[1],
        class_ids=np.array([name_id], np.int64),
        scores=np.ones(1, np.float32),
        boxes=np.zeros((0, 4), np.float32),
    )
