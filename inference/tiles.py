"""Tiled prediction of large images, so that small objects are large enough to be detected.

The whole image is always predicted as well, for objects larger than a tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from formats.geometry import Outline, fill_parts, overlap, union
from inference.images import DecodedImage
from inference.prediction import Float, Prediction

OFF, AUTO = 1, 0  # special numbers of tiles: none, automatic
MOST = 8  # maximum number of tiles along the longer side
MANY_VIEWS = 4  # images of more views go one after another: a large image has up to 65
LARGE = 2.5  # AUTO tiles images whose longer side exceeds the network's input by this factor
SMALLEST = 0.5  # minimum side of a tile, as a share of the side of the network's input
OVERLAP = 0.2  # overlap of neighbouring tiles, as a share of a tile's side

SAME = 0.45  # minimum IoU, in the area common to both views, of two boxes of one object
WITHIN = 0.8  # minimum share of a cut box inside an uncut box of its class to count as its piece
STRIP = 512  # longer side, in pixels, at which the common area is drawn to compare masks
MOST_SEEN = 2000  # maximum number of predictions to merge, those of highest score
MOST_ASLANT = 8  # maximum number of neighbours whose masks are compared with a cut object's
EDGE = 0.01  # a box is cut if it ends this near to a seam, as a share of the tile's side


@dataclass(frozen=True, slots=True)
class View:
    """A rectangle of the image that is given to the network, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: DecodedImage) -> DecodedImage:
        """The part of an image inside this view; an image at a DCT scale has one view, itself."""
        if image.scale > 1:
            return image
        part = image.pixels[self.y : self.y + self.height, self.x : self.x + self.width]
        return DecodedImage.full(np.ascontiguousarray(part))

    @property
    def box(self) -> Float:
        corners = (self.x, self.y, self.x + self.width, self.y + self.height)
        return np.array(corners, np.float32)


def views(width: int, height: int, imgsz: int, tiles: int) -> list[View]:
    """The views of an image: the whole image, then square tiles that overlap by at least OVERLAP.

    Args:
        width, height: Size of the image in pixels.
        imgsz: Side of the network's input in pixels.
        tiles: Number of tiles along the longer side, 2 to MOST, but at most `most_tiles`. OFF:
            only the whole image. AUTO: for images that exceed LARGE, as many as show the image at
            its own resolution, up to MOST.
    """
    whole = View(0, 0, width, height)
    longer = max(width, height)
    if tiles == AUTO:
        if longer <= LARGE * imgsz:
            return [whole]
        tiles = min(math.ceil((longer / imgsz - OVERLAP) / (1 - OVERLAP)), MOST)
    tiles = min(tiles, most_tiles(width, height, imgsz))
    if tiles == OFF:
        return [whole]
    side = max(math.ceil(longer / (tiles - (tiles - 1) * OVERLAP)), 1)
    grid = [
        View(x, y, min(side, width), min(side, height))
        for y in _starts(height, side)
        for x in _starts(width, side)
    ]
    return [whole, *grid] if len(grid) > 1 else [whole]


def most_tiles(width: int, height: int, imgsz: int) -> int:
    """The most tiles along the longer side whose sides are at least SMALLEST of `imgsz`.

    Smaller ones would be enlarged further without showing more. OFF if there are not even two.
    """
    longer = max(width, height)
    most = math.floor((longer / (SMALLEST * imgsz) - OVERLAP) / (1 - OVERLAP) + 1e-6)
    return min(max(most, OFF), MOST)


def _starts(length: int, side: int) -> list[int]:
    count = math.ceil((length / side - OVERLAP) / (1 - OVERLAP) - 1e-6)
    if count <= 1:
        return [0]
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def merge(seen: Sequence[tuple[View, Prediction]], max_det: int) -> Prediction:
    """Merge the predictions of all views into one for the whole image.

    Two predictions of one class from different views show the same object in two cases: their
    boxes or masks have an IoU of at least SAME in the area common to both views; or a seam cuts
    one of them, and at least WITHIN of its box lies in the other, uncut one. The object is
    represented by its best uncut prediction. If all are cut, they are joined: the box around them,
    the union of their polygons, and of each keypoint the one with the highest confidence.

    Only the MOST_SEEN predictions of highest score are merged.

    Args:
        seen: The views with their predictions, in pixels of the view. The first view is the whole
            image.
        max_det: Maximum number of objects to keep.
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
    """Indices of the predictions of each object, best first.

    Grouped greedily: uncut predictions before cut ones, and by descending score.
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
    """The index in `others` (same class) of a prediction of the same object; None: a new object."""
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
    """IoU of two masks in the area common to both views. Boxes fit diagonal objects badly."""
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
    """IoU (n,) of one box with n others, each in the area common to both views."""
    common = _intersection(frames[[index]], frames[others])
    one, two = _intersection(boxes[[index]], common), _intersection(boxes[others], common)
    inter = _area(_intersection(one, two))
    return inter / np.maximum(_area(one) + _area(two) - inter, 1e-9)


def _intersection(one: Float, other: Float) -> Float:
    """Intersections (n, 4) xyxy of boxes, row by row; x2 < x1 or y2 < y1 if they are disjoint."""
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
    """The merged prediction of one object, from its `members`, best first."""
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
    """A prediction moved from pixels of its view to pixels of the image."""
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
    """The objects at the indices `rows`, in that order."""
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
    """The predictions concatenated. They are of one model, so they have the same fields."""
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
