"""Validation of Ultralytics model yamls: allowed layers, sizes and activations.

Ultralytics executes parts of a model yaml: it looks up layer names in `torch.nn` and passes
strings and `activation` to `eval`. So a yaml from foreign weights is untrusted code. Only allowed
layers, arguments and activations are kept; anything else is refused, and the error names it.
"""

from __future__ import annotations

import re
from typing import Any

from errors import InvalidModelFile
from models_store.description import Task

HEADS: dict[str, Task] = {
    "Detect": "detect",
    "v10Detect": "detect",
    "Segment": "segment",
    "Segment26": "segment",
    "Pose": "pose",
    "Pose26": "pose",
    "Classify": "classify",
}
"""Output layer that can be served → the task of its models."""

FOREIGN_HEADS = {
    "OBB": "oriented boxes (obb)",
    "OBB26": "oriented boxes (obb)",
    "RTDETRDecoder": "RT-DETR detection",
    "SemanticSegment": "semantic segmentation",
    "Depth": "depth estimation",
    "WorldDetect": "open-vocabulary detection (YOLO-World)",
    "YOLOEDetect": "open-vocabulary detection (YOLOE)",
    "YOLOESegment": "open-vocabulary segmentation (YOLOE)",
    "YOLOESegment26": "open-vocabulary segmentation (YOLOE)",
}

LAYERS = frozenset({
    "A2C2f", "AConv", "ADown", "AIFI", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2PSA", "C2f",
    "C2fCIB", "C2fPSA", "C3", "C3Ghost", "C3TR", "C3k2", "C3x", "CBFuse", "CBLinear", "Concat",
    "Conv", "Conv2", "ConvTranspose", "DWConv", "DWConvTranspose2d", "ELAN1", "Focus",
    "GhostBottleneck", "GhostConv", "HGBlock", "HGStem", "PSA", "RepC3", "RepConv",
    "RepNCSPELAN4", "ResNetLayer", "SCDown", "SPP", "SPPELAN", "SPPF",
    "nn.BatchNorm2d", "nn.Conv2d", "nn.ConvTranspose2d", "nn.Identity", "nn.MaxPool2d",
    "nn.Upsample", "nn.ZeroPad2d",
})  # fmt: skip

ACTIVATION = re.compile(
    r"(torch\.)?nn\.(SiLU|ReLU|ReLU6|LeakyReLU|Hardswish|Mish|GELU|ELU|Sigmoid|Tanh|Identity)"
    r"\(\s*((inplace|negative_slope|alpha)\s*=\s*)?([0-9]+(\.[0-9]*)?([eE]-?[0-9]+)?|True|False)?\s*\)"
)
WORD = re.compile(r"nc|kpt_shape|None|True|False|nearest|bilinear|bicubic|-?[0-9]+(\.[0-9]+)?")
MAX_LAYERS = 2_000
MAX_NUMBER = 100_000


def task_of(architecture: dict[str, Any]) -> Task:
    """The task of a model yaml, according to its last layer.

    Raises:
        InvalidModelFile: The last layer is not a head that can be served.
    """
    head = architecture.get("head")
    name = head[-1][2] if isinstance(head, list) and head and len(head[-1]) == 4 else None
    if name in HEADS:
        return HEADS[name]
    known = "Supported are detection, segmentation, pose and classification."
    if name in FOREIGN_HEADS:
        raise InvalidModelFile(f"The model is for {FOREIGN_HEADS[name]}. {known}")
    raise InvalidModelFile(
        f"The model's last layer is {_shown(name)}, which cannot be served. {known}"
    )


def checked(architecture: dict[str, Any]) -> dict[str, Any]:
    """Check a model yaml, and reduce it to the keys that define the network.

    Args:
        architecture: Ultralytics' model yaml as a dict, as checkpoints carry it.

    Returns:
        A new dict with `nc`, `channels`, `backbone`, `head`, one scale, and the other keys that
        define the layers.

    Raises:
        InvalidModelFile: A layer, argument or activation is not allowed.
    """
    if not isinstance(architecture, dict):
        raise InvalidModelFile(
            "The model contains no architecture: its model yaml is missing. Save it with "
            "Ultralytics' training or model.save()."
        )
    result: dict[str, Any] = {
        "nc": _integer(architecture.get("nc"), "nc", 1),
        "channels": _integer(
            architecture.get("channels", architecture.get("ch", 3)), "channels", 1
        ),
    }
    scales, scale = architecture.get("scales"), architecture.get("scale")
    if scales:
        if not isinstance(scales, dict) or (scale and scale not in scales):
            raise InvalidModelFile(
                f"The model yaml has no scale {_shown(scale)}. Use one that it lists."
            )
        scale = scale or next(iter(scales))
        triple = scales[scale]
        if not isinstance(triple, list | tuple) or len(triple) != 3:
            raise InvalidModelFile(
                "The model yaml's scale is not [depth, width, channels]. Correct it, and save the "
                "checkpoint again."
            )
        result["scales"] = {str(scale): [_number(value, "scales") for value in triple]}
    if scale:
        result["scale"] = str(scale)
    for key in ("depth_multiple", "width_multiple", "reg_max"):
        if architecture.get(key) is not None:
            result[key] = _number(architecture[key], key)
    if architecture.get("kpt_shape") is not None:
        points, dimensions = architecture["kpt_shape"]
        result["kpt_shape"] = [_integer(points, "kpt_shape", 1), _integer(dimensions, "kpt_shape")]
        if dimensions not in (2, 3):
            raise InvalidModelFile(f"A keypoint must have 2 or 3 numbers, not {dimensions}.")
    if architecture.get("end2end") is not None:
        result["end2end"] = bool(architecture["end2end"])
    if activation := architecture.get("activation"):
        if not isinstance(activation, str) or not ACTIVATION.fullmatch(activation):
            raise InvalidModelFile(
                f"The activation {_shown(activation)} is not supported. Train with SiLU, ReLU or "
                "another of PyTorch's."
            )
        result["activation"] = activation
    for part in ("backbone", "head"):
        rows = architecture.get(part)
        if not isinstance(rows, list | tuple) or not 0 < len(rows) <= MAX_LAYERS:
            raise InvalidModelFile(
                f"The model yaml has no usable {part!r}. Save the checkpoint again with "
                "Ultralytics."
            )
        result[part] = [_layer(row) for row in rows]
    task_of(result)
    return result


def _layer(row: object) -> list[Any]:
    if not isinstance(row, list | tuple) or len(row) != 4:
        raise InvalidModelFile(
            f"The model yaml has a row {_shown(row)} that is not a layer. Save the checkpoint "
            "again with Ultralytics."
        )
    source, repeats, name, arguments = row
    name = {"Silence": "nn.Identity"}.get(name, name)  # its name before 8.1.35
    if name not in LAYERS and name not in HEADS and name not in FOREIGN_HEADS:
        raise InvalidModelFile(
            f"The model contains the layer {_shown(name)}, which is not supported. Train the model "
            "with plain Ultralytics layers."
        )
    sources = [_integer(i, name) for i in source] if isinstance(source, list | tuple) else source
    if not isinstance(sources, list):
        sources = _integer(sources, name)
    return [sources, _integer(repeats, name, 1), name, [_argument(a, name) for a in arguments]]


def _argument(value: object, layer: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value, layer)
    if isinstance(value, str) and (WORD.fullmatch(value) or ACTIVATION.fullmatch(value)):
        return value
    if isinstance(value, list | tuple) and len(value) <= 64:
        return [_argument(part, layer) for part in value]
    raise InvalidModelFile(
        f"The layer {layer} has the argument {_shown(value)}, which is not supported. Train the "
        "model with plain Ultralytics layers."
    )


def _number(value: object, where: str) -> Any:
    if isinstance(value, int | float) and abs(value) <= MAX_NUMBER:
        return value
    raise InvalidModelFile(
        f"The model yaml has {_shown(value)} at {where!r}, which is not a usable number. Save the "
        "checkpoint again with Ultralytics."
    )


def _integer(value: object, where: str, least: int = -MAX_NUMBER) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_NUMBER:
        return value
    raise InvalidModelFile(
        f"The model yaml has {_shown(value)} at {where!r}, which is not a usable number. Save the "
        "checkpoint again with Ultralytics."
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
