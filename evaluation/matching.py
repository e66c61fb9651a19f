"""Matching of detections with annotated objects, by IoU or keypoint similarity.

In NumPy, in single precision, with results equal to those of Ultralytics' `box_iou`, `mask_iou`,
`kpt_iou`, `match_predictions` and `ConfusionMatrix` (8.4.190).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from formats.geometry import EPS, Float, box_area

Ids = NDArray[np.int64]

THRESHOLDS: Float = np.array([0.5 + 0.05 * i for i in range(10)], np.float32)  # IoU or OKS
PAIRED = 0.5  # IoU above which the confusion matrix pairs a detection with an object
AREA = np.float32(0.53)  # area of a body as a share of its box, as in xtcocotools

# Per-keypoint standard deviations of COCO's 17 body keypoints (cocodataset.org/#keypoints-eval).
_BODY = np.array(
    (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89), np.float32
) / np.float32(1000)


def mask_iou(objects: NDArray[np.bool_], detections: NDArray[np.bool_]) -> Float:
    """IoU (m, n) of masks (m, h, w) and (n, h, w)."""
    pixels = objects.shape[1] * objects.shape[2]  # reshape cannot infer -1 for an empty array
    one = objects.reshape(len(objects), pixels).astype(np.float32)
    other = detections.reshape(len(detections), pixels).astype(np.float32)
    both = one @ other.T
    return both / (one.sum(1)[:, None] + other.sum(1)[None] - both + EPS)


def keypoint_similarity(objects: Float, detections: Float, boxes: Float) -> Float:
    """COCO's object keypoint similarity (OKS) of annotated and detected poses.

    Args:
        objects: (m, k, 3) x, y, visibility; keypoints of visibility 0 are ignored.
        detections: (n, k, 2 or 3) x, y and possibly confidence, in the same frame.
        boxes: (m, 4) xyxy of the objects; their areas set the scale.

    Returns:
        (m, n) similarities, 0 to 1.
    """
    count = objects.shape[1]
    sigma = _BODY if count == len(_BODY) else np.full(count, 1 / count, np.float32)
    apart = ((objects[:, None, :, :2] - detections[None, :, :, :2]) ** 2).sum(-1)
    scale = (2 * sigma) ** 2 * ((box_area(boxes) * AREA)[:, None, None] + EPS) * 2
    seen = objects[..., 2] != 0
    near = np.exp(-apart / scale) * seen[:, None]
    return (near.sum(-1) / (seen.sum(-1)[:, None] + EPS)).astype(np.float32)


def match(pred_cls: Ids, true_cls: Ids, iou: Float) -> NDArray[np.bool_]:
    """Whether each detection is a true positive at each of the ten thresholds.

    Greedy: each detection, by descending confidence, takes the free object of its class with
    the highest IoU.

    Args:
        pred_cls: (n,) class ids of the detections, by descending confidence.
        true_cls: (m,) class ids of the objects.
        iou: (m, n) IoU or OKS.

    Returns:
        (n, 10) bool.
    """
    right = np.zeros((len(pred_cls), len(THRESHOLDS)), bool)
    if not len(true_cls) or not len(pred_cls):
        return right
    iou = iou * (true_cls[:, None] == pred_cls)
    levels = np.arange(len(THRESHOLDS))
    taken = np.zeros((len(true_cls), len(THRESHOLDS)), bool)
    for j in np.flatnonzero((iou >= THRESHOLDS[0]).any(0)):
        free = np.where(taken, np.float32(0), iou[:, j, None])
        best = free.argmax(0)
        right[j] = free[best, levels] >= THRESHOLDS
        taken[best, levels] |= right[j]
    return right


def pair(iou: Float, threshold: float = PAIRED) -> Ids:
    """The index of the detection paired with each object, regardless of class.

    Args:
        iou: (m, n) IoU; detections by descending confidence.
        threshold: The IoU of a pair is higher than this.

    Returns:
        (m,) indices of detections; -1 for an object without a detection.
    """
    paired = np.full(iou.shape[0], -1, np.int64)
    if not iou.size:
        return paired
    free = iou.copy()
    for j in np.flatnonzero((iou > threshold).any(0)):
        best = int(free[:, j].argmax())
        if free[best, j] > threshold:
            paired[best] = j
            free[best] = 0
    return paired
