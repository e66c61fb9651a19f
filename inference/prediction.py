"""`Prediction`, the result of inference, and the items that runners receive and return."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import tracing
from errors import VisionLoopError
from formats.annotations import (
    ABSENT,
    Annotation,
    AnnotationPart,
    Annotations,
    Keypoint,
    keypoint_labels,
    ring,
)
from formats.geometry import Outline, simplify
from models_store.description import Task
from request_id import REQUEST_ID

Float = NDArray[np.float32]
Int = NDArray[np.int64]

DrawnFormat = Literal["JPEG", "PNG", "WEBP"]
"""The format of a drawn image, by Pillow's name."""

KEYPOINT_SEEN = 0.5  # lowest confidence of a keypoint that counts as visible


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's prediction for one image.

    Coordinates are pixels of the image after its EXIF rotation, origin top-left.

    Attributes:
        task: The task of the model that made it.
        names: Class names, indexed by class id.
        width, height: Size of the image in pixels, after EXIF rotation.
        class_ids: (n,) int64.
        scores: (n,) float32 in 0..1, descending.
        boxes: (n, 4) float32 xyxy; (0, 4) from classification.
        polygons: The parts of each instance, the largest first, each (m, 2) float32 xy;
            None unless segmentation.
        holes: The holes of each part of each instance, each (m, 2) float32 xy; None: no part has
            a hole.
        keypoints: (n, k, 3) float32 of x, y, confidence; None unless pose.
        keypoint_names: k names; None unless pose.
    """

    task: Task
    names: tuple[str, ...]
    width: int
    height: int
    class_ids: Int
    scores: Float
    boxes: Float
    polygons: tuple[tuple[Float, ...], ...] | None = None
    keypoints: Float | None = None
    keypoint_names: tuple[str, ...] | None = None
    holes: tuple[tuple[tuple[Float, ...], ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def to_json(self) -> list[dict[str, Any]]:
        """The `predictions` array of the REST responses."""
        rows: list[dict[str, Any]] = []
        holes = self.holes or ((),) * len(self)
        for i, (class_id, score) in enumerate(zip(self.class_ids, self.scores, strict=True)):
            row: dict[str, Any] = {
                "label": self.names[class_id],
                "class_id": int(class_id),
                "confidence": float(score),
            }
            if self.task != "classify":
                box = (float(v) for v in self.boxes[i])
                row["bounding_box"] = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
            if self.polygons is not None:
                parts = [part.tolist() for part in self.polygons[i]]
                row["polygon"] = parts[0] if parts else []
                if len(parts) > 1:
                    row["polygon_parts"] = parts
                if any(holes[i]):
                    row["polygon_holes"] = [[r.tolist() for r in rings] for rings in holes[i]]
            if self.keypoints is not None:
                names = self.point_names
                row["keypoints"] = [
                    {"name": name, "x": float(x), "y": float(y), "confidence": float(c)}
                    for name, (x, y, c) in zip(names, self.keypoints[i], strict=True)
                ]
            rows.append(row)
        return rows

    @property
    def point_names(self) -> tuple[str, ...]:
        """The names of the keypoints; their numbers if the model has no names for them."""
        count = 0 if self.keypoints is None else self.keypoints.shape[1]
        return keypoint_labels(self.keypoint_names, count)

    def outlines(self, i: int) -> tuple[Outline, ...]:
        """The parts of instance `i` with their holes."""
        parts = self.polygons[i] if self.polygons is not None else ()
        holes = self.holes[i] if self.holes is not None else ((),) * len(parts)
        return tuple(map(Outline, parts, holes))

    def boxes_only(self) -> Prediction:
        """A copy without polygons and keypoints."""
        return replace(self, polygons=None, holes=None, keypoints=None)

    def simplified(self) -> Prediction:
        """A copy whose polygons have few vertices, for editing; see `formats.geometry.simplify`."""
        if self.polygons is None:
            return self
        size = np.array((self.width, self.height), np.float32)

        def simple(points: Float) -> Float:
            return np.clip(simplify(points), 0, size)

        holes = self.holes
        if holes is not None:
            holes = tuple(tuple(tuple(map(simple, rings)) for rings in parts) for parts in holes)
        polygons = tuple(tuple(map(simple, parts)) for parts in self.polygons)
        return replace(self, polygons=polygons, holes=holes)

    def to_annotations(self, image: str = "") -> Annotations:
        """The prediction as pre-labels: all objects, or the best class of a classification.

        A keypoint with a confidence below KEYPOINT_SEEN becomes absent.
        """
        rows = []
        for i, (class_id, score) in enumerate(zip(self.class_ids, self.scores, strict=True)):
            made = Annotation(self.names[class_id], score=round(float(score), 6))
            if self.task == "classify":
                rows.append(made)
                break
            parts = tuple(
                AnnotationPart(ring(part.outer), tuple(ring(hole) for hole in part.holes))
                for part in self.outlines(i)
            )
            x1, y1, x2, y2 = (float(value) for value in self.boxes[i])
            rows.append(
                replace(
                    made,
                    box=None if parts else (x1, y1, x2, y2),
                    parts=parts,
                    keypoints=self._points(i),
                )
            )
        return Annotations(image, self.width, self.height, tuple(rows))

    def _points(self, i: int) -> tuple[Keypoint, ...]:
        if self.keypoints is None:
            return ()
        return tuple(
            Keypoint(name, float(x), float(y), score=round(float(certainty), 6))
            if certainty >= KEYPOINT_SEEN
            else Keypoint(name, visibility=ABSENT)
            for name, (x, y, certainty) in zip(self.point_names, self.keypoints[i], strict=True)
        )


@dataclass(frozen=True, slots=True)
class InferenceItem:
    """One image to predict, as the gateway sends it to a runner.

    `model` is the exact `name:version`. A threshold of None means the model's default. `tiles`
    is the number of tiles along the longer side, besides the whole image (1: none, 0: automatic).
    `classes` are the ids of the wanted classes (None: all); `max_det` counts only these.
    `boxes_only` leaves polygons and keypoints out, `editable` asks for polygons with few
    vertices. `heavy`: decoding takes so long that it must not hold up others (`images.Header`).
    `views`: how often the network runs for this image, with its tiles. `defers`: whether the result
    is `loading`, at once, if the model is not loaded yet. `request_id` and `traceparent`: of the
    request that the image came with, for the log and the trace.
    """

    image: bytes = field(repr=False)  # megabytes; not in error messages that contain the item
    model: str
    confidence: float | None = None
    iou: float | None = None
    max_det: int | None = None
    classes: tuple[int, ...] | None = None
    draw: bool = False
    drawn_as: DrawnFormat = "JPEG"
    tiles: int = 1
    boxes_only: bool = False
    editable: bool = False
    heavy: bool = False
    views: int = 1
    defers: bool = field(default=False, compare=False)
    request_id: str | None = field(default_factory=REQUEST_ID.get, compare=False)
    traceparent: str | None = field(default_factory=tracing.traceparent, compare=False)


@dataclass(frozen=True, slots=True)
class ItemResult:
    """The result of one item: a prediction or an error. Times are in milliseconds.

    `drawn` is the image with its predictions as a file, if the item requested it. `loading`: there
    is neither, because the model is being loaded; see `InferenceItem.defers`.
    """

    prediction: Prediction | None = None
    error: VisionLoopError | None = None
    drawn: bytes | None = None
    times: dict[str, float] = field(default_factory=dict)  # preprocess, inference, postprocess
    loading: bool = False
