"""Non-maximum suppression of a batch of images on the device, equal to `inference.nms`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor

from inference.nms import MAX_NMS, MAX_WH
from inference.postprocess import Thresholds

DENSE = 1024  # candidates of an image up to which all pairs are compared at once
PAIRS = 1 << 25  # pairs compared at once: some 134 MB for each number that a pair has


class Ranked(NamedTuple):
    """The candidates of each image by descending score; ties in the order of the output.

    Attributes:
        output: (n, 4 + nc + extra, anchors) float32: xywh, class probabilities, extra channels.
        best: (n, anchors) the best score of each candidate.
        class_ids: (n, anchors) its class.
        order: (n, anchors) positions in the output, by rank.
    """

    output: Tensor
    best: Tensor
    class_ids: Tensor
    order: Tensor


class Kept(NamedTuple):
    """What survives, in m places an image of which the first `counts` are used.

    Attributes:
        rows: (n, m, 6 + extra): xyxy, score, class id, extra channels.
        counts: (n,) number of detections.
    """

    rows: Tensor
    counts: Tensor


def rank(output: Tensor, nc: int) -> Ranked:
    """Sort the candidates. Launches kernels only, so it can be part of a CUDA graph."""
    best, class_ids = output[:, 4 : 4 + nc].max(dim=1)
    return Ranked(output, best, class_ids, best.argsort(dim=1, descending=True, stable=True))


def suppress(ranked: Ranked, nc: int, wanted: Sequence[Thresholds]) -> Kept:
    """The candidates of each image that survive, best first, as by `nms.non_max_suppression`.

    The arithmetic is that of NumPy, operation by operation in single precision, so that both keep
    the same candidates of the same output.

    Args:
        ranked: As by `rank`; it may have more images than `wanted`, which are passed over.
        nc: Number of classes.
        wanted: The thresholds of each image.
    """
    n, most = len(wanted), max((each.max_det for each in wanted), default=0)
    output, best, class_ids, order = (tensor[:n] for tensor in ranked)
    device = output.device
    scores = best.gather(1, order)
    ids = class_ids.gather(1, order)
    alive = scores > _column([each.confidence for each in wanted], device)
    if any(each.classes is not None for each in wanted):
        alive &= _allowed(wanted, nc).to(device).gather(1, ids)
    if alive.shape[1] > MAX_NMS:
        alive &= alive.cumsum(1) <= MAX_NMS
    found = alive.sum(1)
    counts: list[int] = found.tolist()  # the only wait for the device before the end
    k = max(counts, default=0)

    places = _compacted(alive, k)
    present = torch.arange(k, device=device) < found[:, None]
    scores, ids = scores.gather(1, places), ids.gather(1, places)
    anchors = order.gather(1, places)
    boxes = _xyxy(_picked(output[:, :4], anchors))
    present &= boxes.isfinite().all(2) & scores.isfinite()
    apart = boxes + (ids.to(torch.float32) * MAX_WH)[:, :, None]
    keep = _greedy(apart, scores, present, counts, [_below(each.iou) for each in wanted])
    limits = torch.tensor([each.max_det for each in wanted], device=device)
    keep &= keep.cumsum(1) <= limits[:, None]

    final = _compacted(keep, min(k, most))
    extra = _picked(output[:, 4 + nc :], anchors.gather(1, final))
    rows = torch.cat(
        (
            boxes.gather(1, final[:, :, None].expand(-1, -1, 4)),
            scores.gather(1, final)[:, :, None],
            ids.gather(1, final)[:, :, None].to(torch.float32),
            extra,
        ),
        dim=2,
    )
    return Kept(rows, keep.sum(1))


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).to(device)[:, None]


def _allowed(wanted: Sequence[Thresholds], nc: int) -> Tensor:
    """(n, nc): whether a class is wanted in an image."""
    table = torch.zeros(len(wanted), nc, dtype=torch.bool)
    for row, each in zip(table, wanted, strict=True):
        if each.classes is None:
            row[:] = True
        else:
            row[[class_id for class_id in each.classes if 0 <= class_id < nc]] = True
    return table


def _below(threshold: float) -> float:
    """The largest float32 up to a float64: float32 numbers exceed both or neither."""
    single = np.float32(threshold)
    if float(single) > threshold:
        single = np.nextafter(single, np.float32(-np.inf))
    return float(single)


def _compacted(chosen: Tensor, most: int) -> Tensor:
    """(n, most): the positions of the chosen (n, anchors) in order; the rest is 0."""
    place = torch.where(chosen, chosen.cumsum(1) - 1, most).clamp_(max=most)
    positions = torch.arange(chosen.shape[1], device=chosen.device).expand_as(chosen)
    out = torch.zeros(len(chosen), most + 1, dtype=torch.int64, device=chosen.device)
    return out.scatter_(1, place, positions)[:, :most]


def _picked(channels: Tensor, anchors: Tensor) -> Tensor:
    """(n, k, c) of (n, c, anchors): the channels of some candidates."""
    index = anchors[:, None, :].expand(-1, channels.shape[1], -1)
    return channels.gather(2, index).transpose(1, 2)


def _xyxy(boxes: Tensor) -> Tensor:
    half = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), dim=-1)


def _greedy(
    boxes: Tensor, scores: Tensor, present: Tensor, counts: Sequence[int], iou: Sequence[float]
) -> Tensor:
    """(n, k): which candidates are kept; they are sorted by score.

    Images of few candidates are done together, those of many one by one, by torchvision's kernel.
    """
    keep = torch.zeros_like(present)
    few = [i for i, count in enumerate(counts) if 0 < count <= DENSE]
    k = max((counts[i] for i in few), default=1)
    size = max(1, PAIRS // k**2)
    for first in range(0, len(few), size):
        part = few[first : first + size]
        limits = torch.tensor([iou[i] for i in part]).to(boxes.device)
        keep[part, :k] = _all_pairs(boxes[part, :k], present[part, :k], limits)
    for i, count in enumerate(counts):
        if count > DENSE:
            (index,) = present[i].nonzero(as_tuple=True)
            kept = torchvision.ops.nms(boxes[i, index], scores[i, index], iou[i])
            keep[i, index[kept]] = True
    return keep


def _all_pairs(boxes: Tensor, present: Tensor, iou: Tensor) -> Tensor:
    """(n, k): which candidates are kept, without a loop over them.

    A candidate is kept if no kept one of a better score overlaps it. Beginning with all, that rule
    is applied until nothing changes: the i best are final after i times, and a few times do, as
    chains of overlaps are short (Zheng et al., Cluster-NMS, arXiv:2005.03572).
    """
    x1, y1, x2, y2 = boxes.unbind(2)
    area = (x2 - x1) * (y2 - y1)
    width = torch.minimum(x2[:, :, None], x2[:, None]) - torch.maximum(x1[:, :, None], x1[:, None])
    height = torch.minimum(y2[:, :, None], y2[:, None]) - torch.maximum(y1[:, :, None], y1[:, None])
    inter = width.clamp_(min=0).mul_(height.clamp_(min=0))
    overlap = inter / (area[:, :, None] + area[:, None]).sub_(inter)
    beats = (overlap > iou[:, None, None]).triu_(diagonal=1)
    keep = present
    while True:
        again = present & ~(beats & keep[:, :, None]).any(1)
        if torch.equal(again, keep):
            return keep
        keep = again
