"""What is known of a model besides its weights: `model.json` beside `model.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
ENGINES_FILE = "engines.json"  # per engine, how far it is from PyTorch; written by export


class Preprocessing(BaseModel):
    """How an RGB picture becomes the network's input tensor, (3, imgsz, imgsz) float32.

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
        description="Channels of the class branch's hidden layers where a fine-tuned head kept "
        "those of its start weights; None: the architecture's own",
    )
    keypoint_shape: tuple[int, int] | None = None
    keypoint_names: tuple[str, ...] | None = None
    confidence: float = Field(0.25, ge=0, le=1, description="Default serving confidence")
    iou: float = Field(0.7, ge=0, le=1, description="Default IoU threshold of NMS")
    description: str = ""

    @property
    def type(self) -> str:
        """The task under the name the REST API has for it."""
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


def class_names(names: object, count: int) -> tuple[str, ...]:
    """Class names as checkpoints and data sets have them, one per class id.

    A list or a dict of id → name, possibly with gaps, text ids or repeated names. A missing
    name becomes `class 7`; a repeated one gets its id: `sign`, `sign (7)`.

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
