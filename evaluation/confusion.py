"""Metrics of a classifier from its confusion matrix, equal to scikit-learn's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClassScores:
    """Metrics of each class, (c,); as in scikit-learn, a metric that is not defined is 0."""

    precision: Array
    recall: Array
    f1: Array
    support: NDArray[np.int64]  # images of the class
    occurs: NDArray[np.bool_]  # whether the class is annotated or predicted in any image


def class_scores(matrix: NDArray[np.integer]) -> ClassScores:
    """Precision, recall and F1 of each class.

    Args:
        matrix: (c, c) counts: rows are true classes, columns predicted ones.
    """
    right = np.diag(matrix).astype(np.float64)
    truth, predicted = matrix.sum(1), matrix.sum(0)
    return ClassScores(
        precision=_share(right, predicted),
        recall=_share(right, truth),
        f1=_share(2 * right, truth + predicted),
        support=truth.astype(np.int64),
        occurs=(truth + predicted) > 0,
    )


def classifier_scores(matrix: NDArray[np.integer]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 averaged over the classes that occur.

    Examples:
        >>> classifier_scores(np.array([[3, 1], [0, 4]]))["accuracy"]
        0.875
    """
    scores = class_scores(matrix)
    means = {"precision": scores.precision, "recall": scores.recall, "f1_score": scores.f1}
    some = bool(scores.occurs.any())
    return {"accuracy": float(np.trace(matrix) / max(1, matrix.sum()))} | {
        name: float(values[scores.occurs].mean()) if some else 0.0 for name, values in means.items()
    }


def _share(part: Array, whole: NDArray[np.integer]) -> Array:
    return part / np.maximum(whole, 1)
