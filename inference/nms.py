"""Non-maximum suppression in NumPy, equal to Ultralytics' with torchvision's kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.prediction import Float, Int

MAX_WH = 7680  # offset between classes, so that boxes of different classes never overlap
MAX_NMS = 30000  # maximum number of candidates, those of highest score


def non_max_suppression(
    output: Float,
    nc: int,
    conf: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
    multi_label: bool = False,
    classes: Sequence[int] | None = None,
) -> tuple[Float, Float, Int, Float]:
    """The candidates of one image that survive non-maximum suppression.

    The same arithmetic in the same precision as `ultralytics.utils.nms.non_max_suppression`
    (class-aware) followed by `torchvision.ops.nms`. In addition, candidates with a coordinate that
    is not finite are dropped.

    Args:
        output: (4 + nc + extra, anchors) float32: xywh, class probabilities, extra channels.
        nc: Number of classes.
        conf: Candidates with a score up to this are dropped.
        iou: Boxes whose IoU with a box of the same class and a higher score exceeds this are
            dropped.
        max_det: Maximum number of candidates to keep.
        multi_label: A box is a candidate for every class above `conf`, not only for its best class,
            as in Ultralytics' validation.
        classes: Only candidates of these class ids are kept; None: all. As in Ultralytics, a
            candidate's class is the best of all classes, not only of these.

    Returns:
        Boxes (n, 4) xyxy, scores (n,) descending, class ids (n,), extra channels (n, extra).
    """
    scored = output[4 : 4 + nc]
    with np.errstate(invalid="ignore"):
        if multi_label:
            candidates, class_ids = np.nonzero(np.greater(scored.T, conf))
        else:
            candidates = np.flatnonzero(scored.max(axis=0) > conf)
            class_ids = scored[:, candidates].argmax(axis=0)
    if classes is not None:
        wanted = np.isin(class_ids, classes)
        candidates, class_ids = candidates[wanted], class_ids[wanted]
    scores = scored[class_ids, candidates]
    if len(candidates) > MAX_NMS:
        chosen = np.argsort(-scores, kind="stable")[:MAX_NMS]
        candidates, class_ids, scores = candidates[chosen], class_ids[chosen], scores[chosen]

    rows = np.ascontiguousarray(output[:, candidates].T)
    with np.errstate(invalid="ignore", over="ignore"):
        half = rows[:, 2:4] / np.float32(2)
        boxes = np.concatenate((rows[:, :2] - half, rows[:, :2] + half), axis=1)
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if not finite.all():
        rows, boxes, scores = rows[finite], boxes[finite], scores[finite]
        class_ids = class_ids[finite]

    apart = boxes + (class_ids.astype(np.float32) * np.float32(MAX_WH))[:, None]
    keep = suppress(apart, scores, iou, max_det)
    return boxes[keep], scores[keep], class_ids[keep], rows[keep, 4 + nc :]


def suppress(boxes: Float, scores: Float, iou: float, max_det: int) -> NDArray[np.intp]:
    """Indices of the boxes (n, 4) xyxy to keep, best first, at most `max_det`."""
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    threshold = np.float64(iou)  # compared in double precision, as torchvision does
    keep: list[int] = []
    with np.errstate(all="ignore"):
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        left = np.arange(len(boxes))
        while len(left) and len(keep) < max_det:
            first, left = left[0], left[1:]
            keep.append(first)
            others = boxes[left]
            low = np.maximum(boxes[first, :2], others[:, :2])
            size = np.maximum(np.minimum(boxes[first, 2:], others[:, 2:]) - low, 0)
            inter = size[:, 0] * size[:, 1]
            overlap = inter / (areas[first] + areas[left] - inter)
            left = left[~(overlap > threshold)]
    return order[keep] if keep else order[:0]
