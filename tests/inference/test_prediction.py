from __future__ import annotations

import numpy as np
import pytest

from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint, ring
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
    assert len(repr(InferenceItem(image=b"x" * 1_000_000, model="a:1"))) < 1000


def around(side: float, corners: int = 90) -> np.ndarray:
    turns = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    circle = np.stack((np.cos(turns), np.sin(turns)), axis=1)
    return (circle * side / 2 + np.array((32, 24))).astype(np.float32)


def test_polygons_to_edit_have_few_vertices_and_stay_in_the_picture() -> None:
    """Widened to the area they had, corners at the edge would lie outside."""
    wide = np.clip(around(60), 0, (64, 48)).astype(np.float32)
    found = prediction("segment", polygons=((wide,),), holes=(((around(20),),),))
    simple = found.simplified()
    assert simple.polygons is not None
    assert simple.holes is not None
    for points in (simple.polygons[0][0], simple.holes[0][0][0]):
        assert 3 <= len(points) < 30
        assert (points >= 0).all()
        assert (points <= (64, 48)).all()
    boxes = found.boxes_only()
    assert (boxes.polygons, boxes.holes) == (None, None)
    assert "polygon_holes" in found.to_json()[0]


@pytest.mark.parametrize(
    ("made", "annotation"),
    [
        (prediction("detect"), Annotation("yield", box=(1, 2, 3, 4), score=0.5)),
        (prediction("classify"), Annotation("yield", score=0.5)),
        (
            prediction("segment", polygons=((SMALL, SMALL + 5),), holes=(((), (SMALL,)),)),
            Annotation(
                "yield",
                parts=(
                    AnnotationPart(ring(SMALL)),
                    AnnotationPart(ring(SMALL + 5), (ring(SMALL),)),
                ),
                score=0.5,
            ),
        ),
        (
            prediction(
                "pose",
                keypoints=np.array([[[7, 8, 0.75], [9, 9, 0.25]]], np.float32),
                keypoint_names=("tip", "tail"),
            ),
            Annotation(
                "yield",
                box=(1, 2, 3, 4),
                keypoints=(Keypoint("tip", 7, 8, score=0.75), Keypoint("tail", visibility=0)),
                score=0.5,
            ),
        ),
    ],
)
def test_a_prediction_becomes_annotations(made: Prediction, annotation: Annotation) -> None:
    assert made.to_annotations("a.jpg") == Annotations("a.jpg", 64, 48, (annotation,))
