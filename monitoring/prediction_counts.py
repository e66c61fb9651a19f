"""Counts of what a model sees, over many answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference.prediction import Float, Int, Prediction
from models_store.description import ModelDescription

BINS = 20  # of the confidence histogram, each 0.05 wide
LOW_BINS = 10  # of them count as low confidence: those below 0.5

Counts = NDArray[np.int64]


@dataclass(slots=True)
class PredictionCounts:
    """Counts of one model.

    Boxes count from the model's own serving confidence on, whatever lower threshold a request
    had; of a classification only the best class counts.

    Attributes:
        images: Pictures answered.
        empty: Pictures without a prediction.
        confidence: (BINS,) predictions by confidence.
        classes: (classes,) predictions by class id.
    """

    classes: Counts
    images: int = 0
    empty: int = 0
    confidence: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @classmethod
    def of(cls, description: ModelDescription, seen: Iterable[Prediction]) -> PredictionCounts:
        """The counts of a model's answers."""
        tally = cls(np.zeros(len(description.names), np.int64))
        every: list[tuple[Float, Int]] = []
        for prediction in seen:
            scores, class_ids = counted(description, prediction)
            tally.images += 1
            tally.empty += not len(scores)
            every.append((scores, class_ids))
        if every:
            scores, class_ids = (np.concatenate(parts) for parts in zip(*every, strict=True))
            bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
            tally.confidence += np.bincount(bins, minlength=BINS)
            tally.classes += np.bincount(class_ids, minlength=len(tally.classes))
        return tally

    @property
    def predictions(self) -> int:
        return int(self.confidence.sum())

    @property
    def low(self) -> int:
        """Predictions of a confidence below 0.5."""
        return int(self.confidence[:LOW_BINS].sum())

    def add(self, other: PredictionCounts) -> None:
        self.images += other.images
        self.empty += other.empty
        self.confidence = self.confidence + other.confidence
        self.classes = self.classes + other.classes


def counted(description: ModelDescription, prediction: Prediction) -> tuple[Float, Int]:
    """Scores and class ids of what counts in an answer."""
    if description.task == "classify":
        end = 1
    else:  # scores descend
        end = int(np.searchsorted(-prediction.scores, -description.confidence, side="right"))
    return prediction.scores[:end], prediction.class_ids[:end]
