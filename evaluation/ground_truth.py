"""The annotated objects of an image, in image pixels and in the network's input square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset.class_matching import JoinedClasses
from dataset.dataset import Dataset
from inference.prediction import Prediction
from inference.preprocess import Letterbox

Float = NDArray[np.float32]
Ids = NDArray[np.int64]
Masks = NDArray[np.bool_]

OUTLINE = 1000  # number of points to which Ultralytics resamples an outline


@dataclass(frozen=True)
class GroundTruth:
    """The annotated objects of one image, in pixels of the image.

    Attributes:
        width, height: Size of the image in pixels.
        class_ids: (m,) class ids in the union of the model's and the dataset's classes.
        boxes: (m, 4) xyxy.
        polygons: m outlines (k, 2); None unless segmentation.
        keypoints: (m, k, 3) x, y, visibility; None unless pose.
    """

    width: int
    height: int
    class_ids: Ids
    boxes: Float
    polygons: tuple[Float, ...] | None = None
    keypoints: Float | None = None

    def __len__(self) -> int:
        return len(self.class_ids)

    @classmethod
    def read(
        cls, dataset: Dataset, image: Path, classes: JoinedClasses, width: int, height: int
    ) -> GroundTruth:
        """Read the labels of an image of `width` × `height` pixels; empty without a label file."""
        rows = dataset.rows(image)
        size = np.array((width, height), np.float32)
        class_ids = classes.from_dataset[np.array([row.cls for row in rows], np.int64)]
        values = [np.array(row.values, np.float32) for row in rows]
        if dataset.task == "segment":
            polygons = tuple(v.reshape(-1, 2) * size for v in values)
            corners = [np.concatenate((p.min(0), p.max(0))) for p in polygons]
            return cls(width, height, class_ids, _rows(corners, 4), polygons)
        boxes = _rows([_corners(v[:4], size) for v in values], 4)
        if dataset.task != "pose" or dataset.keypoints is None:
            return cls(width, height, class_ids, boxes)
        count, numbers = dataset.keypoints.shape
        points = _rows([v[4:] for v in values], count * numbers).reshape(-1, count, numbers)
        visible = points[..., 2:] if numbers == 3 else _stated(points)
        keypoints = np.concatenate((points[..., :2] * size, visible), axis=-1)
        return cls(width, height, class_ids, boxes, keypoints=keypoints.astype(np.float32))

    def boxes_in(self, place: Letterbox) -> Float:
        """The boxes (m, 4) xyxy in pixels of the network's input."""
        return place.points_to_frame(self.boxes.reshape(-1, 2, 2)).reshape(-1, 4)

    def keypoints_in(self, place: Letterbox) -> Float:
        """The keypoints (m, k, 3) in pixels of the network's input."""
        assert self.keypoints is not None
        points = place.points_to_frame(self.keypoints[..., :2])
        return np.concatenate((points, self.keypoints[..., 2:]), axis=-1)

    def by_area(self, place: Letterbox, shape: tuple[int, int]) -> tuple[GroundTruth, Masks]:
        """The objects by descending area, and their masks (m, *shape), which do not overlap.

        Computed as in Ultralytics' validation (`polygons2masks_overlap`): each outline is filled
        at the network's input resolution and scaled down; where objects overlap, the pixel
        belongs to the smaller one.

        Args:
            place: Letterbox of the image in the network's input.
            shape: Height and width of the masks: those of the network's prototypes.
        """
        assert self.polygons is not None
        outlines = _resampled([place.points_to_frame(p) for p in self.polygons])
        filled = [_fill(outline, place.frame, shape) for outline in outlines]
        order = np.argsort([-int(mask.sum()) for mask in filled])
        layers = np.zeros(shape, np.int32)
        for layer, i in enumerate(order, 1):
            np.maximum(layers, filled[i] * layer, out=layers)
        masks = layers[None] == np.arange(1, len(order) + 1)[:, None, None]
        ranked = GroundTruth(
            self.width,
            self.height,
            self.class_ids[order],
            self.boxes[order],
            tuple(self.polygons[i] for i in order),
        )
        return ranked, masks

    def as_prediction(self, dataset: Dataset, classes: JoinedClasses) -> Prediction:
        """The objects as a prediction with confidence 1, for drawing."""
        return Prediction(
            task=dataset.task,
            names=classes.names,
            width=self.width,
            height=self.height,
            class_ids=self.class_ids,
            scores=np.ones(len(self), np.float32),
            boxes=self.boxes,
            polygons=None if self.polygons is None else tuple((p,) for p in self.polygons),
            keypoints=self.keypoints,
            keypoint_names=dataset.keypoints.names if dataset.keypoints else None,
        )


def mask_predictions(
    protos: Float, coefficients: Float, boxes: Float, frame: tuple[int, int]
) -> Masks:
    """Masks (n, h, w) at the resolution of the prototypes, cropped to their boxes.

    Equal to `ultralytics.utils.ops.process_mask(upsample=False)`, which Ultralytics' validation
    uses.

    Args:
        protos: (nm, h, w) mask prototypes.
        coefficients: (n, nm) mask coefficients.
        boxes: (n, 4) xyxy in pixels of the network's input.
        frame: Width and height of the network's input in pixels.
    """
    count, rows, columns = protos.shape
    masks = (coefficients @ protos.reshape(count, -1)).reshape(-1, rows, columns) > 0
    ratio = np.array((columns, rows) * 2, np.float32) / np.array(frame * 2, np.float32)
    x1, y1, x2, y2 = (boxes * ratio).T[:, :, None]
    x, y = np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32)
    masks &= ((x >= x1) & (x < x2))[:, None, :]
    masks &= ((y >= y1) & (y < y2))[:, :, None]
    return masks


def served_masks(prediction: Prediction, place: Letterbox, shape: tuple[int, int]) -> Masks:
    """Masks (n, *shape) of the served polygons, in the same frame as the masks of `by_area`."""
    masks = np.zeros((len(prediction), *shape), bool)
    for i, parts in enumerate(prediction.polygons or ()):
        filled = np.zeros(place.frame[::-1], np.uint8)
        cv2.fillPoly(filled, [_corners_in(place, part) for part in parts], 1)
        if prediction.holes is not None:
            holes = [hole for of_part in prediction.holes[i] for hole in of_part]
            cv2.fillPoly(filled, [_corners_in(place, hole) for hole in holes], 0)
        masks[i] = cv2.resize(filled, shape[::-1]) > 0
    return masks


def _corners_in(place: Letterbox, outline: Float) -> NDArray[np.int32]:
    return place.points_to_frame(outline).astype(np.int32)


def _corners(xywh: Float, size: Float) -> Float:
    half = xywh[2:] / np.float32(2)
    return np.concatenate(((xywh[:2] - half) * size, (xywh[:2] + half) * size))


def _rows(rows: Sequence[Float], width: int) -> Float:
    return np.stack(rows).astype(np.float32) if rows else np.zeros((0, width), np.float32)


def _stated(points: Float) -> Float:
    """Visibility (..., 1) of keypoints (..., 2) xy without one: 0 if x or y is negative, else 1."""
    return ((points[..., :1] >= 0) & (points[..., 1:2] >= 0)).astype(np.float32)


def _resampled(outlines: list[Float]) -> list[Float]:
    """Outlines, closed and resampled to equally many points, like `resample_segments`."""
    longest = max((len(outline) for outline in outlines), default=0)
    count = longest + 1 if longest > OUTLINE else OUTLINE
    return [_resample(outline, count) for outline in outlines]


def _resample(outline: Float, count: int) -> Float:
    if len(outline) == count:
        return outline
    closed = np.concatenate((outline, outline[:1]))
    corners = np.arange(len(closed))
    short = len(closed) < count
    places = np.linspace(0, len(closed) - 1, count - len(closed) if short else count)
    if short:
        places = np.insert(places, np.searchsorted(places, corners), corners)
    axes = [np.interp(places, corners, closed[:, axis]) for axis in range(2)]
    return np.stack(axes, axis=1).astype(np.float32)


def _fill(outline: Float, frame: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.uint8]:
    mask = np.zeros(frame[::-1], np.uint8)
    cv2.fillPoly(mask, [outline.astype(np.int32)], 1)
    return cv2.resize(mask, shape[::-1]).astype(np.uint8, copy=False)
