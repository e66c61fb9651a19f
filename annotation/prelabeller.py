"""Prelabels images one by one, with the inference engine that also serves the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference import tiles
from inference.engine import load_engine
from inference.images import DecodedImage, decode_at_least
from inference.postprocess import MAX_DET
from inference.predict import predict
from inference.prediction import Prediction
from inference.preprocess import needed_size
from settings import Settings

BATCH = 8  # maximum number of tiles of one image per batch, if the engine supports batches


@dataclass(frozen=True)
class PrelabelledImage:
    """An image, decoded as far as the model needed it, with the model's prediction."""

    image: DecodedImage
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
        self._needed = needed_size(self.description, settings.decode, self.tiled)

    def prelabel(self, data: bytes) -> PrelabelledImage:
        """Predict the annotations of an encoded image, with polygons simplified for editing.

        Raises:
            InvalidImage, PayloadTooLarge: The image cannot be read, or is too large.
        """
        image = decode_at_least(data, self._max_pixels, self._needed)
        views = tiles.views(image.width, image.height, self.description.imgsz, self.tiled)
        size = BATCH if self.engine.batched else 1
        predictions: list[Prediction] = []
        for first in range(0, len(views), size):
            predictions += self._predict(image, views[first : first + size])
        prediction = (
            tiles.merge(list(zip(views, predictions, strict=True)), MAX_DET)
            if len(views) > 1
            else predictions[0]
        )
        if self.boxes_only:
            prediction = prediction.boxes_only()
        return PrelabelledImage(image, prediction.simplified())

    def _predict(self, image: DecodedImage, views: list[tiles.View]) -> list[Prediction]:
        return predict(
            self.engine,
            self.description,
            [view.cut(image) for view in views],
            wide=True,
            confidence=self.confidence,
            iou=self.iou,
        )
