"""Prelabels images one by one, with the inference engine that also serves the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference import tiles
from inference.engine import load_engine
from inference.images import Pixels, decode
from inference.postprocess import MAX_DET
from inference.predict import predict
from inference.prediction import Prediction
from settings import Settings

BATCH = 8  # maximum number of tiles of one image per batch, if the engine supports batches


@dataclass(frozen=True)
class PrelabelledImage:
    """An image, RGB (h, w, 3), with the model's prediction."""

    pixels: Pixels
    prediction: Prediction


class Prelabeller:
    """Pre-labels one image at a time, with the steps and the results of `/api/auto_annotate`."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        confidence: float,
        iou: float | None = None,
        tiled: int = tiles.AUTO,
        boxes_only: bool = False,
    ) -> None:
        """Load a model.

        Args:
            folder: Folder of the model.
            settings: The device and limits.
            confidence: Score threshold.
            iou: IoU threshold of NMS; None: the model's default.
            tiled: Number of tiles along the longer side, or AUTO or OFF of `inference.tiles`.
            boxes_only: Return boxes instead of masks.
        """
        self.engine, self.description = load_engine(folder, settings)
        self.confidence, self.iou = confidence, iou
        self.tiled = tiles.OFF if self.description.task == "classify" else tiled
        self.boxes_only = boxes_only
        self._max_pixels = settings.max_pixels

    def prelabel(self, data: bytes) -> PrelabelledImage:
        """Predict the annotations of an encoded image, with polygons simplified for editing.

        Raises:
            InvalidImage, PayloadTooLarge: The image cannot be read, or is too large.
        """
        pixels = decode(data, self._max_pixels)
        height, width = pixels.shape[:2]
        views = tiles.views(width, height, self.description.imgsz, self.tiled)
        size = BATCH if self.engine.batched else 1
        predictions: list[Prediction] = []
        for first in range(0, len(views), size):
            predictions += self._predict(pixels, views[first : first + size])
        prediction = (
            tiles.merge(list(zip(views, predictions, strict=True)), MAX_DET)
            if len(views) > 1
            else predictions[0]
        )
        if self.boxes_only:
            prediction = prediction.boxes_only()
        return PrelabelledImage(pixels, prediction.simplified())

    def _predict(self, pixels: Pixels, views: list[tiles.View]) -> list[Prediction]:
        parts = [np.ascontiguousarray(view.cut(pixels)) for view in views]
        return predict(
            self.engine,
            self.description,
            parts,
            wide=True,
            confidence=self.confidence,
            iou=self.iou,
        )
