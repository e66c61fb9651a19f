"""What an export is asked for, and which options apply to which format."""

from __future__ import annotations

from typing import Any, Literal, get_args
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict

from errors import ValidationFailed
from models_store.description import ModelDescription

Format = Literal["onnx", "openvino", "torchscript", "pt", "archive", "engine"]
Precision = Literal["fp32", "fp16"]

FORMATS: tuple[Format, ...] = get_args(Format)
SIZES = range(32, 4097)
MOST_IMAGES = 64  # of a batch
NEVER_STARTED = ("onnx", "pt", "archive")  # formats that a download makes itself, in seconds
SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "openvino": "_openvino_model.zip",
    "torchscript": ".torchscript",
    "pt": ".pt",
    "archive": ".zip",
    "engine": ".engine",
}
"""What a file's name ends with: Ultralytics recognises a format by it."""

APPLY: dict[Format, tuple[str, ...]] = {
    "onnx": ("precision", "imgsz", "dynamic", "max_batch"),
    "openvino": ("precision", "imgsz", "dynamic", "max_batch"),
    "torchscript": ("imgsz", "dynamic"),
    "pt": ("precision",),
    "archive": (),
    "engine": ("precision", "imgsz", "max_batch"),
}
WHY_NOT: dict[tuple[Format, str], str] = {
    ("torchscript", "precision"): "it is written in fp32, since half precision needs a GPU",
    ("torchscript", "max_batch"): "it takes any number of images",
    ("pt", "imgsz"): "its network takes any size",
    ("pt", "dynamic"): "its network takes any size and number of images",
    ("pt", "max_batch"): "its network takes any number of images",
    ("engine", "dynamic"): "it has one size, and takes 1 to 'max_batch' images",
}


class ExportRequest(BaseModel):
    """The options as a client sends them; None: the format's default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format
    precision: Literal["fp32", "fp16", "int8"] | None = None
    imgsz: int | None = None
    dynamic: bool | None = None
    max_batch: int | None = None


class ExportOptions(BaseModel):
    """The options of an export, in full.

    Attributes:
        format: The kind of file.
        precision: Precision of the weights, and where the format computes in it, of the layers.
        imgsz: Side of the square input in pixels.
        dynamic: The input takes other sizes (multiples of the stride) and any number of images.
        max_batch: Number of images of the input; of an engine the largest number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format
    precision: Precision
    imgsz: int
    dynamic: bool = False
    max_batch: int = 1

    @property
    def key(self) -> str:
        """A name for these options, of letters, digits and hyphens."""
        parts: list[str] = [self.format]
        if self.format != "archive":
            parts.append(self.precision)
        if "imgsz" in APPLY[self.format]:
            parts.append(str(self.imgsz))
        if self.dynamic:
            parts.append("dynamic")
        if self.max_batch > 1:
            parts.append(f"batch{self.max_batch}")
        return "-".join(parts)

    @property
    def is_default(self) -> bool:
        """Whether they are what a request for this format alone means."""
        usual = "fp16" if self.format == "engine" else "fp32"
        return self.precision == usual and not self.dynamic and self.max_batch == 1


def resolve(request: ExportRequest, description: ModelDescription) -> ExportOptions:
    """The options in full, for a model.

    Raises:
        ValidationFailed: An option does not apply to the format or the model, or its value is not
            allowed. The message says what is.
    """
    wanted = request.format
    defaults: dict[str, Any] = {
        "precision": "fp16" if wanted == "engine" else "fp32",
        "imgsz": description.imgsz,
        "dynamic": False,
        "max_batch": 1,
    }
    given = request.model_dump(exclude={"format"}, exclude_none=True)
    if given.get("precision") == "int8":
        raise ValidationFailed(
            "'precision' int8 is not offered: it needs images to calibrate with, and its accuracy "
            "measured. Choose fp32 or fp16."
        )
    for name, value in given.items():
        if name not in APPLY[wanted] and value != defaults[name]:
            raise ValidationFailed(_not_applicable(wanted, name))
    chosen = ExportOptions.model_validate({"format": wanted, **defaults, **given})
    _check_size(chosen, description)
    if not 1 <= chosen.max_batch <= MOST_IMAGES:
        raise ValidationFailed(f"'max_batch' is {chosen.max_batch}; allowed is 1 to {MOST_IMAGES}.")
    if chosen.dynamic and description.task == "classify":
        raise ValidationFailed(
            "'dynamic' does not apply to a classifier, whose images are cut to one size. For more "
            "images at a time use 'max_batch'."
        )
    if chosen.dynamic and chosen.max_batch > 1:
        raise ValidationFailed(
            "'max_batch' does not apply with 'dynamic', which takes any number of images."
        )
    return chosen


def download_path(model: str, request: ExportRequest) -> str:
    """The path and query by which the file of a request is downloaded."""
    asked = request.model_dump(mode="json", exclude_none=True)
    query = urlencode({name: str(value).lower() for name, value in asked.items()})
    return f"/models/{model}/download?{query}"


def file_name(model: str, options: ExportOptions) -> str:
    """The name of an exported file, from a model's `name:version`."""
    return f"{model.replace(':', '-')}{SUFFIXES[options.format]}"


def _not_applicable(wanted: Format, name: str) -> str:
    why = WHY_NOT.get((wanted, name))
    reason = f": {why}" if why else ""
    taken = ", ".join(APPLY[wanted]) or "no options"
    return f"'{name}' does not apply to {wanted}{reason}. {wanted} takes {taken}."


def _check_size(chosen: ExportOptions, description: ModelDescription) -> None:
    size, stride = chosen.imgsz, description.stride
    if size == description.imgsz:
        return
    if description.task == "classify":
        raise ValidationFailed(
            f"'imgsz' is {size}, but this classifier's images are cut to {description.imgsz} "
            "pixels. Leave it out."
        )
    if size not in SIZES or size % stride:
        raise ValidationFailed(
            f"'imgsz' is {size}; allowed are the multiples of {stride} from {SIZES[0]} to "
            f"{SIZES[-1]}."
        )
