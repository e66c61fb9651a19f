"""Counts of a model's predictions by class and confidence, over many images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference.prediction import Float, Int, Prediction
from models_store.description import ModelDescription

BINS = 20  # bins of the confidence histogram, each 0.05 wide
LOW_BINS = 10  # the bins of low confidence: below 0.5

Counts = NDArray[np.int64]


@dataclass(slots=True)
class PredictionCounts:
    """Prediction counts of one model.

    Only boxes with at least the model's default confidence threshold count, even if a request had
    a lower one. Of a classification only the top class counts.

    Attributes:
        classes: (classes,) number of predictions per class id.
        images: Number of images.
        empty: Number of images without a prediction.
        confidence: (BINS,) number of predictions per confidence bin.
    """

    classes: Counts
    images: int = 0
    empty: int = 0
    confidence: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @classmethod
    def of(
        cls, description: ModelDescription, predictions: Iterable[Prediction]
    ) -> PredictionCounts:
        """The counts of a model's predictions."""
        counts = cls(np.zeros(len(description.names), np.int64))
        every: list[tuple[Float, Int]] = []
        for prediction in predictions:
            scores, class_ids = counted(description, prediction)
            counts.images += 1
            counts.empty += not len(scores)
            every.append((scores, class_ids))
        if every:
            scores, class_ids = (np.concatenate(parts) for parts in zip(*every, strict=True))
            bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
            counts.confidence += np.bincount(bins, minlength=BINS)
            counts.classes += np.bincount(class_ids, minlength=len(counts.classes))
        return counts

    @property
    def predictions(self) -> int:
        """The number of predictions."""
        return int(self.confidence.sum())

    @property
    def low(self) -> int:
        """The number of predictions with a confidence below 0.5."""
        return int(self.confidence[:LOW_BINS].sum())

    def add(self, other: PredictionCounts) -> None:
        """Add the counts of the same model's other images."""
        self.images += other.images
        self.empty += other.empty
        self.confidence = self.confidence + other.confidence
        self.classes = self.classes + other.classes


def counted(description: ModelDescription, prediction: Prediction) -> tuple[Float, Int]:
    """Scores and class ids of the predictions that count."""
    if description.task == "classify":
        end = 1
    else:  # scores are in descending order
        end = int(np.searchsorted(-prediction.scores, -description.confidence, side="right"))
    return prediction.scores[:end], prediction.class_ids[:end]
