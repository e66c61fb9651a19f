"""Conversion of a foreign checkpoint to a model folder, as a child process of `importer`.

`python -m models_store.foreign.convert JSON`: reads the file without executing its code, builds the
network from the architecture in the file with Ultralytics' or torchvision's classes, compares the
two layer by layer, and writes model.json, model.safetensors and model.onnx. Prints one JSON object:
facts about the file's origin, or the error.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from errors import InvalidModelFile, ValidationFailed, VisionLoopError
from models_store.architecture import FOREIGN_HEADS
from models_store.description import (
    ModelDescription,
    Preprocessing,
    certain_names,
    check_plausible,
)
from models_store.export import export_onnx
from models_store.foreign.checkpoint import Checkpoint, read_checkpoint
from models_store.foreign.inert_pickle import Inert, TensorReference
from models_store.foreign.network import looks_like_mobilenet, model_of
from models_store.foreign.transforms import preprocessing_of
from models_store.subprocesses import limit_self, refused
from models_store.weights import (
    build_model,
    check_size,
    describe_mobilenet,
    describe_yolo,
    fill,
    head_width,
    save_model,
)

COMPARED = (  # what changes a layer's output besides its weights
    "stride", "padding", "dilation", "groups", "kernel_size", "output_size", "scale_factor",
    "mode", "negative_slope", "ceil_mode", "align_corners", "num_heads", "add",
)  # fmt: skip
SAME_KIND = {"Silence": "Identity", "v10DetectionModel": "DetectionModel"}


def convert(
    path: Path,
    folder: Path,
    *,
    family: str | None = None,
    names: list[str] | None = None,
    imgsz: int | None = None,
    description: str = "",
    serving: bool = True,
) -> dict[str, Any]:
    """Convert a checkpoint into an empty folder.

    Args:
        path: The foreign file.
        folder: The folder for model.json, model.safetensors, model.onnx and engines.json.
        family: Refuse the file unless it is `yolo` or `mobilenet`; None: accept both.
        names: Class names that replace those of the file.
        imgsz: Side of the input in pixels; replaces that of the file.
        description: Free text shown with the model.
        serving: Whether to export the serving engine.

    Returns:
        Facts about the file's origin.

    Raises:
        InvalidModelFile: The model cannot be served; the message says why.
    """
    checkpoint = read_checkpoint(path)
    module, state = model_of(checkpoint.root)
    mobilenet = looks_like_mobilenet(state)
    if family == "mobilenet" and not mobilenet:
        raise InvalidModelFile(
            "The file does not contain torchvision's mobilenet_v2. Omit 'family' if it is a YOLO "
            "model."
        )
    if family == "yolo" and (module is None or mobilenet):
        raise InvalidModelFile(
            "The file does not contain an Ultralytics YOLO model. Omit 'family' if it is a "
            "MobileNet."
        )
    weights = {name: _tensor(checkpoint, reference) for name, reference in state.items()}
    if mobilenet:
        count = len(weights["classifier.1.weight"])
        width = weights["features.0.0.weight"].shape[0] / 32
        described = describe_mobilenet(
            count, imgsz or 224, names=_names(names, count), width=width, description=description
        )
        origin: dict[str, Any] = {}
    else:
        assert module is not None
        weights = {k: v for k, v in weights.items() if k.startswith("model.")}
        described = _describe(checkpoint, module, names, imgsz, description)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        own = head_width(shapes, len(described.names))
        described = described.model_copy(update={"head_width": own})
        origin = _origin(checkpoint.root, module)
    check_plausible(described)
    check_size(described, weights)
    model = build_model(described)
    if module is not None:
        _compare(module, model)
    fill(model, weights)
    save_model(folder, model, described)
    if serving:
        export_onnx(folder)
    return origin


def _tensor(checkpoint: Checkpoint, reference: TensorReference) -> Tensor:
    tensor = torch.from_numpy(checkpoint.array(reference))
    return tensor.float() if tensor.is_floating_point() else tensor


def _describe(
    checkpoint: Checkpoint,
    module: Inert,
    names: list[str] | None,
    imgsz: int | None,
    description: str,
) -> ModelDescription:
    root = checkpoint.root if isinstance(checkpoint.root, dict) else {}
    yaml = module.get("yaml")
    layers = (module.get("_modules") or {}).get("model")
    if not isinstance(yaml, dict) or not isinstance(layers, Inert):
        raise InvalidModelFile(
            f"The checkpoint contains a {module.kind} without a model yaml. Supported are "
            "Ultralytics models from YOLOv8 on, and torchvision's mobilenet_v2."
        )
    if root.get("modelopt"):
        raise InvalidModelFile("The model is quantised (ModelOpt); import the original weights.")
    head = list(layers.get("_modules", {}).values())[-1]
    if isinstance(head, Inert) and head.kind in FOREIGN_HEADS:
        yaml = {**yaml, "head": [[-1, 1, head.kind, []]]}  # so that its task is named
    if module.get("kpt_shape"):
        yaml = {**yaml, "kpt_shape": list(module.get("kpt_shape"))}
    classify = isinstance(head, Inert) and head.kind == "Classify"
    arguments = _plain(
        checkpoint.root.get("train_args") if isinstance(checkpoint.root, dict) else None
    )
    arguments = arguments or _plain(module.get("args"))
    size = imgsz or _size(arguments.get("imgsz")) or (224 if classify else 640)
    strides = module.get("stride")
    stride = 32
    if isinstance(strides, TensorReference) and not classify:
        stride = int(checkpoint.array(strides).max())
    preprocessing: Preprocessing | None = None
    transforms = module.get("transforms")
    if classify and isinstance(transforms, Inert) and imgsz is None:
        preprocessing = preprocessing_of(transforms, lambda value: checkpoint.array(value).tolist())
        size = preprocessing.imgsz
    described = describe_yolo(
        yaml,
        imgsz=size,
        names=_names(names, yaml.get("nc")) or _own_names(module, head, yaml.get("nc")),
        stride=max(stride, 1),
        norm_eps=_norm_eps(module),
        preprocessing=preprocessing,
        keypoint_names=_keypoint_names(module),
        description=description,
    )
    if described.channels != 3:
        raise InvalidModelFile(
            f"The model's input has {described.channels} channels; only RGB (3 channels) is "
            "supported. Train it on RGB images."
        )
    return described


def _names(names: list[str] | None, count: object) -> list[str] | None:
    if names is not None and len(names) != count:
        raise ValidationFailed(
            f"{len(names)} class names were given; the model has {count}. Give one name per "
            "output, in order."
        )
    return names


def _own_names(module: Inert, head: Any, count: object) -> tuple[str, ...]:
    """The class names stored with the network.

    Raises:
        InvalidModelFile: It is ambiguous which output each name belongs to.
    """
    outputs = head.get("nc") if isinstance(head, Inert) else None
    if not isinstance(count, int) or (isinstance(outputs, int) and outputs != count):
        raise InvalidModelFile(
            f"The model's yaml has {str(count)[:20]} classes, but its head has {outputs}: the "
            "model was changed after it was built, so it cannot be rebuilt. Save a model as "
            "Ultralytics builds it from its yaml."
        )
    names = module.get("names")
    if isinstance(names, Inert):  # a defaultdict or the like
        pairs = all(isinstance(item, tuple) and len(item) == 2 for item in names.items)
        names = (dict(names.items) if pairs else list(names.items)) if names.items else names
    return certain_names(names, count)


def _plain(value: Any) -> dict[str, Any]:
    """The training arguments as a dict; Ultralytics 8.0 stored a namespace object."""
    if isinstance(value, Inert):
        value = value.state
    return value if isinstance(value, dict) else {}


def _size(value: object) -> int | None:
    if isinstance(value, list | tuple) and value:
        value = max(value)
    return value if isinstance(value, int) and 16 <= value <= 4096 else None


def _keypoint_names(module: Inert) -> tuple[str, ...] | None:
    names = module.get("kpt_names")
    if isinstance(names, dict) and names:
        names = next(iter(names.values()))
    shape = module.get("kpt_shape")
    if isinstance(names, list | tuple) and shape and len(names) == next(iter(shape)):
        return tuple(map(str, names))
    return None


def _modules(module: Inert, path: str = "") -> Iterator[tuple[str, Inert]]:
    yield path, module
    for name, child in (module.get("_modules") or {}).items():
        if isinstance(child, Inert):
            yield from _modules(child, f"{path}.{name}" if path else str(name))


def _norm_eps(module: Inert) -> float | None:
    """The epsilon of the batch normalisation layers; None if there are no such layers."""
    values = {m.get("eps") for _, m in _modules(module) if m.kind == "BatchNorm2d"}
    if len(values) > 1:
        raise InvalidModelFile(
            "The model's BatchNorm layers have different epsilons. Train or save it with one value."
        )
    value = values.pop() if values else None
    return float(value) if isinstance(value, float) and 0 < value < 1 else None


def _compare(foreign: Inert, own: nn.Module) -> None:
    """Refuse a network whose layers differ from its yaml: the rebuilt one would not be the same."""
    modules = dict(own.named_modules())
    for path, theirs in _modules(foreign):
        ours = modules.get(path)
        if ours is None or not path:
            continue
        kind = SAME_KIND.get(theirs.kind, theirs.kind)
        if kind != type(ours).__name__:
            raise InvalidModelFile(
                f"The model's layer {path} is a {theirs.kind}, but a {type(ours).__name__} in "
                "its yaml: the model was changed after it was built, so it cannot be rebuilt. "
                "Save a model as Ultralytics builds it from its yaml."
            )
        for name in COMPARED:
            mine, value = getattr(ours, name, None), theirs.get(name)
            plain = int | float | str | bool | tuple | list
            if isinstance(value, plain) and isinstance(mine, plain) and not _equal(value, mine):
                raise InvalidModelFile(
                    f"The model's layer {path} has {name} {value!r}, but {mine!r} in its yaml: "
                    "the model was changed after it was built, so it cannot be rebuilt. Save a "
                    "model as Ultralytics builds it from its yaml."
                )


def _equal(a: Any, b: Any) -> bool:
    """Whether two layer arguments are equal; 2 equals (2, 2)."""
    a, b = (set(x) if isinstance(x, list | tuple) and len(set(x)) == 1 else x for x in (a, b))
    a, b = (next(iter(x)) if isinstance(x, set) else x for x in (a, b))
    return (list(a) if isinstance(a, tuple) else a) == (list(b) if isinstance(b, tuple) else b)


def _origin(root: Any, module: Inert) -> dict[str, Any]:
    noted = {}
    if isinstance(root, dict):
        noted = {key: root[key] for key in ("version", "date") if isinstance(root.get(key), str)}
    yaml_file = (module.get("yaml") or {}).get("yaml_file")
    if isinstance(yaml_file, str):
        noted["architecture"] = yaml_file.replace("\\", "/").rpartition("/")[2]
    return {key: value[:100] for key, value in noted.items()}


def main() -> int:
    logging.disable(logging.INFO)
    request = json.loads(sys.argv[1])
    limit_self(cpu_seconds=request.pop("cpu_seconds", None))
    path, folder = Path(request.pop("path")), Path(request.pop("folder"))
    try:
        origin = convert(path, folder, **request)
    except VisionLoopError as error:
        return refused(error)
    except (MemoryError, RecursionError):
        return refused(
            InvalidModelFile(
                "The model needs more memory than a conversion may use. Import a smaller model."
            )
        )
    print(json.dumps({"origin": origin}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
