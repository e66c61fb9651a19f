"""Average precision and precision, recall and F1 curves in NumPy, equal to Ultralytics' values.

The arithmetic is that of `ultralytics.utils.metrics.ap_per_class` (8.4.190): COCO's 101-point
interpolation, curves over 1000 confidences, and the confidence with the highest smoothed F1,
averaged over the classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

POINTS = 1000  # points of a curve, over confidence or over recall
SMOOTHING = 0.1  # width of the box filter for the best F1, as a share of the curve
_RECALLS = np.linspace(0, 1, 101)
_EPS = 1e-16


@dataclass(frozen=True)
class ClassCurves:
    """Average precision and curves of each class with at least one object.

    Attributes:
        classes: (c,) class ids, ascending.
        instances: (c,) number of objects of each class.
        ap: (c, 10) average precision at IoU 0.5 to 0.95.
        x: (1000,) from 0 to 1: the confidences or the recalls of the curves.
        precision, recall, f1: (c, 1000) over the confidences `x`, at IoU 0.5.
        precision_at_recall: (c, 1000) over the recalls `x`, at IoU 0.5.
        best: Index into `x` of the confidence with the highest smoothed mean F1.
    """

    classes: Ids
    instances: Ids
    ap: Array
    x: Array
    precision: Array
    recall: Array
    f1: Array
    precision_at_recall: Array
    best: int

    @property
    def confidence(self) -> float:
        """The confidence with the highest smoothed mean F1, at which F1 is given."""
        return float(self.x[self.best])

    @property
    def map50(self) -> float:
        return float(self.ap[:, 0].mean()) if len(self.ap) else 0.0

    @property
    def map50_95(self) -> float:
        return float(self.ap.mean()) if len(self.ap) else 0.0

    def mean_at_best(self) -> dict[str, float]:
        """Precision, recall and F1 at the confidence of the best F1, averaged over the classes."""
        curves = {"precision": self.precision, "recall": self.recall, "f1_score": self.f1}
        at_best = {name: curve[:, self.best] for name, curve in curves.items()}
        return {name: float(row.mean()) if len(row) else 0.0 for name, row in at_best.items()}


def f1_of(precision: float, recall: float) -> float:
    """F1, the harmonic mean of precision and recall; 0 if both are 0.

    Examples:
        >>> f1_of(0.5, 1.0)
        0.6666666666666666
    """
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def average_precision(
    tp: NDArray[np.bool_], conf: NDArray[np.floating], pred_cls: Ids, target_cls: Ids
) -> tuple[Ids, Array]:
    """Average precision of each class, without the curves of `ap_per_class`.

    Args:
        tp: (n, t) whether each detection is a true positive at each of t IoU thresholds.
        conf: (n,) confidences.
        pred_cls: (n,) class ids of the detections.
        target_cls: (m,) class ids of the objects.

    Returns:
        The ids (c,) of the classes that have an object, ascending, and their average
        precisions (c, t).
    """
    order = _order(conf)
    tp, pred_cls = tp[order], pred_cls[order]
    classes, counts = np.unique(target_cls, return_counts=True)
    ap = np.zeros((len(classes), tp.shape[1]))
    for row, members in enumerate(_members(pred_cls, classes)):
        if len(members):
            recall, precision = _curve(tp[members], counts[row])
            for j in range(tp.shape[1]):
                ap[row, j] = _area(recall[:, j], precision[:, j])[0]
    return classes.astype(np.int64), ap


def ap_per_class(
    tp: NDArray[np.bool_], conf: NDArray[np.floating], pred_cls: Ids, target_cls: Ids
) -> ClassCurves:
    """Average precision and curves of each class; same arguments as `average_precision`."""
    order = _order(conf)
    tp, conf, pred_cls = tp[order], conf[order], pred_cls[order]
    classes, counts = np.unique(target_cls, return_counts=True)
    x = np.linspace(0, 1, POINTS)
    ap = np.zeros((len(classes), tp.shape[1]))
    precisions, recalls, at_recall = (np.zeros((len(classes), POINTS)) for _ in range(3))
    for row, members in enumerate(_members(pred_cls, classes)):
        if not len(members):
            continue
        recall, precision = _curve(tp[members], counts[row])
        # negated, because np.interp requires ascending x values
        recalls[row] = np.interp(-x, -conf[members], recall[:, 0], left=0)
        precisions[row] = np.interp(-x, -conf[members], precision[:, 0], left=1)
        for j in range(tp.shape[1]):
            ap[row, j], envelope, steps = _area(recall[:, j], precision[:, j])
            if j == 0:
                at_recall[row] = np.interp(x, steps, envelope)
    f1 = 2 * precisions * recalls / (precisions + recalls + _EPS)
    best = int(smooth(f1.mean(0), SMOOTHING).argmax()) if len(classes) else 0
    return ClassCurves(
        classes.astype(np.int64), counts, ap, x, precisions, recalls, f1, at_recall, best
    )


def smooth(y: Array, share: float) -> Array:
    """`y` (n,) smoothed by a box filter about `share` · n wide, padded with its end values."""
    width = round(len(y) * share * 2) // 2 + 1
    ends = np.ones(width // 2)
    padded = np.concatenate((ends * y[0], y, ends * y[-1]))
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def _order(conf: NDArray[np.floating]) -> NDArray[np.intp]:
    """Indices by descending confidence.

    Like Ultralytics' sort, this one is not stable, so that ties get the same order.
    """
    return np.argsort(-conf)


def _members(pred_cls: Ids, classes: Ids) -> list[NDArray[np.intp]]:
    """Indices of the detections of each class, in their original order."""
    grouped = np.argsort(pred_cls, kind="stable")
    sorted_classes = pred_cls[grouped]
    first = np.searchsorted(sorted_classes, classes, "left")
    last = np.searchsorted(sorted_classes, classes, "right")
    return [grouped[a:b] for a, b in zip(first, last, strict=True)]


def _curve(tp: NDArray[np.bool_], objects: int) -> tuple[Array, Array]:
    """Recall and precision (n, t) after each detection, by descending confidence."""
    right = tp.cumsum(0)
    taken = np.arange(1, len(tp) + 1)[:, None]
    return right / (objects + _EPS), right / taken


def _area(recall: Array, precision: Array) -> tuple[float, Array, Array]:
    """Area under one precision-recall curve, its monotone envelope, and the envelope's recalls."""
    steps = np.concatenate(([0.0], recall, [recall[-1], 1.0]))
    envelope = np.concatenate(([1.0], precision, [0.0, 0.0]))
    envelope = np.maximum.accumulate(envelope[::-1])[::-1]
    return float(np.trapezoid(np.interp(_RECALLS, steps, envelope), _RECALLS)), envelope, steps
