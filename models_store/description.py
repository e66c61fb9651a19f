"""What is known of a model besides its weights: `model.json` beside `model.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["detect", "segment", "pose", "classify"]
Family = Literal["yolo", "mobilenet"]

TYPES: dict[Task, str] = {
    "detect": "detection",
    "segment": "segmentation",
    "pose": "pose",
    "classify": "classification",
}

DESCRIPTION_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"


class Preprocessing(BaseModel):
    """How an RGB picture becomes the network's input tensor, (3, imgsz, imgsz) float32.

    `resize` is one of
    - `letterbox`: scale the longer side to `imgsz` (bilinear), centre, pad with 114;
    - `squash`: resize to (imgsz, imgsz) regardless of the aspect ratio;
    - `centre_crop`: scale the shorter side to `resize_to`, cut the central imgsz × imgsz.

    Values are then divided by 255, and `(x - mean) / std` is taken per RGB channel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: Literal["letterbox", "squash", "centre_crop"]
    imgsz: int = Field(gt=0, multiple_of=1)
    resize_to: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    antialias: bool = False
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


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
        (folder / DESCRIPTION_FILE).write_text(self.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path) -> ModelDescription:
        return cls.model_validate_json((folder / DESCRIPTION_FILE).read_text())
