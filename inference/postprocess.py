"""Conversion of the raw network outputs for one image to a `Prediction`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from formats.geometry import Outline, area, contours, offset
from inference.nms import non_max_suppression
from inference.prediction import Float, Prediction
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


def postprocess(
    outputs: Outputs,
    description: ModelDescription,
    place: Letterbox,
    *,
    confidence: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
    classes: Sequence[int] | None = None,
) -> Prediction:
    """Convert raw outputs to a prediction for the image that was prepared with `place`.

    `outputs` have no batch dimension. A threshold of None means the model's default. A classifier
    returns its `max_det` best classes (default 5), filtered by `confidence` only if that is given.
    With `classes`, only predictions of these class ids count and are returned; probabilities stay
    as they are.
    """
    if description.task == "classify":
        return _classify(outputs[0], description, place, confidence or 0.0, max_det, classes)

    nc = len(description.names)
    boxes, scores, class_ids, extra = non_max_suppression(
        outputs[0],
        nc,
        description.confidence if confidence is None else confidence,
        description.iou if iou is None else iou,
        MAX_DET if max_det is None else max_det,
        classes=classes,
    )
    polygons, holes, keypoints = None, None, None
    if description.task == "segment":
        masks = mask_outlines(outputs[1], extra, boxes, place)
        seen = np.array([bool(parts) for parts in masks], bool)  # empty masks are dropped
        boxes, scores, class_ids = boxes[seen], scores[seen], class_ids[seen]
        polygons = tuple(tuple(part.outer for part in parts) for parts in masks if parts)
        holes = tuple(tuple(part.holes for part in parts) for parts in masks if parts)
    elif description.task == "pose":
        keypoints = _keypoints(extra, description, place)
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


def mask_outlines(
    protos: Float, coefficients: Float, boxes: Float, place: Letterbox
) -> tuple[tuple[Outline, ...], ...]:
    """The outlines of each instance's mask, in pixels of the image.

    As in Ultralytics' `process_mask(upsample=True)`, the sum of the prototypes weighted by the
    coefficients is scaled up bilinearly; the mask is where it is positive, inside the box and the
    image. Each mask is computed within its box only, at about the resolution of the image, bounded
    by MASK_SCALE_MAX and MASK_PIXELS.

    Args:
        protos: (nm, h/4, w/4) mask prototypes, for a network input of w × h pixels.
        coefficients: (n, nm) mask coefficients.
        boxes: (n, 4) xyxy in pixels of the network's input.
        place: Letterbox of the image in the network's input.

    Returns:
        The parts of each instance, the largest first; an empty tuple for an empty mask.
    """
    if not len(boxes):
        return ()
    rows, columns = protos.shape[1:]
    logits = (coefficients @ protos.reshape(len(protos), -1)).reshape(-1, rows, columns)
    cells = place.frame[0] / columns  # input pixels of a prototype cell
    picture = (*place.offset, *np.add(place.offset, place.resized))  # without the padding
    spans = np.clip(boxes, np.tile(picture[:2], 2), np.tile(picture[2:], 2)) / np.float32(cells)
    areas = (spans[:, 2] - spans[:, 0]) * (spans[:, 3] - spans[:, 1])
    scale = _mask_scale(max(place.width, place.height) / max(rows, columns), float(areas.sum()))
    return tuple(
        _outlines(instance, span, max(scale, _fine_scale(span)), cells, place)
        for instance, span in zip(logits, spans, strict=True)
    )


def _mask_scale(wanted: float, area: float) -> int:
    """The integer factor by which to scale the prototypes up.

    Args:
        wanted: The factor that gives the resolution of the image.
        area: Total area of all boxes, in prototype cells.
    """
    affordable = math.sqrt(MASK_PIXELS / max(area, 1))
    return int(max(4, min(math.ceil(wanted), MASK_SCALE_MAX, affordable)))


def _fine_scale(span: Float) -> int:
    """The scale that makes the longer side of a small instance about MASK_SIDE pixels.

    At the prototypes' resolution, rounding would lose too much of a small outline.
    """
    side = max(float(span[2] - span[0]), float(span[3] - span[1]), 1.0)
    return int(min(MASK_SIDE / side, MASK_SCALE_MAX))


def _outlines(
    logits: Float, span: Float, scale: int, cells: float, place: Letterbox
) -> tuple[Outline, ...]:
    rows, columns = logits.shape
    x1, y1, x2, y2 = (float(value) for value in span)
    # the cells that the box touches, and one more on each side to interpolate at its edges
    left, top = max(int(x1) - 1, 0), max(int(y1) - 1, 0)
    right, bottom = min(math.ceil(x2) + 1, columns), min(math.ceil(y2) + 1, rows)
    if right <= left or bottom <= top:
        return ()
    size = (right - left) * scale, (bottom - top) * scale
    window = np.ascontiguousarray(logits[top:bottom, left:right])
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
