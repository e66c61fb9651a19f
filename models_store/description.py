"""The description of a model: `model.json`, beside the weights in `model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from errors import InvalidModelFile
from files import atomic_write

Task = Literal["detect", "segment", "pose", "classify"]
Family = Literal["yolo", "mobilenet"]
Positive = Annotated[float, Field(gt=0)]

TYPES: dict[Task, str] = {
    "detect": "detection",
    "segment": "segmentation",
    "pose": "pose",
    "classify": "classification",
}

DESCRIPTION_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
ENGINES_FILE = "engines.json"  # engine → its differences from PyTorch and the digest of its file


class Preprocessing(BaseModel):
    """Preprocessing of an RGB image to the network's input, (3, imgsz, imgsz) float32.

    `resize` is one of
    - `letterbox`: scale the longer side to `imgsz` (bilinear), centre, pad with 114;
    - `squash`: resize to (imgsz, imgsz) regardless of the aspect ratio;
    - `centre_crop`: scale the shorter side to `resize_to`, cut the central imgsz × imgsz.

    Values are then divided by 255, and `(x - mean) / std` is taken per RGB channel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    resize: Literal["letterbox", "squash", "centre_crop"]
    imgsz: int = Field(ge=8, le=8192)
    resize_to: int | None = Field(None, ge=8, le=8192)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    antialias: bool = False
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)


class ModelDescription(BaseModel):
    """A model version's architecture, classes and preprocessing.

    `architecture` is Ultralytics' model yaml as a dict for `yolo` (with `nc`, `ch` and `scale`
    resolved), or `{"torchvision": "mobilenet_v2", "width_mult": 1.0}` for `mobilenet`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    task: Task
    family: Family
    names: tuple[str, ...]
    architecture: dict[str, Any]
    preprocessing: Preprocessing
    channels: int = 3
    stride: int = 32
    norm_eps: float | None = Field(
        None, gt=0, description="Epsilon of every BatchNorm; None: the architecture's own"
    )
    head_width: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Channels of the class branch's hidden layers, if a fine-tuned head kept "
        "those of its start weights; None: the architecture's own",
    )
    keypoint_shape: tuple[int, int] | None = None
    keypoint_names: tuple[str, ...] | None = None
    confidence: float = Field(0.25, ge=0, le=1, description="Default serving confidence")
    iou: float = Field(0.7, ge=0, le=1, description="Default IoU threshold of NMS")
    description: str = ""

    @property
    def type(self) -> str:
        """The name of the task in the REST API."""
        return TYPES[self.task]

    @property
    def imgsz(self) -> int:
        return self.preprocessing.imgsz

    def save(self, folder: Path) -> None:
        text = self.model_dump_json(indent=1)
        (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ModelDescription:
        return cls.model_validate_json((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))


def engines(folder: Path) -> dict[str, dict[str, Any]]:
    """The entries of `engines.json` by engine; empty if the file is missing or damaged."""
    try:
        found = json.loads((folder / ENGINES_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)}


def record(folder: Path, engine: str, entry: Mapping[str, float | int | str]) -> None:
    """Set one engine's entry in `engines.json`, keeping the others."""
    text = json.dumps(engines(folder) | {engine: dict(entry)}, indent=1)
    atomic_write(folder / ENGINES_FILE, text)


NAME_THEM = "Send the class names in the order of the model's outputs as 'names'."


def certain_names(names: object, count: int) -> tuple[str, ...]:
    """The class names of a checkpoint, one per output of the network; refused if ambiguous.

    A list must have one name per output; the keys of a dict must be indices of outputs. An output
    without a name is named by its id, `class 1`.

    Raises:
        InvalidModelFile: A name belongs to no output, or an output has two names. Then the other
            names may be assigned to the wrong outputs too.

    Examples:
        >>> certain_names({0: "person", "2": "cow"}, 3)
        ('person', 'class 1', 'cow')
        >>> certain_names({0: "person", 20: "elephant"}, 2)
        Traceback (most recent call last):
        errors.InvalidModelFile: The checkpoint's names have id 20 ('elephant'), but ...
    """
    if names is None:
        return class_names([], count)
    if isinstance(names, dict):
        keyed = _by_id(names, count)
    elif isinstance(names, list | tuple):
        keyed = dict(enumerate(names))
    else:
        raise InvalidModelFile(
            "The checkpoint's class names are neither a list nor a mapping of id to name. "
            f"{NAME_THEM}"
        )
    if isinstance(names, list | tuple) and len(names) != count:
        raise InvalidModelFile(
            f"The checkpoint has {len(names)} names, but its model has {count} outputs. {NAME_THEM}"
        )
    for i, name in keyed.items():
        if name is not None and (isinstance(name, bool) or not isinstance(name, str | int | float)):
            raise InvalidModelFile(f"The checkpoint's name of class {i} is not a text. {NAME_THEM}")
    return class_names({i: name for i, name in keyed.items() if name is not None}, count)


def _by_id(names: dict[Any, Any], count: int) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for key, name in names.items():
        text = str(key).strip()
        number = text.isascii() and text.isdecimal() and len(text) < 10
        if isinstance(key, bool) or not number:
            raise InvalidModelFile(
                f"The checkpoint's class names have the id {text[:40]!r} ({str(name)[:60]!r}), "
                f"which is not a number. {NAME_THEM}"
            )
        if int(text) >= count:
            raise InvalidModelFile(
                f"The checkpoint's names have id {text[:20]} ({str(name)[:60]!r}), but its model "
                f"has {count} outputs, 0 to {count - 1}: it is unknown which name belongs to "
                f"which output. {NAME_THEM}"
            )
        if int(text) in found:
            raise InvalidModelFile(f"The checkpoint's names have id {int(text)} twice. {NAME_THEM}")
        found[int(text)] = name
    return found


def class_names(names: object, count: int) -> tuple[str, ...]:
    """Unique class names, one per class id, from those in a checkpoint or a dataset.

    `names` is a list, or a dict of id → name, possibly with gaps, ids as strings or repeated names.
    A missing name becomes `class 7`; a repeated one gets its id appended: `sign`, `sign (7)`.

    Examples:
        >>> class_names({0: "stop", "2": "stop"}, 3)
        ('stop', 'class 1', 'stop (2)')
    """
    by_id: dict[int, str] = {}
    if isinstance(names, dict):
        pairs = [(str(key), value) for key, value in names.items()]
        by_id = {int(key): str(value) for key, value in pairs if key.isdecimal()}
    elif isinstance(names, list | tuple):
        by_id = {i: str(name) for i, name in enumerate(names)}
    result: list[str] = []
    for i in range(count):
        name = by_id.get(i, "").strip()[:200] or f"class {i}"
        result.append(name if name not in result else f"{name} ({i})")
    return tuple(result)
