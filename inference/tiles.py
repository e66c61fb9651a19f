"""Tiled prediction of large images, so that small objects are large enough to be detected.

The whole image is always predicted as well, for objects larger than a tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from formats.geometry import Outline, fill_parts, overlap, union
from inference.images import Pixels
from inference.prediction import Float, Prediction

OFF, AUTO = 1, 0  # for the number of tiles along the longer side
MOST = 8  # along the longer side
LARGE = 2.5  # times the network's input: images with a longer side are tiled by AUTO
OVERLAP = 0.2  # of a tile with the next

SAME = 0.45  # IoU, within what both views see, from which two boxes of a class are one object
WITHIN = 0.8  # share of a cut box that lies in an uncut one of its class, whose piece it is then
STRIP = 512  # pixels that what two views share is drawn with, to compare masks
MOST_SEEN = 2000  # predictions of all views that are compared, the best
MOST_ASLANT = 8  # neighbours whose masks are compared with a cut one's, those that share most
EDGE = 0.01  # of a tile's side: a box that ends as near to a seam as this is cut by it


@dataclass(frozen=True, slots=True)
class View:
    """A rectangle of the image that is given to the network, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, pixels: Pixels) -> Pixels:
        """Its part of an image (h, w, 3), not copied."""
        return pixels[self.y : self.y + self.height, self.x : self.x + self.width]

    @property
    def box(self) -> Float:
        corners = (self.x, self.y, self.x + self.width, self.y + self.height)
        return np.array(corners, np.float32)


def views(width: int, height: int, imgsz: int, tiles: int) -> list[View]:
    """The whole image first, then its tiles, squares that overlap by OVERLAP at least.

    Args:
        width, height: Of the image.
        imgsz: Side of the network's input.
        tiles: Along the longer side, 2 to MOST. OFF: none. AUTO: as many as show the image
            at its own resolution, but MOST, where that is LARGE.
    """
    whole = View(0, 0, width, height)
    longer = max(width, height)
    if tiles == AUTO:
        if longer <= LARGE * imgsz:
            return [whole]
        tiles = min(math.ceil((longer / imgsz - OVERLAP) / (1 - OVERLAP)), MOST)
    if tiles == OFF:
        return [whole]
    side = max(math.ceil(longer / (tiles - (tiles - 1) * OVERLAP)), 1)
    grid = [
        View(x, y, min(side, width), min(side, height))
        for y in _starts(height, side)
        for x in _starts(width, side)
    ]
    return [whole, *grid] if len(grid) > 1 else [whole]


def _starts(length: int, side: int) -> list[int]:
    count = math.ceil((length / side - OVERLAP) / (1 - OVERLAP) - 1e-6)
    if count <= 1:
        return [0]
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def merge(seen: Sequence[tuple[View, Prediction]], max_det: int) -> Prediction:
    """One prediction of the whole image, which is the first view.

    Two predictions of a class from different views are one object if their boxes, or their
    masks, overlap by SAME within what both views see, or if a seam cuts one of them and it lies
    WITHIN the other. Of those that no seam cuts the best one stands for it; only
    where all are cut they are joined: the box around them, the union of their polygons, of each
    keypoint the most certain.

    Args:
        seen: Views with what was found in them, in their own pixels.
        max_det: How many objects to keep at most.

    Of more than MOST_SEEN predictions the best are looked at.
    """
    moved = [_moved(prediction, view, seen[0][0]) for view, prediction in seen]
    every = _joined(moved)
    if len(seen) == 1 or not len(every):
        return every
    frames = np.repeat(np.stack([view.box for view, _ in seen]), list(map(len, moved)), axis=0)
    origin = np.repeat(np.arange(len(seen)), list(map(len, moved)))
    if len(every) > MOST_SEEN:
        best = np.sort(np.argsort(-every.scores, kind="stable")[:MOST_SEEN])
        every, frames, origin = _chosen(every, best), frames[best], origin[best]
    cut = _cut(every.boxes, frames, seen[0][0])
    objects = _group(every, frames, origin, cut)
    made = _joined([_made(every, members, cut) for members in objects])
    order = np.argsort(-made.scores, kind="stable")[:max_det]
    return _chosen(made, order)


def _group(
    every: Prediction, frames: Float, origin: np.ndarray, cut: np.ndarray
) -> list[list[int]]:
    """Which predictions are one object, the best first.

    Found greedily: those that no seam cuts before the others, better ones first.
    """
    objects: list[list[int]] = []
    owner = np.zeros(len(every), np.int64)
    order = np.lexsort((-every.scores, cut))
    for cls in np.unique(every.class_ids):
        placed = order[every.class_ids[order] == cls]
        for count, index in enumerate(map(int, placed)):
            others = placed[:count]
            others = others[origin[others] != origin[index]]
            match = _match(index, others, every, frames, cut)
            if match is None:
                objects.append([])
            owner[index] = len(objects) - 1 if match is None else owner[match]
            objects[owner[index]].append(index)
    return objects


def _match(
    index: int,
    others: np.ndarray,
    every: Prediction,
    frames: Float,
    cut: np.ndarray,
) -> int | None:
    """The one of `others`, of its class, that shows the same object; None: it is a new one."""
    inter = _area(_intersection(every.boxes[[index]], every.boxes[others]))
    others, inter = others[inter > 0], inter[inter > 0]
    if not len(others):
        return None
    overlaps = _overlaps(index, others, every.boxes, frames)
    if overlaps.max() >= SAME or not cut[index]:
        return int(others[overlaps.argmax()]) if overlaps.max() >= SAME else None
    within = inter / max(float(_area(every.boxes[[index]])[0]), 1e-9)
    within = np.where(cut[others], 0, within)
    if within.max() >= WITHIN:
        return int(others[within.argmax()])
    for place in np.argsort(-inter)[:MOST_ASLANT] if every.polygons is not None else ():
        if _mask_overlap(every, frames, index, int(others[place])) >= SAME:
            return int(others[place])
    return None


def _mask_overlap(every: Prediction, frames: Float, one: int, other: int) -> float:
    """IoU of two masks within what both views see: boxes say little of what lies aslant."""
    frame = _intersection(frames[[one]], frames[[other]])[0]
    low, size = frame[:2], frame[2:] - frame[:2]
    scale = min(STRIP / float(size.max()), 1.0)
    width, height = (max(math.ceil(side * scale), 1) for side in size)
    masks = [
        fill_parts(
            [
                Outline((p.outer - low) * scale, tuple((hole - low) * scale for hole in p.holes))
                for p in every.outlines(index)
            ],
            width,
            height,
        )
        for index in (one, other)
    ]
    return overlap(*masks) if masks[0].any() else 0.0


def _overlaps(index: int, others: np.ndarray, boxes: Float, frames: Float) -> np.ndarray:
    """IoU of one box with others, each pair within what both views see."""
    common = _intersection(frames[[index]], frames[others])
    one, two = _intersection(boxes[[index]], common), _intersection(boxes[others], common)
    inter = _area(_intersection(one, two))
    return inter / np.maximum(_area(one) + _area(two) - inter, 1e-9)


def _intersection(one: Float, other: Float) -> Float:
    """Of boxes (n, 4) xyxy; inside out where there is none."""
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    return np.concatenate((low, high), axis=1)


def _area(boxes: Float) -> Float:
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return size[:, 0] * size[:, 1]


def _cut(boxes: Float, frames: Float, whole: View) -> np.ndarray:
    """Whether each box ends at a seam: an edge of its view inside the image."""
    margin = np.maximum(EDGE * (frames[:, 2:] - frames[:, :2]).max(axis=1), 2)[:, None]
    inner = np.concatenate((frames[:, :2] > 0, frames[:, 2:] < (whole.width, whole.height)), axis=1)
    near = np.abs(boxes - frames) <= margin
    return (inner & near).any(axis=1)


def _made(every: Prediction, members: list[int], cut: np.ndarray) -> Prediction:
    """What stands for an object."""
    best = members[0]
    chosen = _chosen(every, np.array([best]))
    if not cut[best] or len(members) == 1:
        return chosen
    boxes = every.boxes[members]
    box = np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))
    polygons, holes, keypoints = chosen.polygons, chosen.holes, chosen.keypoints
    if every.polygons is not None:
        parts: list[Outline] = union([part for i in members for part in every.outlines(i)])
        polygons = (tuple(part.outer for part in parts),)
        holes = (tuple(part.holes for part in parts),)
    if every.keypoints is not None:
        points = every.keypoints[members]
        surest = points[..., 2].argmax(axis=0)
        keypoints = points[surest, np.arange(points.shape[1])][None]
    return replace(chosen, boxes=box[None], polygons=polygons, holes=holes, keypoints=keypoints)


def _moved(prediction: Prediction, view: View, whole: View) -> Prediction:
    """From a view's pixels to the image's."""
    shift = np.array((view.x, view.y), np.float32)
    polygons, holes, keypoints = prediction.polygons, prediction.holes, prediction.keypoints
    if polygons is not None:
        polygons = tuple(tuple(part + shift for part in parts) for parts in polygons)
    if holes is not None:
        holes = tuple(
            tuple(tuple(hole + shift for hole in rings) for rings in parts) for parts in holes
        )
    if keypoints is not None:
        keypoints = np.concatenate((keypoints[..., :2] + shift, keypoints[..., 2:]), axis=-1)
    return replace(
        prediction,
        width=whole.width,
        height=whole.height,
        boxes=prediction.boxes + np.tile(shift, 2),
        polygons=polygons,
        holes=holes,
        keypoints=keypoints,
    )


def _chosen(prediction: Prediction, rows: np.ndarray) -> Prediction:
    """Some of its objects, in that order."""
    polygons, holes, keypoints = prediction.polygons, prediction.holes, prediction.keypoints
    return replace(
        prediction,
        class_ids=prediction.class_ids[rows],
        scores=prediction.scores[rows],
        boxes=prediction.boxes[rows],
        polygons=None if polygons is None else tuple(polygons[i] for i in rows),
        holes=None if holes is None else tuple(holes[i] for i in rows),
        keypoints=None if keypoints is None else keypoints[rows],
    )


def _joined(found: Sequence[Prediction]) -> Prediction:
    """The objects of all, one after the other; of one model, so alike in what they have."""
    first = found[0]
    polygons, holes, keypoints = first.polygons, first.holes, first.keypoints
    if polygons is not None:
        polygons = tuple(parts for one in found for parts in one.polygons or ())
    if holes is not None:
        holes = tuple(rings for one in found for rings in one.holes or ())
    if keypoints is not None:
        keypoints = np.concatenate([one.keypoints for one in found if one.keypoints is not None])
    return replace(
        first,
        class_ids=np.concatenate([one.class_ids for one in found]),
        scores=np.concatenate([one.scores for one in found]),
        boxes=np.concatenate([one.boxes for one in found]),
        polygons=polygons,
        holes=holes,
        keypoints=keypoints,
    )
