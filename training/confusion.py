"""Figures of a classifier from its confusion matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def classifier_scores(matrix: NDArray[np.integer]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 averaged over the classes that occur.

    Args:
        matrix: (n, n) counts: rows are true classes, columns predicted ones.

    Examples:
        >>> classifier_scores(np.array([[3, 1], [0, 4]]))["accuracy"]
        0.875
    """
    right = np.diag(matrix).astype(np.float64)
    truth, predicted = matrix.sum(1), matrix.sum(0)
    occurs = truth > 0
    recall = right[occurs] / truth[occurs]
    precision = right[occurs] / np.maximum(predicted[occurs], 1)
    f1 = 2 * right[occurs] / (truth[occurs] + predicted[occurs])
    return {
        "accuracy": float(right.sum() / max(1, matrix.sum())),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "f1_score": float(f1.mean()),
    }
