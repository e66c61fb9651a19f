"""Conversion of the raw network outputs for one image to a `Prediction`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from formats.geometry import Outline, area, contours, offset
from inference.nms import non_max_suppression
from inference.prediction import Float, Int, Prediction
from inference.preprocess import Letterbox
from models_store.description import ModelDescription

MAX_DET = 300  # default maximum number of detections per image
TOP_CLASSES = 5  # default number of classes that a classifier returns

MASK_SCALE_MAX = 16  # maximum upscaling of the prototypes: to 2560 pixels for an input of 640
MASK_SIDE = 512  # minimum length of a mask's longer side in pixels, within MASK_SCALE_MAX
MASK_PIXELS = 64_000_000  # maximum number of pixels of all masks of an image together
SIMPLIFY = 0.001  # Douglas–Peucker tolerance as a share of the contour's length
SIMPLIFY_PIXELS = 0.3  # minimum of that tolerance, in pixels of the image
SPECK = 0.01  # parts and holes smaller than this share of the largest part are noise

Outputs = Sequence[Float]
Contour = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Which candidates of a detector's output count; see `nms.non_max_suppression`."""

    confidence: float
    iou: float
    max_det: int
    classes: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        description: ModelDescription,
        confidence: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        classes: Sequence[int] | None = None,
    ) -> Thresholds:
        """The given thresholds; None means the model's default."""
        return cls(
            description.confidence if confidence is None else confidence,
            description.iou if iou is None else iou,
            MAX_DET if max_det is None else max_det,
            None if classes is None else tuple(classes),
        )


@dataclass(frozen=True, slots=True)
class MaskLogits:
    """The masks of the instances of one image, which are where their logits are positive.

    Attributes:
        grid: Rows and columns of the mask prototypes.
        windows: (n, 4) left, top, right, bottom: the part that each instance needs.
        logits: Of each instance (bottom - top, right - left).
    """

    grid: tuple[int, int]
    windows: Int
    logits: tuple[Float, ...]


@dataclass(frozen=True, slots=True)
class Detections:
    """What is left of a detector's output for one image, in pixels of the network's input.

    Attributes:
        boxes: (n, 4) xyxy.
        scores: (n,) descending.
        class_ids: (n,).
        extra: (n, k·d) keypoints of pose models; (n, nm) mask coefficients of segmentation.
        masks: None unless segmentation.
    """

    boxes: Float
    scores: Float
    class_ids: Int
    extra: Float
    masks: MaskLogits | None = None


Found = Outputs | Detections
"""What an engine returns for one image: the raw outputs, or what is left of them."""


def postprocess(
    outputs: Found,
    description: ModelDescription,
    place: Letterbox,
    *,
    confidence: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
    classes: Sequence[int] | None = None,
) -> Prediction:
    """Convert what an engine found to a prediction for the image that was prepared with `place`.

    Raw outputs have no batch dimension. To detections the thresholds were already applied. A
    threshold of None means the model's default. A classifier
    returns its `max_det` best classes (default 5), filtered by `confidence` only if that is given.
    With `classes`, only predictions of these class ids count and are returned; probabilities stay
    as they are.
    """
    if not isinstance(outputs, Detections):
        if description.task == "classify":
            return _classify(outputs[0], description, place, confidence or 0.0, max_det, classes)
        wanted = Thresholds.of(description, confidence, iou, max_det, classes)
        outputs = _detections(outputs, description, place, wanted)

    boxes, scores, class_ids = outputs.boxes, outputs.scores, outputs.class_ids
    polygons, holes, keypoints = None, None, None
    if outputs.masks is not None:
        masks = mask_outlines(outputs.masks, boxes, place)
        seen = np.array([bool(parts) for parts in masks], bool)  # empty masks are dropped
        boxes, scores, class_ids = boxes[seen], scores[seen], class_ids[seen]
        polygons = tuple(tuple(part.outer for part in parts) for parts in masks if parts)
        holes = tuple(tuple(part.holes for part in parts) for parts in masks if parts)
    elif description.task == "pose":
        keypoints = _keypoints(outputs.extra, description, place)
    return Prediction(
        task=description.task,
        names=description.names,
        width=place.width,
        height=place.height,
        class_ids=class_ids,
        scores=scores,
        boxes=place.boxes_to_image(boxes),
        polygons=polygons,
        holes=holes,
        keypoints=keypoints,
        keypoint_names=description.keypoint_names if keypoints is not None else None,
    )


def _detections(
    outputs: Outputs, description: ModelDescription, place: Letterbox, wanted: Thresholds
) -> Detections:
    """The detections in raw outputs, in NumPy; `inference.gpu` finds the same on the device."""
    nc = len(description.names)
    found = non_max_suppression(
        outputs[0], nc, wanted.confidence, wanted.iou, wanted.max_det, classes=wanted.classes
    )
    if description.task != "segment":
        return Detections(*found)
    return Detections(*found, mask_logits(outputs[1], found[3], found[0], place))


def _classify(
    probabilities: Float,
    description: ModelDescription,
    place: Letterbox,
    confidence: float,
    max_det: int | None,
    classes: Sequence[int] | None,
) -> Prediction:
    best = np.argsort(-probabilities, kind="stable")
    if classes is not None:
        best = best[np.isin(best, classes)]
    best = best[: max_det or TOP_CLASSES]
    best = best[probabilities[best] >= confidence]
    return Prediction(
        task="classify",
        names=description.names,
        width=place.width,
        height=place.height,
        class_ids=best,
        scores=probabilities[best],
        boxes=np.zeros((0, 4), np.float32),
    )


def _keypoints(extra: Float, description: ModelDescription, place: Letterbox) -> Float:
    """Maps keypoints (n, k·d) from the network input to the image: (n, k, 3) x, y, visibility.

    Visibility is 1 if the network does not return it (d = 2).
    """
    if description.keypoint_shape is None:
        raise ValueError("A pose model's description needs keypoint_shape.")
    points = extra.reshape(len(extra), *description.keypoint_shape)
    xy = place.points_to_image(points[..., :2])
    visible = points[..., 2:3] if points.shape[-1] == 3 else np.ones_like(points[..., :1])
    return np.concatenate((xy, visible), axis=-1)


def mask_windows(boxes: Float, place: Letterbox, grid: tuple[int, int]) -> Int:
    """The part of the mask prototypes that each instance needs: (n, 4) left, top, right, bottom.

    These are the cells that the box touches inside the image, and one more on each side to
    interpolate at its edges. It may be empty.
    """
    spans, (rows, columns) = _spans(boxes, place, grid), grid
    low = np.maximum(np.floor(spans[:, :2]).astype(np.int64) - 1, 0)
    high = np.minimum(np.ceil(spans[:, 2:]).astype(np.int64) + 1, (columns, rows))
    return np.concatenate((low, np.maximum(low, high)), axis=1)


def _spans(boxes: Float, place: Letterbox, grid: tuple[int, int]) -> NDArray[np.floating]:
    """The boxes (n, 4) xyxy, cut to the image without the padding, in cells of the prototypes."""
    picture = (*place.offset, *np.add(place.offset, place.resized))
    inside = np.clip(boxes, np.tile(picture[:2], 2), np.tile(picture[2:], 2))
    return np.divide(inside, np.float32(_cells(place, grid)))


def _cells(place: Letterbox, grid: tuple[int, int]) -> float:
    """The side of a cell of the prototypes in pixels of the network's input."""
    return place.frame[0] / grid[1]


def mask_logits(protos: Float, coefficients: Float, boxes: Float, place: Letterbox) -> MaskLogits:
    """The sum of the prototypes weighted by the coefficients of each instance, in its window.

    Args:
        protos: (nm, h/4, w/4) mask prototypes, for a network input of w × h pixels.
        coefficients: (n, nm) mask coefficients.
        boxes: (n, 4) xyxy in pixels of the network's input.
        place: Letterbox of the image in the network's input.
    """
    rows, columns = protos.shape[1:]
    logits = (coefficients @ protos.reshape(len(protos), -1)).reshape(-1, rows, columns)
    windows = mask_windows(boxes, place, (rows, columns))
    cut = (
        whole[top:bottom, left:right]
        for whole, (left, top, right, bottom) in zip(logits, windows.tolist(), strict=True)
    )
    return MaskLogits((rows, columns), windows, tuple(cut))


def mask_outlines(
    masks: MaskLogits, boxes: Float, place: Letterbox
) -> tuple[tuple[Outline, ...], ...]:
    """The outlines of each instance's mask, in pixels of the image.

    As in Ultralytics' `process_mask(upsample=True)`, the logits are scaled up bilinearly; the mask
    is where they are positive, inside the box and the image. Each mask is computed within its box
    only, at about the resolution of the image, bounded by MASK_SCALE_MAX and MASK_PIXELS.

    Args:
        masks: As by `mask_logits`.
        boxes: (n, 4) xyxy in pixels of the network's input.
        place: Letterbox of the image in the network's input.

    Returns:
        The parts of each instance, the largest first; an empty tuple for an empty mask.
    """
    if not len(boxes):
        return ()
    spans, grid = _spans(boxes, place, masks.grid), masks.grid
    areas = (spans[:, 2] - spans[:, 0]) * (spans[:, 3] - spans[:, 1])
    scale = _mask_scale(max(place.width, place.height) / max(grid), float(areas.sum()))
    corners = masks.windows[:, :2].tolist()
    cells = _cells(place, grid)
    return tuple(
        _outlines(logits, (left, top), span, max(scale, _fine_scale(span)), cells, place)
        for logits, (left, top), span in zip(masks.logits, corners, spans, strict=True)
    )


def _mask_scale(wanted: float, area: float) -> int:
    """The integer factor by which to scale the prototypes up.

    Args:
        wanted: The factor that gives the resolution of the image.
        area: Total area of all boxes, in prototype cells.
    """
    affordable = math.sqrt(MASK_PIXELS / max(area, 1))
    return int(max(4, min(math.ceil(wanted), MASK_SCALE_MAX, affordable)))


def _fine_scale(span: NDArray[np.floating]) -> int:
    """The scale that makes the longer side of a small instance about MASK_SIDE pixels.

    At the prototypes' resolution, rounding would lose too much of a small outline.
    """
    side = max(float(span[2] - span[0]), float(span[3] - span[1]), 1.0)
    return int(min(MASK_SIDE / side, MASK_SCALE_MAX))


def _outlines(
    logits: Float,
    low: tuple[int, int],
    span: NDArray[np.floating],
    scale: int,
    cells: float,
    place: Letterbox,
) -> tuple[Outline, ...]:
    """The outlines of the logits (rows, columns) of a window whose left upper cell is `low`."""
    rows, columns = logits.shape
    if not logits.size:
        return ()
    x1, y1, x2, y2 = (float(value) for value in span)
    left, top = low
    window = np.ascontiguousarray(logits)
    size = columns * scale, rows * scale
    mask = (cv2.resize(window, size, interpolation=cv2.INTER_LINEAR) > 0).astype(np.uint8)
    # pixel i is inside when x1 <= i < x2, as in Ultralytics' crop_mask
    mask[:, : max(math.ceil((x1 - left) * scale), 0)] = 0
    mask[:, max(math.ceil((x2 - left) * scale), 0) :] = 0
    mask[: max(math.ceil((y1 - top) * scale), 0)] = 0
    mask[max(math.ceil((y2 - top) * scale), 0) :] = 0

    corner = np.array((left, top), np.float32)
    pixel = scale / cells * place.resized[0] / place.width  # size of an image pixel in mask pixels

    def in_picture(contour: Contour, outwards: float) -> Float:
        points = _simplify(contour, pixel, outwards)
        return place.points_to_image((points / np.float32(scale) + corner) * np.float32(cells))

    pieces = [(cv2.contourArea(outer), outer, inner) for outer, inner in contours(mask)]
    pieces.sort(key=lambda piece: -piece[0])
    largest = pieces[0][0] if pieces else 0.0
    return tuple(
        Outline(
            in_picture(outer, 0.5),
            tuple(
                in_picture(hole, -0.5)
                for hole in inner
                if len(hole) >= 3 and cv2.contourArea(hole) >= SPECK * largest
            ),
        )
        for size_of, outer, inner in pieces
        if size_of >= SPECK * largest and (size_of > 0 or outer is pieces[0][1])
    )


def _simplify(contour: Contour, pixel: float, outwards: float) -> Float:
    """A contour (m, 1, 2) of pixel indices, simplified to points (k, 2), k ≥ 3.

    A contour runs through the centres of pixels. So 0.5 is added to its indices, and it is moved
    by `outwards` pixels to the edge of the pixels: 0.5 for an outline, -0.5 for a hole.
    """
    tolerance = max(SIMPLIFY * cv2.arcLength(contour, True), SIMPLIFY_PIXELS * pixel)
    kept = cv2.approxPolyDP(contour, tolerance, True)
    if len(kept) < 3:  # a point or a line: use the rectangle of its pixels
        x, y, width, height = cv2.boundingRect(contour)
        right, bottom = x + width, y + height
        return np.array(((x, y), (right, y), (right, bottom), (x, bottom)), np.float32)
    points = kept.reshape(-1, 2).astype(np.float32) + np.float32(0.5)
    return offset(points, outwards) if area(points) else points
