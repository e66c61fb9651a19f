"""Model folders with small random networks, real in everything but what they have learned."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from models_store.description import ModelDescription, Task
from tests.support.seeds import drawing

SCALES = {"t": [0.33, 0.125, 1024]}  # an eighth of the channels: about 0.2 million weights

BACKBONE: list[Any] = [
    [-1, 1, "Conv", [64, 3, 2]],
    [-1, 1, "Conv", [128, 3, 2]],
    [-1, 3, "C2f", [128, True]],
    [-1, 1, "Conv", [256, 3, 2]],
    [-1, 3, "C2f", [256, True]],
    [-1, 1, "Conv", [512, 3, 2]],
    [-1, 3, "C2f", [256, True]],
]
HEADS: dict[Task, list[Any]] = {
    "detect": [[[4, 6], 1, "Detect", ["nc"]]],
    "segment": [[[4, 6], 1, "Segment", ["nc", 32, 256]]],
    "pose": [[[4, 6], 1, "Pose", ["nc", "kpt_shape"]]],
    "classify": [[-1, 1, "Classify", ["nc"]]],
}
NAMES = ("round", "square", "star")


def architecture(task: Task, classes: int = len(NAMES), **extra: Any) -> dict[str, Any]:
    """A YOLOv8-like model yaml with two output levels (strides 8 and 16)."""
    yaml: dict[str, Any] = {"nc": classes, "scales": SCALES, "scale": "t"}
    if task == "pose":
        yaml["kpt_shape"] = [4, 3]
    return {**copy.deepcopy(yaml | {"backbone": BACKBONE, "head": HEADS[task]}), **extra}


def small_description(task: Task, imgsz: int = 64, **extra: Any) -> ModelDescription:
    """The description of a small YOLO network, without torch."""
    from models_store.weights import describe_yolo

    return describe_yolo(architecture(task, **extra), imgsz=imgsz, names=NAMES, stride=16)


def make_model(
    folder: Path, task: Task = "detect", imgsz: int = 64, *, seed: int = 0, onnx: bool = True
) -> ModelDescription:
    """Write model.json, model.safetensors and (2 s) model.onnx; imports torch.

    The weights are random, but normalisation statistics and biases are spread out, so that
    outputs vary with the input and over the classes.
    """
    description = small_description(task, imgsz)
    write_model(folder, description, seed)
    if onnx:
        from models_store.export import export_onnx

        export_onnx(folder)
    return description


def make_engine_of_before(folder: Path) -> None:
    """Replace a model's ONNX file by one as a version before exported it: for squares only."""
    from files import sha256_of
    from models_store.description import ONNX_FILE, record
    from models_store.export import ServingModule, write_onnx
    from models_store.weights import load_model

    module, description = load_model(folder)
    serving = ServingModule(module, description).eval()
    (folder / ONNX_FILE).unlink(missing_ok=True)
    write_onnx(serving, description, description.imgsz, False, folder / ONNX_FILE)
    record(folder, "onnx", {"opset": 17, "sha256": sha256_of(folder / ONNX_FILE)})


def make_mobilenet(folder: Path, imgsz: int = 32, *, seed: int = 0) -> ModelDescription:
    """A MobileNetV2 of a quarter of the width, as a model folder with its ONNX."""
    from models_store.export import export_onnx
    from models_store.weights import describe_mobilenet

    description = describe_mobilenet(len(NAMES), imgsz, names=NAMES, width=0.25)
    write_model(folder, description, seed)
    export_onnx(folder)
    return description


def write_model(folder: Path, description: ModelDescription, seed: int) -> None:
    import torch

    from models_store.weights import build_model, save_model

    folder.mkdir(parents=True, exist_ok=True)
    with drawing(seed):
        model = build_model(description)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.2)
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module.bias is not None:
                torch.nn.init.normal_(module.bias, 0, 1)
    save_model(folder, model, description)


def network(task: Task, **extra: Any) -> Any:
    """Ultralytics' model as a checkpoint holds it."""
    from models_store import ultralytics_env

    ultralytics_env.prepare()
    from ultralytics.nn import tasks

    classes: dict[Task, Any] = {
        "detect": tasks.DetectionModel,
        "segment": tasks.SegmentationModel,
        "pose": tasks.PoseModel,
        "classify": tasks.ClassificationModel,
    }
    model = classes[task](architecture(task, **extra), nc=len(NAMES), verbose=False)
    model.names = dict(enumerate(NAMES))
    return model.eval()


def checkpoint(path: Path, model: Any, *, ema: bool = False, imgsz: object = 64) -> Path:
    """Saved as Ultralytics' training does: fp16, as `ema` while training, as `model` after."""
    import torch

    half = copy.deepcopy(model).half()
    content = {
        "epoch": -1,
        "model": None if ema else half,
        "ema": half if ema else None,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}} if ema else None,
        "train_args": {"imgsz": imgsz, "task": "?", "model": "yolov8n.pt"},
        "date": "2024-01-01",
        "version": "8.2.59",
    }
    torch.save(content, path)
    return path
