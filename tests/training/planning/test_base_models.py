"""Networks by the names that requests give them."""

from __future__ import annotations

import pytest

from models_store.description import Task
from training.planning.base_models import find_architecture


@pytest.mark.parametrize(
    ("text", "task", "expected"),
    [
        ("n", None, "yolov8n"),
        ("X", "segment", "yolov8x-seg"),
        ("yolov8n-pose", None, "yolov8n-pose"),
        ("yolov8n.pt", None, "yolov8n"),
        ("yolo11s", "classify", "yolo11s-cls"),
        ("yolo26n", "pose", "yolo26n-pose"),
        ("yolov10b", "detect", "yolov10b"),
        ("yolov9c", "segment", "yolov9c-seg"),
        ("mobilenetv2", None, "mobilenet_v2"),
        ("traffic_signs_yolov8n", None, None),
        ("best.pt", None, None),
    ],
)
def test_architectures_by_name(text: str, task: Task | None, expected: str | None) -> None:
    found = find_architecture(text, task)
    assert (found.name if found else None) == expected
