"""What a request may set of a training, and within which bounds."""

from __future__ import annotations

from typing import Any

import pytest

from errors import ValidationFailed
from training.planning.hyperparameters import check_hyperparameters


@pytest.mark.parametrize(
    ("family", "task", "given", "expected"),
    [
        ("yolo", "detect", {"lr0": "1e-3"}, {"lr0": 0.001}),
        ("yolo", "detect", {"optimizer": "adamw"}, {"optimizer": "AdamW"}),
        ("yolo", "detect", {"workers": 2.0, "cos_lr": "true"}, {"workers": 2, "cos_lr": True}),
        ("yolo", "classify", {"auto_augment": "none"}, {"auto_augment": "none"}),
        ("yolo", "classify", {"mosaic": 1}, None),
        ("yolo", "detect", {"cache": "disk"}, None),
        ("yolo", "detect", {"seed": 1.5}, None),
        ("yolo", "detect", {"lr0": "nan"}, None),
        ("yolo", "detect", {"workers": True}, None),
        ("mobilenet", "classify", {"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
        ("mobilenet", "classify", {"optimizer": "SGD"}, None),
        ("mobilenet", "classify", {"degrees": 5, "dropout": 0.1}, {"degrees": 5, "dropout": 0.1}),
        ("yolo", "classify", {"erasing": 0.1, "dropout": 0.1}, {"erasing": 0.1, "dropout": 0.1}),
        ("yolo", "pose", {"kobj": 1, "degrees": 5}, {"kobj": 1, "degrees": 5}),
        ("yolo", "segment", {"copy_paste": 0.5}, {"copy_paste": 0.5}),
        # Ultralytics takes these for every task, and passes over them
        ("yolo", "classify", {"degrees": 5}, None),
        ("yolo", "classify", {"translate": 0.1}, None),
        ("yolo", "detect", {"dropout": 0.1}, None),
        ("yolo", "segment", {"erasing": 0.1}, None),
        ("yolo", "detect", {"copy_paste": 0.5}, None),
        ("yolo", "segment", {"kobj": 1}, None),
    ],
)
def test_hyperparameters(
    family: Any, task: Any, given: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    if expected is None:
        with pytest.raises(ValidationFailed, match=next(iter(given))):
            check_hyperparameters(given, family, task)
    else:
        assert check_hyperparameters(given, family, task) == expected
