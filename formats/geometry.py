"""Geometry of boxes, rings and masks, in pixels.

A ring is an (n, 2) array of xy, a mask an (h, w) array of booleans. A pixel is a unit square;
pixel (0, 0) has its corner at the origin and its centre at 0.5, 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from errors import ValidationFailed
from formats.annotations import AnnotationPart, Point, Ring, ring

Float = NDArray[np.float32]


EPS = np.float32(1e-7)


def box_iou(objects: Float, detections: Float) -> Float:
    """IoU (m, n) of boxes (m, 4) and (n, 4), xyxy in one frame."""
    low = np.maximum(objects[:, None, :2], detections[None, :, :2])
    high = np.minimum(objects[:, None, 2:], detections[None, :, 2:])
    size = np.maximum(high - low, 0)
    both = size[..., 0] * size[..., 1]
    areas = box_area(objects)[:, None] + box_area(detections)[None]
    return both / (areas - both + EPS)


def box_area(boxes: Float) -> Float:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


Points = NDArray[np.float32]
Mask = NDArray[np.bool_]
MOST_PIXELS = 2**26  # limit for a mask in a document; outlining needs up to 17 bytes each

FRAME = 384  # pixels of a ring's longer side when it is rasterised to measure IoU
# Douglas–Peucker tolerances as fractions of the longer side, and their number
COARSEST, FINEST, STEPS = 0.3, 0.0008, 32
UNION_FRAME = 1024
ELLIPSE = 72  # corners of an ellipse's ring; a multiple of four, so that its box is exact
MOST_PAIRS = 2**28  # pairs of vertices; rings with more are joined without a search for the nearest
PAIRS = 2**20  # maximum number of pairs of vertices that are compared at once
MOST_RINGS = 20_000  # maximum number of rings in one polygon of a document
TESTED = 256  # maximum number of vertices of a ring that are tested for lying in another ring
COMPARISONS = 100_000  # maximum comparisons of a vertex with an edge, per vertex of a polygon
CALL = 1000  # comparisons in the time that the call of OpenCV takes

KEPT_IOU = 0.985  # IoU of a simplified ring with the original
MOST_VERTICES = 40  # maximum number of vertices of a simplified ring; takes precedence over the IoU


class Outline(NamedTuple):
    """A connected piece of a mask."""

    outer: Points
    holes: tuple[Points, ...] = ()


def as_outlines(parts: Iterable[AnnotationPart]) -> list[Outline]:
    """The parts of an annotation with their rings as arrays."""
    return [
        Outline(
            np.array(part.outline, np.float32),
            tuple(np.array(hole, np.float32) for hole in part.holes),
        )
        for part in parts
    ]


def turned(ring: Iterable[Point], around: Point, turn: float) -> Ring:
    """The ring rotated clockwise (with y downwards) around a point, by `turn` radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = around
    moved = ((a - x, b - y) for a, b in ring)
    return tuple((x + a * cos - b * sin, y + a * sin + b * cos) for a, b in moved)


def rectangle(x1: float, y1: float, x2: float, y2: float) -> Ring:
    """The corners of a box, clockwise from the upper left one."""
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def ellipse(x: float, y: float, rx: float, ry: float) -> Ring:
    """A ring on an ellipse around x, y, with the ellipse's bounding box and 0.9987 of its area."""
    turns = (2 * math.pi * index / ELLIPSE for index in range(ELLIPSE))
    return tuple((x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns)


def area(points: NDArray[np.floating]) -> float:
    """The signed area of a ring: positive if it runs clockwise (with y downwards)."""
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def offset(points: Points, distance: float) -> Points:
    """The ring with every edge moved outwards by `distance` pixels; mitred corners (limit 2)."""
    along = np.roll(points, -1, axis=0) - points
    lengths = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
    normals = np.stack((along[:, 1], -along[:, 0]), axis=1) / lengths[:, None]
    if area(points) < 0:
        normals = -normals
    before = np.roll(normals, 1, axis=0)
    mitre = (normals + before) / np.maximum(1 + (normals * before).sum(axis=1), 0.5)[:, None]
    return (points + np.float32(distance) * mitre).astype(np.float32)


def fill(rings: Iterable[NDArray[np.floating]], width: int, height: int) -> Mask:
    """The pixels whose centres lie inside an odd number of rings (the even-odd rule)."""
    crossings = np.zeros((height, width + 1), np.uint8)  # only the parity matters
    for points in rings:
        x1, y1 = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
        x2, y2 = np.roll(x1, -1), np.roll(y1, -1)
        first = np.clip(np.ceil(np.minimum(y1, y2) - 0.5), 0, height).astype(np.int64)
        last = np.clip(np.ceil(np.maximum(y1, y2) - 0.5), 0, height).astype(np.int64)
        counts = last - first  # number of rows that each edge crosses
        edges = np.repeat(np.arange(len(points)), counts)
        rows = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edges]
        share = (rows + 0.5 - y1[edges]) / (y2 - y1)[edges]
        columns = np.ceil(x1[edges] + share * (x2 - x1)[edges] - 0.5)
        np.add.at(crossings, (rows, np.clip(columns, 0, width).astype(np.int64)), 1)
    np.cumsum(crossings, axis=1, dtype=np.uint8, out=crossings)
    return (crossings[:, :width] & 1).astype(bool)


def fill_parts(parts: Iterable[Outline], width: int, height: int) -> Mask:
    """The mask of the union of all parts. Parts may overlap; a hole affects only its own part."""
    mask = np.zeros((height, width), bool)
    for part in parts:
        mask |= fill((part.outer, *part.holes), width, height)
    return mask


def contours(mask: NDArray[np.uint8]) -> list[tuple[NDArray[np.int32], list[NDArray[np.int32]]]]:
    """Each connected piece's outer contour and those of its holes, (n, 1, 2) pixel indices.

    They run through the centres of the mask's border pixels, so that of a hole runs half a pixel
    outside it.
    """
    found, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tree is None:
        return []
    pieces: dict[int, tuple[NDArray[np.int32], list[NDArray[np.int32]]]] = {}
    for index, (_, _, _, parent) in enumerate(tree[0]):
        if parent < 0:
            pieces[index] = (np.asarray(found[index], np.int32), [])
    for index, (_, _, _, parent) in enumerate(tree[0]):
        if parent >= 0:
            pieces[int(parent)][1].append(np.asarray(found[index], np.int32))
    return list(pieces.values())


def outlines(
    mask: Mask, xs: NDArray[np.int64] | None = None, ys: NDArray[np.int64] | None = None
) -> list[Outline]:
    """The outlines of a mask along the edges of its pixels, largest first.

    They are exact: `fill_parts` restores the mask.

    Args:
        mask: Boolean mask (h, w).
        xs, ys: Coordinates of the edges of its columns (w + 1,) and rows (h + 1,), if these stand
            for several pixels each; default: 0, 1, 2, …
    """
    xs = np.arange(mask.shape[1] + 1) if xs is None else xs
    ys = np.arange(mask.shape[0] + 1) if ys is None else ys
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return []
    drawn = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Equal rows and columns side by side are drawn as one: a few run lengths may be 60 million
    # pixels, which take a gigabyte when they are enlarged.
    down = np.concatenate(([0], np.flatnonzero((drawn[1:] != drawn[:-1]).any(axis=1)) + 1))
    drawn = drawn[down]
    across = np.concatenate(([0], np.flatnonzero((drawn[:, 1:] != drawn[:, :-1]).any(axis=0)) + 1))
    small = drawn[:, across].astype(np.uint8)
    ys = ys[np.append(rows[0] + down, rows[-1] + 1)]
    xs = xs[np.append(columns[0] + across, columns[-1] + 1)]
    # Enlarged four times, every contour pixel is nearest to the pixel corner that it belongs to.
    large = np.repeat(np.repeat(small, 4, axis=0), 4, axis=1)
    found, tree = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    corners = (np.rint((c.reshape(-1, 2) + 0.5) / 4).astype(np.intp) for c in found)
    rings = [_corners(np.stack((xs[c[:, 0]], ys[c[:, 1]]), axis=1)) for c in corners]
    holes: dict[int, list[Points]] = {}
    for index, (_, _, _, parent) in enumerate(tree[0]):
        if parent >= 0:
            holes.setdefault(int(parent), []).append(rings[index])
    pieces = [
        Outline(rings[index], tuple(holes.get(index, ())))
        for index, (_, _, _, parent) in enumerate(tree[0])
        if parent < 0
    ]
    return sorted(pieces, key=lambda piece: -abs(area(piece.outer)))


def _corners(points: NDArray[np.floating]) -> Points:
    """The ring without repeated points and points on a straight line."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0
    return points[turns | back].astype(np.float32)


def simplify(points: Points, iou: float = KEPT_IOU, vertices: int = MOST_VERTICES) -> Points:
    """A simplified ring: the fewest vertices that reach the IoU `iou`, at most `vertices`.

    Uses Douglas–Peucker with a tolerance found by bisection. Its vertices are on the ring, so it
    cuts off convex bulges; the result is offset outwards to restore the ring's area. If
    `vertices` do not reach `iou`, the limit on vertices takes precedence.
    """
    if len(points) <= 4:
        return points
    low = points.min(axis=0)
    side = float((points.max(axis=0) - low).max())
    if side <= 0:
        return points
    scale = FRAME / side
    framed = ((points - low) * scale + 2).astype(np.float32)
    width, height = (math.ceil(value) + 4 for value in (framed.max(axis=0) - 2))
    whole = fill([framed], width, height)
    tolerances = np.geomspace(COARSEST, FINEST, STEPS) * FRAME

    def at(step: int) -> Points:
        return _douglas_peucker(framed, float(tolerances[step]))

    def good(step: int) -> bool:
        tried = at(step)
        return len(tried) >= 3 and overlap(fill([tried], width, height), whole) >= iou

    step = _first(STEPS - 1, good)
    if len(at(step)) > vertices:  # the last step with at most `vertices`
        step = max(_first(STEPS - 1, lambda s: len(at(s)) > vertices) - 1, 0)
    chosen = at(step)
    if len(chosen) < 3 or len(chosen) >= len(points):
        return points
    return ((chosen - 2) / scale + low).astype(np.float32)


def _first(last: int, holds: Callable[[int], bool]) -> int:
    """The first step that holds, by bisection; later ones must hold too. `last` if none does."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _douglas_peucker(points: Points, tolerance: float) -> Points:
    found = cv2.approxPolyDP(points.reshape(-1, 1, 2), tolerance, True)
    kept: Points = np.asarray(found, np.float32).reshape(-1, 2)
    if len(kept) < 3:
        return kept
    around = np.hypot(*(np.roll(kept, -1, axis=0) - kept).T).sum()
    missing = abs(area(points)) - abs(area(kept))
    limit = 2 * tolerance
    return offset(kept, float(np.clip(missing / around, -limit, limit)))


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union; 1 of two empty masks."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def union(parts: Sequence[Outline]) -> list[Outline]:
    """The outlines of the union of the parts, largest first, accurate to about 1/1000 of it."""
    if len(parts) < 2:
        return list(parts)
    corners = np.concatenate([part.outer for part in parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    side = float((high - low).max())
    if side <= 0:
        return list(parts[:1])
    scale = UNION_FRAME / side
    moved = [
        Outline((p.outer - low) * scale, tuple((hole - low) * scale for hole in p.holes))
        for p in parts
    ]
    width, height = (math.ceil(value) + 1 for value in (high - low) * scale)

    def back(points: Points) -> Points:
        smooth = cv2.approxPolyDP(points.reshape(-1, 1, 2), 1.0, True).reshape(-1, 2)
        chosen = smooth if len(smooth) >= 3 else points
        return (chosen / scale + low).astype(np.float32)

    found = outlines(fill_parts(moved, width, height))
    return [Outline(back(p.outer), tuple(back(hole) for hole in p.holes)) for p in found]


def bridge(rings: Sequence[Ring]) -> Ring:
    """Joins rings into one: it goes to the nearest vertex of the next ring, around it, and back.

    By the even-odd rule it encloses the same area; `unbridge` restores the rings. Very many
    vertices are joined at the first vertex of each ring, since the search takes quadratic time.

    Raises:
        ValidationFailed: There are more than MOST_RINGS rings, which `unbridge` would refuse.
    """
    joined = list(rings[0])
    if len(rings) == 1:
        return tuple(joined)
    if len(rings) > MOST_RINGS:
        raise ValidationFailed(
            f"An object has {len(rings)} parts and holes; at most {MOST_RINGS} can be joined into "
            "one polygon. Divide it into several objects."
        )
    total = sum(map(len, rings))
    if total * (total // 2 + len(rings)) > MOST_PAIRS:
        others = (point for each in rings[1:] for point in (*each, each[0], joined[0]))
        return (joined[0], *others, *joined[1:])
    points = np.concatenate([np.array(each, np.float64) for each in rings[1:]])
    starts = np.cumsum([0, *map(len, rings[1:])])
    owner = np.repeat(np.arange(len(rings) - 1), np.diff(starts))
    best, here = _nearest(rings[0], points)
    while np.isfinite(best).any():  # Prim's algorithm: only the ring joined last is compared
        chosen = int(best.argmin())
        number, at = int(owner[chosen]), int(here[chosen])
        nearest, there = rings[number + 1], chosen - int(starts[number])
        around = (*nearest[there:], *nearest[: there + 1])
        joined[at + 1 : at + 1] = (*around, joined[at])
        here[here > at] += len(around) + 1
        best[owner == number] = np.inf
        left = np.flatnonzero(np.isfinite(best))
        distances, vertices = _nearest(around, points[left])
        nearer = distances < best[left]
        best[left[nearer]] = distances[nearer]
        here[left[nearer]] = at + 1 + vertices[nearer]
    return tuple(joined)


def _nearest(
    vertices: Sequence[Point], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each point the squared distance to the nearest vertex, and the index of that vertex."""
    best = np.full(len(points), np.inf)
    index = np.zeros(len(points), np.int64)
    step = max(PAIRS // max(len(points), 1), 1)
    array = np.array(vertices, np.float64)
    for start in range(0, len(array), step):
        some = array[start : start + step]
        distances = (some[:, :1] - points[:, 0]) ** 2 + (some[:, 1:] - points[:, 1]) ** 2
        found = distances.argmin(axis=0)
        least = distances[found, np.arange(len(points))]
        nearer = least < best
        best[nearer], index[nearer] = least[nearer], start + found[nearer]
    return best, index


def clip(points: Ring, width: float, height: float) -> Ring:
    """The part of a ring inside an image (Sutherland–Hodgman); empty if there is none.

    Pieces that the image's edge separates stay joined along the edge.
    """
    for axis, limit, keep in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        kept: list[Point] = []
        for before, point in pairwise((*points[-1:], *points)):
            inside = (point[axis] - limit) * keep >= 0
            if inside != ((before[axis] - limit) * keep >= 0):
                share = (limit - before[axis]) / (point[axis] - before[axis])
                other = before[1 - axis] + share * (point[1 - axis] - before[1 - axis])
                kept.append((other, limit) if axis else (limit, other))
            if inside:
                kept.append(point)
        points = tuple(kept)
    return points if len(points) >= 3 else ()


def unbridge(points: Sequence[Point]) -> tuple[AnnotationPart, ...]:
    """The parts and holes that `bridge` joined into a ring; a plain ring is one part.

    Raises:
        ValidationFailed: There are more parts and holes than MOST_RINGS, or they are nested so
            deeply that to compare them would take too long.
    """
    return nested(_rings_of(ring(points)))


def _rings_of(joined: Ring) -> list[Ring]:
    """The rings that `bridge` joined, the outermost first.

    A bridge is an edge that a later edge repeats in the opposite direction, with a ring between
    them. Such a ring is cut out as soon as its bridge ends, so each corner is visited once.
    """
    outer: list[Point] = []
    inner: list[Ring] = []
    edges: dict[tuple[Point, Point], int] = {}  # edge → index of its first corner, in `outer`
    for position, point in enumerate(joined):
        if outer:
            index = len(outer) - 1
            start = edges.get((point, outer[-1]))
            between = index - start - 1 if start is not None else 0
            rest = len(outer) + len(joined) - position - between - 2
            if start is not None and between >= 3 and rest >= 3:
                inner.append(tuple(outer[start + 1 : index]))
                for edge in pairwise(outer[start:]):
                    if edges.get(edge, -1) >= start:
                        del edges[edge]
                del outer[start + 1 :]
                continue
            edges.setdefault((outer[-1], point), index)
        outer.append(point)
    return [tuple(outer), *reversed(inner)]


def nested(rings: Sequence[Ring]) -> tuple[AnnotationPart, ...]:
    """Groups rings into parts, largest first; a ring inside a part becomes its hole.

    Raises:
        ValidationFailed: As `unbridge`.
    """
    if len(rings) > MOST_RINGS:
        raise ValidationFailed(
            f"A polygon has {len(rings)} parts and holes; at most {MOST_RINGS}. Divide it into "
            "several objects."
        )
    arrays = [np.array(points, np.float32) for points in rings]
    order = sorted(range(len(rings)), key=lambda index: -abs(area(arrays[index])))
    lows = np.array([arrays[index].min(axis=0) for index in order])
    highs = np.array([arrays[index].max(axis=0) for index in order])
    is_outer = np.zeros(len(rings), bool)
    owner = np.full(len(rings), -1)  # place in `order` of the part that a hole belongs to
    left = COMPARISONS * sum(map(len, rings))

    def around(place: int, among: NDArray[np.bool_]) -> Iterator[int]:
        """The places of the larger rings of `among` that this ring lies in, smallest first."""
        nonlocal left
        boxes = (lows[:place] <= lows[place]) & (highs[:place] >= highs[place])
        for other in np.flatnonzero(among[:place] & boxes.all(axis=1))[::-1].tolist():
            sample = arrays[order[place]]
            sample = sample[:: -(-len(sample) // TESTED)]
            larger = arrays[order[other]]
            left -= len(sample) * (len(larger) + CALL)
            if left < 0:
                raise ValidationFailed(
                    "A polygon has too many parts and holes inside each other. Divide it into "
                    "several objects."
                )
            if _within(sample, larger):
                yield other

    for place in range(len(order)):
        part = next(around(place, is_outer), None)
        if part is None or next(around(place, owner == part), None) is not None:
            is_outer[place] = True
        else:
            owner[place] = part
    holes: dict[int, list[Ring]] = {}
    for place in np.flatnonzero(owner >= 0).tolist():
        holes.setdefault(int(owner[place]), []).append(rings[order[place]])
    return tuple(
        AnnotationPart(rings[order[place]], tuple(holes.get(place, ())))
        for place in np.flatnonzero(is_outer).tolist()
    )


def _within(inner: Points, around: Points) -> bool:
    contour = around.reshape(-1, 1, 2)
    return all(cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0 for x, y in inner)
