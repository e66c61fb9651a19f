"""Saving and loading of weights (fp16 safetensors), and networks built from descriptions.

Imports torch; only export and import children, training, and GPU runners import this module.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from errors import InvalidModelFile
from models_store.architecture import checked, task_of
from models_store.description import (
    WEIGHTS_FILE,
    ModelDescription,
    Preprocessing,
    Task,
    class_names,
)
from models_store.ultralytics_env import prepare

COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
ALWAYS_ALLOWED = 20_000_000  # weights of an architecture, whatever its file has
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def save_weights(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict as safetensors, convolution and linear weights as fp16.

    Vectors (biases, normalisation statistics), integers, and tensors with values outside the range
    of fp16 keep their type.
    """
    tensors = {}
    for name, value in state_dict.items():
        tensor = value.detach().to("cpu")
        if tensor.is_floating_point():
            tensor = tensor.float()
            half = tensor.half()
            if tensor.ndim > 1 and bool(torch.isfinite(half).all()):
                tensor = half
        tensors[name] = tensor.contiguous().clone()
    save_file(tensors, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a safetensors file, with floating-point tensors as fp32."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InvalidModelFile(
            "The weights file is damaged (not readable as safetensors). Restore it from a backup, "
            "or import the model again."
        ) from (error)
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def build_model(description: ModelDescription) -> nn.Module:
    """The network of a description with initial weights, in eval mode, fp32, on the CPU.

    A YOLO model is an instance of Ultralytics' class, with `names` and `task` set, so that its
    trainers accept it. Heads of the end-to-end families (YOLOv10, YOLO26) use their one-to-many
    branch, so that all models are served the same way, followed by NMS.

    Raises:
        InvalidModelFile: The architecture cannot be built.
    """
    if description.family == "mobilenet":
        model = _build_mobilenet(description)
    else:
        model = _build_yolo(description)
    if description.norm_eps is not None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = description.norm_eps
    return model.float().eval()


def _build_mobilenet(description: ModelDescription) -> nn.Module:
    from torchvision.models import mobilenet_v2  # slow import; YOLO does not need it

    width = description.architecture.get("width_mult", 1.0)
    if description.architecture.get("torchvision") != "mobilenet_v2" or not 0 < width <= 4:
        raise InvalidModelFile("The family mobilenet supports only torchvision's mobilenet_v2.")
    return mobilenet_v2(weights=None, num_classes=len(description.names), width_mult=width)


def _build_yolo(description: ModelDescription) -> nn.Module:
    prepare()
    from ultralytics.nn import tasks

    classes = {
        "detect": tasks.DetectionModel,
        "segment": tasks.SegmentationModel,
        "pose": tasks.PoseModel,
        "classify": tasks.ClassificationModel,
    }
    architecture = checked(description.architecture)
    if task_of(architecture) != description.task:
        raise InvalidModelFile(f"The architecture is not for the task {description.task}.")
    with _architecture_errors():
        model = classes[description.task](
            copy.deepcopy(architecture),
            ch=description.channels,
            nc=len(description.names),
            verbose=False,
        )
    if description.head_width is not None:
        width = description.head_width
        donor = classes[description.task](
            architecture, ch=description.channels, nc=width, verbose=False
        )
        _take_class_branch(model.model[-1], donor.model[-1])
    model.names = dict(enumerate(description.names))
    model.task = description.task
    if hasattr(model.model[-1], "end2end"):
        model.model[-1].end2end = False
    return model


def _take_class_branch(head: nn.Module, donor: nn.Module) -> None:
    """Replace a head's class branch by the donor's hidden layers, which have another width.

    Ultralytics 8.4.190 derives the width of these layers from the number of classes, but keeps the
    width of the start weights when it fine-tunes to another number (`BaseModel.load`).
    """
    for attribute in ("cv3", "one2one_cv3"):
        branches: Any = getattr(donor, attribute, None)
        if branches is None:
            continue
        for branch, own in zip(branches, getattr(head, attribute), strict=True):
            branch[-1] = nn.Conv2d(branch[-1].in_channels, own[-1].out_channels, 1)
        setattr(head, attribute, branches)


def head_width(shapes: Mapping[str, Sequence[int]], classes: int) -> int | None:
    """Width of a class branch; None if it is the one that Ultralytics derives from `classes`.

    Args:
        shapes: Shapes of the tensors in a YOLO network's state dict.
        classes: The number of classes.
    """
    for name, shape in shapes.items():
        if match := re.fullmatch(r"(model\.\d+)\.cv3\.0\.2\.weight", name):
            inputs = shapes.get(f"{match[1]}.cv2.0.0.conv.weight")
            usual = max(inputs[1], min(classes, 100)) if inputs and len(inputs) > 1 else None
            return shape[1] if usual not in (None, shape[1]) and shape[1] <= 100 else None
    return None


def load_model(folder: Path) -> tuple[nn.Module, ModelDescription]:
    """Rebuild the network of a model folder (model.json, model.safetensors).

    Raises:
        InvalidModelFile: The weights are damaged or do not fit the architecture.
    """
    description = ModelDescription.load(folder)
    weights = load_weights(folder / WEIGHTS_FILE)
    check_size(description, weights)
    model = build_model(description)
    fill(model, weights)
    return model, description


def check_size(description: ModelDescription, weights: Mapping[str, Tensor]) -> None:
    """Refuse an architecture far larger than its weights, before memory is allocated for it.

    Raises:
        InvalidModelFile: It is far larger, or cannot be built.
    """
    if description.family != "yolo":  # the width of a MobileNet is bounded when it is built
        return
    prepare()
    from ultralytics.nn import tasks

    architecture = {**checked(description.architecture), "nc": len(description.names)}
    with torch.device("meta"), _architecture_errors():  # without memory for the weights
        layers, _ = tasks.parse_model(architecture, ch=description.channels, verbose=False)
    wanted = sum(tensor.numel() for tensor in layers.state_dict().values())
    given = sum(tensor.numel() for tensor in weights.values())
    if wanted > 2 * given + ALWAYS_ALLOWED:
        raise InvalidModelFile(
            f"The architecture has {wanted:,} weights, the file has {given:,}: they do not belong "
            "together. Import the model again."
        )


@contextmanager
def _architecture_errors() -> Iterator[None]:
    """Makes InvalidModelFile of whatever an invalid yaml raises in parse_model or the layers."""
    try:
        yield
    except (MemoryError, InvalidModelFile):
        raise
    except Exception as error:
        raise InvalidModelFile(
            f"The model's architecture cannot be built: {error!s:.300}. Save the checkpoint again "
            "with Ultralytics."
        ) from error


def fill(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a state dict whose keys and shapes must fit exactly.

    Raises:
        InvalidModelFile: They do not fit; the message names the first few.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state_dict]
    foreign = [name for name in state_dict if name not in own]
    if missing and all(".bn." in name or "one2one" in name for name in missing) and foreign:
        raise InvalidModelFile(
            "The model was fused (batch normalisation folded into the convolutions), which "
            "cannot be undone. Use the checkpoint that training saved."
        )
    shapes = [
        name for name in own if name in state_dict and own[name].shape != state_dict[name].shape
    ]
    for kind, names in (("lack", missing), ("add", foreign), ("have another shape in", shapes)):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            raise InvalidModelFile(f"The weights do not fit the architecture: they {kind} {shown}.")
    model.load_state_dict(dict(state_dict))


def save_model(folder: Path, model: nn.Module, description: ModelDescription) -> None:
    """Write model.json and model.safetensors into an existing folder."""
    save_weights(model.state_dict(), folder / WEIGHTS_FILE)
    description.save(folder)


def describe(
    model: nn.Module,
    imgsz: int,
    *,
    names: object = None,
    preprocessing: Preprocessing | None = None,
    keypoint_names: tuple[str, ...] | None = None,
    description: str = "",
) -> ModelDescription:
    """Create the description of a network in memory, as after training.

    Args:
        model: Ultralytics' model or torchvision's MobileNetV2.
        imgsz: Side of the square input in pixels.
        names: Class names, list or dict; default: the model's own.
        preprocessing: Default: letterbox for YOLO, the centre crop for YOLO classification,
            ImageNet's crop and normalisation for MobileNet.
        keypoint_names: Default: COCO's for 17 points of a person, else none.
        description: Free text shown with the model.
    """
    network: Any = model
    if hasattr(model, "yaml"):
        yaml = dict(network.yaml)
        head = network.model[-1]
        # A pretrained head may have been resized without a change of its yaml.
        yaml["nc"] = getattr(head, "nc", None) or _outputs(head) or yaml["nc"]
        return describe_yolo(
            yaml,
            imgsz=imgsz,
            names=names if names is not None else network.names,
            stride=int(max(network.stride)),
            norm_eps=_norm_eps(model),
            head_width=head_width({k: v.shape for k, v in model.state_dict().items()}, yaml["nc"]),
            preprocessing=preprocessing,
            keypoint_names=keypoint_names,
            description=description,
        )
    count = network.classifier[-1].out_features
    width = network.features[0][0].out_channels / 32
    return describe_mobilenet(
        count, imgsz, names=names, width=width, preprocessing=preprocessing, description=description
    )


def describe_yolo(
    yaml: dict[str, Any],
    *,
    imgsz: int,
    names: object,
    stride: int = 32,
    norm_eps: float | None = None,
    head_width: int | None = None,
    preprocessing: Preprocessing | None = None,
    keypoint_names: tuple[str, ...] | None = None,
    description: str = "",
) -> ModelDescription:
    """Describe an Ultralytics model by its yaml; the size is rounded up to the stride."""
    architecture = checked(yaml)
    task: Task = task_of(architecture)
    imgsz = -(-imgsz // stride) * stride
    shape = tuple(architecture["kpt_shape"]) if task == "pose" else None
    labels = class_names(names, architecture["nc"])
    if task == "pose" and keypoint_names is None and shape == (17, 3) and labels == ("person",):
        keypoint_names = COCO_KEYPOINTS
    if preprocessing is None and task == "classify":
        # Ultralytics' validation transform: shorter side to imgsz (PIL, antialiased), crop.
        preprocessing = Preprocessing(
            resize="centre_crop", imgsz=imgsz, resize_to=imgsz, antialias=True
        )
    return ModelDescription(
        task=task,
        family="yolo",
        names=labels,
        architecture=architecture,
        preprocessing=preprocessing or Preprocessing(resize="letterbox", imgsz=imgsz),
        channels=architecture["channels"],
        stride=stride,
        norm_eps=norm_eps,
        head_width=head_width,
        keypoint_shape=shape,
        keypoint_names=keypoint_names,
        description=description,
    )


def describe_mobilenet(
    count: int,
    imgsz: int = 224,
    *,
    names: object = None,
    width: float = 1.0,
    preprocessing: Preprocessing | None = None,
    description: str = "",
) -> ModelDescription:
    """Describe torchvision's MobileNetV2 with `count` classes."""
    return ModelDescription(
        task="classify",
        family="mobilenet",
        names=class_names(names, count),
        architecture={"torchvision": "mobilenet_v2", "width_mult": width},
        preprocessing=preprocessing
        or Preprocessing(
            resize="centre_crop",
            imgsz=imgsz,
            resize_to=round(imgsz * 256 / 224),
            antialias=True,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        description=description,
    )


def _outputs(head: nn.Module) -> int | None:
    linear = getattr(head, "linear", None)
    return linear.out_features if isinstance(linear, nn.Linear) else None


def _norm_eps(model: nn.Module) -> float | None:
    values = {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    return values.pop() if len(values) == 1 else None
