"""How well pictures are classified, collected picture by picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.class_matching import JoinedClasses
from evaluation.confusion import class_scores, classifier_scores
from inference.prediction import Prediction
from models_store.description import ModelDescription

TOP = 5
BINS = 10  # of confidence, in the reliability diagram


class ClassificationMetrics:
    """Collects one split."""

    def __init__(self, description: ModelDescription, classes: JoinedClasses) -> None:
        self.description, self.classes = description, classes
        self._names: list[str] = []
        self._true: list[int] = []
        self._pred: list[int] = []
        self._top5: list[bool] = []
        self._conf: list[float] = []

    def add(self, name: str, true: int, prediction: Prediction) -> tuple[tuple[float, ...], str]:
        """Count one picture.

        Args:
            name: Of the picture.
            true: Its class, an id of the joined classes.
            prediction: The best classes, the best first.

        Returns:
            How bad it is, to be sorted by, and why in words; empty if it is right.
        """
        best, confidence = int(prediction.class_ids[0]), float(prediction.scores[0])
        self._names.append(name)
        self._true.append(true)
        self._pred.append(best)
        self._top5.append(true in prediction.class_ids[:TOP].tolist())
        self._conf.append(confidence)
        if best == true:
            return (0.0,), ""
        names = self.classes.names
        return (confidence,), f"{names[best]} ({confidence:.2f}) instead of {names[true]}"

    @property
    def instances(self) -> int:
        return len(self._true)

    @property
    def matrix(self) -> NDArray[np.int64]:
        """(c, c) counts: rows are true classes, columns predicted ones."""
        count = len(self.classes.names)
        matrix = np.zeros((count, count), np.int64)
        np.add.at(matrix, (self._true, self._pred), 1)
        return matrix

    def figures(self) -> dict[str, float]:
        """The flat summary."""
        top5 = float(np.mean(self._top5)) if self._top5 else 0.0
        return classifier_scores(self.matrix) | {"accuracy_top5": top5}

    def report(self) -> dict[str, Any]:
        """The parts of the report that are about classification."""
        matrix = self.matrix
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

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a comparison needs, picture by picture."""
        return {
            "images": np.array(self._names, np.str_),
            "true": np.array(self._true, np.int64),
            "pred": np.array(self._pred, np.int64),
            "top5": np.array(self._top5, bool),
            "conf": np.array(self._conf, np.float32),
            "class_names": np.array(self.classes.names, np.str_),
        }

    def _reliability(self) -> dict[str, list[Any]]:
        """Per bin of confidence: how many pictures, and how many of them are right."""
        right = np.array(self._true) == np.array(self._pred)
        bins = np.minimum((np.array(self._conf) * BINS).astype(int), BINS - 1)
        counts = np.bincount(bins, minlength=BINS)
        hits = np.bincount(bins, weights=right, minlength=BINS)
        share = [float(hit / n) if n else None for hit, n in zip(hits, counts, strict=True)]
        edges = [round(i / BINS, 4) for i in range(BINS + 1)]
        return {"edges": edges, "images": counts.tolist(), "accuracy": share}
