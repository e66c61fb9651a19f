"""Which options an export takes."""

from __future__ import annotations

from typing import Any

import pytest

from engines.options import FORMATS, ExportRequest, file_name, resolve
from errors import ValidationFailed
from models_store.description import ModelDescription, Preprocessing
from models_store.export_command import EXPORT_FORMATS

DETECTOR = ModelDescription(
    task="detect",
    family="yolo",
    names=("a", "b"),
    architecture={},
    preprocessing=Preprocessing(resize="letterbox", imgsz=320),
)
CLASSIFIER = DETECTOR.model_copy(
    update={
        "task": "classify",
        "preprocessing": Preprocessing(resize="centre_crop", imgsz=224, resize_to=224),
    }
)


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"format": "onnx"}, "onnx-fp32-320"),
        ({"format": "onnx", "imgsz": 320, "dynamic": False, "max_batch": 1}, "onnx-fp32-320"),
        ({"format": "onnx", "precision": "fp16", "max_batch": 4}, "onnx-fp16-320-batch4"),
        ({"format": "openvino", "dynamic": True, "imgsz": 640}, "openvino-fp32-640-dynamic"),
        ({"format": "torchscript", "precision": "fp32"}, "torchscript-fp32-320"),
        ({"format": "pt", "precision": "fp16"}, "pt-fp16"),
        ({"format": "archive"}, "archive"),
        ({"format": "engine", "max_batch": 8}, "engine-fp16-320-batch8"),
        ({"format": "engine", "precision": "fp32"}, "engine-fp32-320"),
    ],
)
def test_options_in_full(asked: dict[str, Any], key: str) -> None:
    assert resolve(ExportRequest(**asked), DETECTOR).key == key


@pytest.mark.parametrize(
    ("description", "asked", "sentence"),
    [
        (DETECTOR, {"format": "pt", "imgsz": 640}, "'imgsz' does not apply to pt: its network"),
        (DETECTOR, {"format": "pt", "dynamic": True}, "pt takes precision"),
        (DETECTOR, {"format": "archive", "precision": "fp16"}, "archive takes no options"),
        (DETECTOR, {"format": "torchscript", "precision": "fp16"}, "half precision needs a GPU"),
        (DETECTOR, {"format": "engine", "dynamic": True}, "it has one size"),
        (DETECTOR, {"format": "onnx", "precision": "int8"}, "int8 is not offered"),
        (DETECTOR, {"format": "onnx", "imgsz": 330}, "multiples of 32 from 32 to 4096"),
        (DETECTOR, {"format": "onnx", "imgsz": 8192}, "multiples of 32 from 32 to 4096"),
        (DETECTOR, {"format": "onnx", "max_batch": 65}, "allowed is 1 to 64"),
        (DETECTOR, {"format": "onnx", "max_batch": 0}, "allowed is 1 to 64"),
        (DETECTOR, {"format": "onnx", "max_batch": 2, "dynamic": True}, "any number of images"),
        (CLASSIFIER, {"format": "onnx", "imgsz": 320}, "cut to 224 pixels"),
        (CLASSIFIER, {"format": "openvino", "dynamic": True}, "does not apply to a classifier"),
    ],
)
def test_what_does_not_apply_is_refused_with_the_reason(
    description: ModelDescription, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationFailed, match=sentence):
        resolve(ExportRequest(**asked), description)


def test_the_shell_command_knows_every_format() -> None:
    assert EXPORT_FORMATS == FORMATS


def test_ultralytics_recognises_files_by_their_names() -> None:
    names = {file_name("signs:1", resolve(ExportRequest(format=f), DETECTOR)) for f in FORMATS}
    assert names == {
        "signs-1.onnx",
        "signs-1_openvino_model.zip",
        "signs-1.torchscript",
        "signs-1.pt",
        "signs-1.zip",
        "signs-1.engine",
    }
