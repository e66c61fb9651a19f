from __future__ import annotations

import numpy as np
import pytest

from inference.prediction import InferenceItem, Prediction
from models_store.description import Task


def prediction(task: Task, **parts: object) -> Prediction:
    return Prediction(
        task=task,
        names=("stop", "yield"),
        width=64,
        height=48,
        class_ids=np.array([1]),
        scores=np.array([0.5], np.float32),
        boxes=np.array([[1, 2, 3, 4]], np.float32)[: 0 if task == "classify" else 1],
        **parts,  # type: ignore[arg-type]
    )


BASE = {"label": "yield", "class_id": 1, "confidence": 0.5}
BOX = {"bounding_box": {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}}
SMALL = np.array([[0, 0], [1, 0], [1, 1]], np.float32)


@pytest.mark.parametrize(
    ("made", "row"),
    [
        (prediction("detect"), {**BASE, **BOX}),
        (prediction("classify"), BASE),
        (prediction("segment", polygons=((SMALL,),)), {**BASE, **BOX, "polygon": SMALL.tolist()}),
        (
            prediction("segment", polygons=((SMALL, SMALL + 5),)),
            {
                **BASE,
                **BOX,
                "polygon": SMALL.tolist(),
                "polygon_parts": [SMALL.tolist(), (SMALL + 5).tolist()],
            },
        ),
        (
            prediction(
                "pose", keypoints=np.array([[[7, 8, 0.5]]], np.float32), keypoint_names=("tip",)
            ),
            {**BASE, **BOX, "keypoints": [{"name": "tip", "x": 7.0, "y": 8.0, "confidence": 0.5}]},
        ),
    ],
)
def test_json_has_the_fields_of_its_task(made: Prediction, row: dict[str, object]) -> None:
    assert made.to_json() == [row]


def test_an_item_is_described_without_its_picture() -> None:
    assert len(repr(InferenceItem(image=b"x" * 1_000_000, model="a:1"))) < 200
