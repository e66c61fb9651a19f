"""The one result type: made by engines, read through its exits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import VisionLoopError
from models_store.description import Task

Float = NDArray[np.float32]
Int = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model sees in one picture.

    Coordinates are pixels of the picture after its EXIF rotation, origin top-left.

    Attributes:
        task: The task of the model that made it.
        names: Class names, indexed by class id.
        width, height: Size of the picture in pixels, after EXIF rotation.
        class_ids: (n,) int64.
        scores: (n,) float32 in 0..1, descending.
        boxes: (n, 4) float32 xyxy; (0, 4) from classification.
        polygons: Per instance its parts, the largest first, each (m, 2) float32 xy;
            None unless segmentation.
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

    def __len__(self) -> int:
        return len(self.scores)

    def to_json(self) -> list[dict[str, Any]]:
        """The `predictions` array of the REST answers."""
        rows: list[dict[str, Any]] = []
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
            if self.keypoints is not None:
                names = self.keypoint_names or tuple(map(str, range(self.keypoints.shape[1])))
                row["keypoints"] = [
                    {"name": name, "x": float(x), "y": float(y), "confidence": float(c)}
                    for name, (x, y, c) in zip(names, self.keypoints[i], strict=True)
                ]
            rows.append(row)
        return rows


@dataclass(frozen=True, slots=True)
class InferenceItem:
    """One picture to predict, as the gateway sends it to a runner.

    `model` is the exact `name:version`. A threshold of None means the model's default.
    """

    image: bytes = field(repr=False)  # megabytes: an error that quotes an item stays short
    model: str
    confidence: float | None = None
    iou: float | None = None
    max_det: int | None = None
    draw: bool = False


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What came of one item: a prediction, or its own error. Times are milliseconds.

    `drawn` is a JPEG of the picture with its predictions, when the item asked for it.
    """

    prediction: Prediction | None = None
    error: VisionLoopError | None = None
    drawn: bytes | None = None
    times: dict[str, float] = field(default_factory=dict)  # preprocess, inference, postprocess
