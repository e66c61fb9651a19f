"""The description of a model: `model.json`, beside the weights in `model.safetensors`."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
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
    """Preprocessing of an RGB image to the network's input, (3, height, width) float32.

    `resize` is one of
    - `letterbox`: scale the longer side to `imgsz` (bilinear), centre, pad with 114 to multiples of
      the stride;
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

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
        description="Number of channels of the hidden layers in the class branch, if a fine-tuned "
        "head keeps that of the weights it started from; None: that of the architecture",
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

    @property
    def any_size(self) -> bool:
        """Whether inputs have any height and width that are multiples of the stride."""
        return self.task != "classify" and self.preprocessing.resize == "letterbox"

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


LONGEST_NAME = 200  # characters of a class or keypoint
LONGEST_TEXT = 2000  # characters of a model's description
MOST_NAMES = 10_000  # classes or keypoints of a model
CHANNELS = (1, 3)
LARGEST_STRIDE = 256
LARGEST_EPS = 1.0
SMALLEST_STD, LARGEST_MEAN = 1e-3, 1e3  # of values between 0 and 1


def check_plausible(description: ModelDescription) -> None:
    """Check a description from outside: a model may be valid and yet useless or harmful.

    Descriptions in the registry are not checked again, so that all stored models stay usable.

    Raises:
        InvalidModelFile: A name is empty, long, unprintable or given twice, or a number is not
            finite or far from what networks have. The message names the field.
    """
    if (wrong := _implausible(description)) is not None:
        raise InvalidModelFile(
            f"The model's description is not plausible: {wrong}. Correct it, and save the model "
            "again."
        )


def _implausible(description: ModelDescription) -> str | None:
    """What is wrong with a description; None if nothing is."""
    about, points = description, description.keypoint_shape
    prepared = about.preprocessing
    if wrong := _wrong_names("names", about.names) or (
        _wrong_names("keypoint_names", about.keypoint_names) if about.keypoint_names else None
    ):
        return wrong
    if len(about.description) > LONGEST_TEXT:
        return f"'description' has more than {LONGEST_TEXT} characters"
    if (about.task == "pose") != (points is not None):
        return "'keypoint_shape' belongs to pose models, and only to them"
    if points is not None and not (1 <= points[0] <= MOST_NAMES and points[1] in (2, 3)):
        return f"'keypoint_shape' must be [keypoints, 2 or 3], not {list(points)}"
    if about.keypoint_names and (points is None or len(about.keypoint_names) != points[0]):
        return "'keypoint_names' must name each keypoint of 'keypoint_shape'"
    if about.channels not in CHANNELS:
        return f"'channels' must be 1 or 3, not {about.channels}"
    if not 1 <= about.stride <= LARGEST_STRIDE:
        return f"'stride' must be 1 to {LARGEST_STRIDE}, not {about.stride}"
    if about.norm_eps is not None and not about.norm_eps <= LARGEST_EPS:
        return f"'norm_eps' must be at most {LARGEST_EPS}, not {about.norm_eps:g}"
    if not all(SMALLEST_STD <= value <= LARGEST_MEAN for value in prepared.std):
        return f"'std' must be {SMALLEST_STD:g} to {LARGEST_MEAN:g}, not {list(prepared.std)}"
    if not all(abs(value) <= LARGEST_MEAN for value in prepared.mean):
        return f"'mean' must be at most {LARGEST_MEAN:g}, not {list(prepared.mean)}"
    if not all_finite(about.architecture):
        return "a number of 'architecture' is not finite"
    return None


def _wrong_names(field: str, names: tuple[str, ...]) -> str | None:
    if not 1 <= len(names) <= MOST_NAMES:
        return f"{field!r} has {len(names)} names; 1 to {MOST_NAMES} are allowed"
    for name in names:
        if not name.strip() or len(name) > LONGEST_NAME or not is_printable(name):
            return (
                f"{name[:40]!r} in {field!r} is no name of 1 to {LONGEST_NAME} characters "
                "without control characters"
            )
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        return f"{twice[:40]!r} is in {field!r} twice"
    return None


def is_printable(text: str) -> bool:
    """Whether a text has no control characters, line breaks or halves of surrogate pairs."""
    return not any(unicodedata.category(letter) in UNPRINTABLE for letter in text)


UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # categories of Unicode


def all_finite(value: Any) -> bool:
    """Whether a JSON value, at any depth, has neither NaN nor infinity."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, list | tuple):
            pending.extend(part)
        elif isinstance(part, float) and not math.isfinite(part):
            return False
    return True


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
        if not is_printable(str(name).strip()):
            raise InvalidModelFile(
                f"The checkpoint's name of class {i}, {str(name)[:40]!r}, has control characters. "
                f"{NAME_THEM}"
            )
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
