"""Which detections are right: overlaps, and the pairing of detections with objects.

In NumPy, single precision as PyTorch has it, equal to Ultralytics' `box_iou`, `mask_iou`,
`kpt_iou`, `match_predictions` and `ConfusionMatrix` (8.4.190).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from formats.geometry import EPS, Float, box_area

Ids = NDArray[np.int64]

THRESHOLDS: Float = np.array([0.5 + 0.05 * i for i in range(10)], np.float32)  # of IoU, or OKS
PAIRED = 0.5  # IoU from which a detection and an object are one, in the confusion matrix
AREA = np.float32(0.53)  # share of its box that a body covers, as xtcocotools has it

# How precisely people place each of COCO's 17 points of a body (cocodataset.org/#keypoints-eval).
_BODY = np.array(
    (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89), np.float32
) / np.float32(1000)


def mask_iou(objects: NDArray[np.bool_], detections: NDArray[np.bool_]) -> Float:
    """IoU (m, n) of masks (m, h, w) and (n, h, w)."""
    pixels = objects.shape[1] * objects.shape[2]  # -1 is no number where there is nothing
    one = objects.reshape(len(objects), pixels).astype(np.float32)
    other = detections.reshape(len(detections), pixels).astype(np.float32)
    both = one @ other.T
    return both / (one.sum(1)[:, None] + other.sum(1)[None] - both + EPS)


def keypoint_similarity(objects: Float, detections: Float, boxes: Float) -> Float:
    """Object keypoint similarity (OKS) of poses, as COCO has it.

    Args:
        objects: (m, k, 3) x, y, visibility; invisible points (0) do not count.
        detections: (n, k, 2 or 3) in the same frame.
        boxes: (m, 4) xyxy of the objects, whose area is the scale.

    Returns:
        (m, n), 0 to 1.
    """
    count = objects.shape[1]
    sigma = _BODY if count == len(_BODY) else np.full(count, 1 / count, np.float32)
    apart = ((objects[:, None, :, :2] - detections[None, :, :, :2]) ** 2).sum(-1)
    scale = (2 * sigma) ** 2 * ((box_area(boxes) * AREA)[:, None, None] + EPS) * 2
    seen = objects[..., 2] != 0
    near = np.exp(-apart / scale) * seen[:, None]
    return (near.sum(-1) / (seen.sum(-1)[:, None] + EPS)).astype(np.float32)


def match(pred_cls: Ids, true_cls: Ids, iou: Float) -> NDArray[np.bool_]:
    """Which detections are right at each of the ten thresholds.

    Each detection in turn, the surest first, takes the object of its class that it overlaps
    most among those not yet taken.

    Args:
        pred_cls: (n,) class ids, by descending score.
        true_cls: (m,) class ids.
        iou: (m, n) overlaps.

    Returns:
        (n, 10).
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
    """The detection that each object is paired with, of whatever class; -1: none.

    Args:
        iou: (m, n) overlaps; detections by descending score.
        threshold: Pairs overlap by more than this.

    Returns:
        (m,) indices of detections.
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
