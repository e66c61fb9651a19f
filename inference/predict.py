"""The prediction of an engine for decoded images, without a server's batches and limits."""

from __future__ import annotations

from collections.abc import Sequence

from inference.engine import Engine, find_each
from inference.images import DecodedImage
from inference.postprocess import Thresholds, postprocess
from inference.prediction import Prediction
from inference.preprocess import Letterbox, prepare
from models_store.description import ModelDescription


def predict(
    engine: Engine,
    description: ModelDescription,
    images: Sequence[DecodedImage],
    *,
    wide: bool = False,
    confidence: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
) -> list[Prediction]:
    """One prediction per image, with the letterbox that serves.

    Images of one shape run together. A threshold of None means the model's default.
    """
    places = [
        Letterbox.of(description, engine.letterbox, image.width, image.height) for image in images
    ]
    prepared = [
        prepare(image.pixels, description, place, image.scale)
        for image, place in zip(images, places, strict=True)
    ]
    wanted = [Thresholds.of(description, confidence, iou, max_det)] * len(images)
    return [
        postprocess(found, description, place, confidence=confidence, iou=iou, max_det=max_det)
        for found, place in zip(
            find_each(engine, prepared, places, wanted, wide), places, strict=True
        )
    ]
