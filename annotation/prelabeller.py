"""Pre-labels of one picture after the other, with the engine that serves the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference import tiles
from inference.engine import load_engine
from inference.images import Pixels, decode
from inference.postprocess import MAX_DET, postprocess
from inference.prediction import Prediction
from inference.preprocess import prepare
from settings import Settings

TOGETHER = 8  # views of one picture that a GPU looks at in one go


@dataclass(frozen=True)
class Labelled:
    """A picture (h, w, 3), and what the model sees in it."""

    pixels: Pixels
    prediction: Prediction


class Labeller:
    """The whole device for one picture at a time, which goes the way of `/api/auto_annotate`."""

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
        """Load the model in `folder`; the others as `inference.prediction.InferenceItem` has them.

        `tiled`: along the longer side, AUTO or OFF.
        """
        self.engine, self.description = load_engine(folder, settings)
        self.confidence, self.iou = confidence, iou
        self.tiled = tiles.OFF if self.description.task == "classify" else tiled
        self.boxes_only = boxes_only
        self._max_pixels = settings.max_pixels

    def label(self, data: bytes) -> Labelled:
        """What is in a picture, with polygons that a person can edit.

        Raises:
            InvalidImage, PayloadTooLarge: It cannot be read, or is too large.
        """
        pixels = decode(data, self._max_pixels)
        height, width = pixels.shape[:2]
        views = tiles.views(width, height, self.description.imgsz, self.tiled)
        size = TOGETHER if self.engine.batched else 1
        seen: list[Prediction] = []
        for first in range(0, len(views), size):
            seen += self._look(pixels, views[first : first + size])
        prediction = (
            tiles.merge(list(zip(views, seen, strict=True)), MAX_DET)
            if (len(views) > 1)
            else seen[0]
        )
        if self.boxes_only:
            prediction = prediction.boxes_only()
        return Labelled(pixels, prediction.simplified())

    def _look(self, pixels: Pixels, views: list[tiles.View]) -> list[Prediction]:
        parts = [np.ascontiguousarray(view.cut(pixels)) for view in views]
        prepared = np.stack([prepare(part, self.description) for part in parts])
        outputs = self.engine.run(prepared, wide=True)
        return [
            postprocess(
                [output[row] for output in outputs],
                self.description,
                part.shape[1],
                part.shape[0],
                confidence=self.confidence,
                iou=self.iou,
            )
            for row, part in enumerate(parts)
        ]
