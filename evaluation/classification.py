"""Metrics of classifiers, accumulated image by image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.class_matching import JoinedClasses
from evaluation.confusion import class_scores, classifier_scores
from evaluation.results import ImageErrors, SplitMetrics
from inference.prediction import Prediction

TOP = 5
BINS = 10  # confidence bins of the reliability diagram


class ClassificationMetrics:
    """Accuracy, confusion matrix and reliability of one split.

    `update` counts one image, `compute` returns the metrics of the images so far, `reset` sets all
    counts to zero.
    """

    def __init__(self, classes: JoinedClasses) -> None:
        """`classes`: the union of the model's and the dataset's classes."""
        self.classes = classes
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero."""
        self._names: list[str] = []
        self._true: list[int] = []
        self._pred: list[int] = []
        self._top5: list[bool] = []
        self._conf: list[float] = []

    def update(self, name: str, true: int, prediction: Prediction) -> ImageErrors:
        """Count one image.

        Args:
            name: Path of the image in the dataset.
            true: Id of its class in `classes.names`.
            prediction: The most probable classes, the best first.

        Returns:
            The error, if the best class is wrong; its severity is the confidence of that class.
        """
        best, confidence = int(prediction.class_ids[0]), float(prediction.scores[0])
        self._names.append(name)
        self._true.append(true)
        self._pred.append(best)
        self._top5.append(true in prediction.class_ids[:TOP].tolist())
        self._conf.append(confidence)
        if best == true:
            return ImageErrors((0.0,), "")
        names = self.classes.names
        reason = f"{names[best]} ({confidence:.2f}) instead of {names[true]}"
        return ImageErrors((confidence,), reason)

    def compute(self) -> SplitMetrics:
        """The metrics of the images so far."""
        matrix = self._matrix()
        top5 = float(np.mean(self._top5)) if self._top5 else 0.0
        return SplitMetrics(
            summary=classifier_scores(matrix) | {"accuracy_top5": top5},
            report=self._report(matrix),
            predictions=self._predictions(),
            instances=len(self._true),
        )

    def _matrix(self) -> NDArray[np.int64]:
        """(c, c) counts: rows are true classes, columns predicted ones."""
        count = len(self.classes.names)
        matrix = np.zeros((count, count), np.int64)
        np.add.at(matrix, (self._true, self._pred), 1)
        return matrix

    def _report(self, matrix: NDArray[np.int64]) -> dict[str, Any]:
        scores = class_scores(matrix)
        rows = [
            {
                "class_id": int(i),
                "name": self.classes.names[i],
                "images": int(scores.support[i]),
                "instances": int(scores.support[i]),
                "precision": float(scores.precision[i]),
                "recall": float(scores.recall[i]),
                "f1_score": float(scores.f1[i]),
                "accuracy": float(scores.recall[i]),
            }
            for i in np.flatnonzero(scores.occurs)
        ]
        return {
            "classes": rows,
            "confusion": {
                "labels": list(self.classes.names),
                "matrix": matrix.tolist(),
                "confidence": None,
            },
            "curves": {"reliability": self._reliability()},
        }

    def _predictions(self) -> dict[str, NDArray[Any]]:
        return {
            "images": np.array(self._names, np.str_),
            "true": np.array(self._true, np.int64),
            "pred": np.array(self._pred, np.int64),
            "top5": np.array(self._top5, bool),
            "conf": np.array(self._conf, np.float32),
            "class_names": np.array(self.classes.names, np.str_),
        }

    def _reliability(self) -> dict[str, list[Any]]:
        """Edges of the confidence bins, and the number of images and the accuracy of each bin."""
        right = np.array(self._true) == np.array(self._pred)
        bins = np.minimum((np.array(self._conf) * BINS).astype(int), BINS - 1)
        counts = np.bincount(bins, minlength=BINS)
        hits = np.bincount(bins, weights=right, minlength=BINS)
        share = [float(hit / n) if n else None for hit, n in zip(hits, counts, strict=True)]
        edges = [round(i / BINS, 4) for i in range(BINS + 1)]
        return {"edges": edges, "images": counts.tolist(), "accuracy": share}
